"""Named sources as a list: files, folders, patterns, standard input, Hugging Face datasets."""

from __future__ import annotations

import difflib
import errno
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lambert.corpus.compression import SUFFIXES
from lambert.corpus.readers import hugging_face, mediawiki
from lambert.corpus.readers.document import STANDARD_INPUT
from lambert.corpus.readers.hugging_face import is_dataset_name
from lambert.errors import UserError

_TEXT_ENDINGS = (".txt", ".jsonl", ".ndjson", ".json", ".xml")
# Wikimedia splits its larger dumps by page: enwiki-20250101-pages-articles1.xml-p1p41242.bz2
_TAKEN = re.compile(
    rf"(?:{'|'.join(map(re.escape, _TEXT_ENDINGS))}|\.xml-p\d+p\d+)(?:{'|'.join(map(re.escape, SUFFIXES))})?|\.parquet",
    re.IGNORECASE,
)
_EXPORT_NAME = re.compile(r"\.xml(?:-p\d+p\d+)?(?:\.[a-z0-9]+)?$")
_ENDING = re.compile(rf"(?:{_TAKEN.pattern})$", re.IGNORECASE)


def find_files(paths: Sequence[Path | str]) -> list[Path]:
    """The sources among files, folders, patterns, `-` and `hf:` names, each once, sorted within a folder or a pattern.

    A file that is named or matches a pattern (`*`, `?`, `[a-z]`, `**` for any depth) may have any name. Folders are
    searched to any depth, following links and skipping hidden entries, for files that are not empty and end in
    `.txt`, `.jsonl`, `.ndjson`, `.json`, `.xml` (each also with `.gz`, `.bz2`, `.xz` or `.zst`) or `.parquet`.
    `-` (standard input) and `hf:` names of Hugging Face datasets are returned as they are.

    Raises:
        UserError: a path does not exist or cannot be read, a named file is empty, a folder has no text, or a
            pattern matches nothing.
    """
    if not paths:
        raise UserError("no text was given", remedy="Name at least one text file or folder")
    found: dict[str, Path] = {}
    for path in paths:
        for key, file in _sources_of(str(path)):
            found.setdefault(key, file)
    _check_extras(found.values())
    return list(found.values())


def _check_extras(sources: Iterable[Path]) -> None:
    """Reports a missing package now, not hours later at the first file that needs it."""
    names = [source.name.lower() for source in sources]
    if any(_EXPORT_NAME.search(name) for name in names):
        mediawiki.check_installed()
    if any(is_dataset_name(str(source)) for source in sources):
        hugging_face.check_installed()


def stored_bytes(file: Path) -> int | None:
    """The size of a source on disk; None for standard input and Hugging Face datasets."""
    return None if file == STANDARD_INPUT or is_dataset_name(str(file)) else file.stat().st_size


def identities(files: Iterable[Path]) -> list[list[Any]]:
    """(path, size, modification time) of each file; datasets by name have a name only."""
    return [
        [str(file), None, None]
        if stored_bytes(file) is None
        else [str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns]
        for file in files
    ]


def _sources_of(name: str) -> list[tuple[str, Path]]:
    """(identity, source) of everything that a name stands for."""
    path = Path(name)
    if path == STANDARD_INPUT or is_dataset_name(name):
        return [(name, path)]
    try:
        if path.is_dir():
            if files := _files_in_folder(path):
                return files
            endings = ", ".join((*_TEXT_ENDINGS, ".parquet"))
            raise UserError(
                f"the folder {path} has no text",
                remedy=f"Put files ending in {endings} into it, or name a file",
            )
        if not path.exists():
            if glob.has_magic(name):
                return _files_of_pattern(name)
            raise _missing(path)
        if not path.is_file() and not path.is_fifo():
            raise UserError(f"{path} is neither a file nor a folder", remedy="Give files or folders of text")
        if path.is_file() and path.stat().st_size == 0:
            raise UserError(f"{path} is empty", remedy="Give a file with text in it")
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", remedy="Check its permissions") from error
    return [(os.path.realpath(path), path)]


def _files_of_pattern(pattern: str) -> list[tuple[str, Path]]:
    """The files of any name that match a pattern, and the text in the folders that match it."""
    parts = Path(pattern).parts
    depth = parts.index("**") if "**" in parts else len(parts)
    head, tail = str(Path(*parts[:depth])), parts[depth:]
    files: list[tuple[str, Path]] = []
    for match in sorted(map(Path, glob.glob(head)), key=lambda path: path.parts):
        if tail and match.is_dir():
            # Not by glob's own `**`, which follows a loop of links forty times, and two of them forever.
            below = _files_in_folder(match, re.compile(""))
            files += [found for found in below if _matches(found[1].relative_to(match).parts, tail)]
        elif not tail and match.is_dir():
            files += _files_in_folder(match)
        elif not tail and match.is_file() and match.stat().st_size:
            files.append((os.path.realpath(match), match))
    if not files:
        raise UserError(
            f"no file with text in it matches the pattern {pattern}", remedy="Check the pattern and its folder"
        )
    return files


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a pattern; `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return len(pattern) == 1 or any(_matches(parts[start:], pattern[1:]) for start in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _files_in_folder(folder: Path, ending: re.Pattern[str] = _ENDING) -> list[tuple[str, Path]]:
    try:
        files = list(_walked(str(folder), os.path.realpath(folder), ending, set()))
    except PermissionError as error:
        raise UserError(
            f"{error.filename} cannot be read ({error.strerror})", remedy="Check its permissions"
        ) from error
    return sorted(files, key=lambda file: file[1].parts)


def _walked(folder: str, real_folder: str, ending: re.Pattern[str], visited: set[str]) -> Iterator[tuple[str, Path]]:
    """The files below a folder with this ending; every folder is walked once, however many links lead to it."""
    if real_folder in visited:
        return
    visited.add(real_folder)
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in listed:
        # The real path is asked for links only: 100,000 files are found in a second.
        real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real_folder, entry.name)
        try:
            if entry.is_dir():
                yield from _walked(entry.path, real, ending, visited)
            elif ending.search(entry.name) and entry.is_file() and entry.stat().st_size:
                yield real, Path(entry.path)
        except OSError as error:
            if error.errno != errno.ELOOP:  # a link to itself leads nowhere, as one to nothing does
                raise


def _missing(path: Path) -> UserError:
    if path.is_symlink():
        return UserError(
            f"{path} is a link to {os.readlink(path)}, which does not exist", remedy="Fix or remove the link"
        )
    parent = path.parent
    if not parent.is_dir():
        return UserError(f"{path} does not exist: there is no folder {parent}", remedy="Check the spelling of the path")
    names = [entry.name for entry in parent.iterdir() if not entry.name.startswith(".")]
    if 0 < len(names) <= 20:
        nearest = difflib.get_close_matches(path.name, names, n=1)
        remedy = f"Perhaps you meant {parent / nearest[0]}" if nearest else "Check the spelling of the path"
        return UserError(f"{path} does not exist", remedy=remedy)
    return UserError(f"{path} does not exist", remedy="Check the spelling of the path")
