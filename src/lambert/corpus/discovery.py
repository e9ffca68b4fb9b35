"""The sources that a person named, as a list: files, folders, patterns, standard input, Hugging Face datasets."""

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
# Wikimedia cuts its larger dumps by page: enwiki-20250101-pages-articles1.xml-p1p41242.bz2
_TAKEN = re.compile(
    rf"(?:{'|'.join(map(re.escape, _TEXT_ENDINGS))}|\.xml-p\d+p\d+)(?:{'|'.join(map(re.escape, SUFFIXES))})?|\.parquet",
    re.IGNORECASE,
)
_EXPORT_NAME = re.compile(r"\.xml(?:-p\d+p\d+)?(?:\.[a-z0-9]+)?$")
_ENDING = re.compile(rf"(?:{_TAKEN.pattern})$", re.IGNORECASE)


def find_files(paths: Sequence[Path | str]) -> list[Path]:
    """The sources among files, folders, patterns, `-` and `hf:` names, each once, sorted within a folder or a pattern.

    A file named outright or by a pattern (`*`, `?`, `[a-z]`, `**` for any depth) is taken whatever it is called. In
    folders, searched to any depth, links followed, hidden entries left out, only files that are not empty and end in
    `.txt`, `.jsonl`, `.ndjson`, `.json`, `.xml` (each also with `.gz`, `.bz2`, `.xz` or `.zst`) or `.parquet`.
    `-` (standard input) and `hf:` names of Hugging Face datasets are handed on as they are.

    Raises:
        UserError: a path does not exist or cannot be read, a named file is empty, a folder holds no text, or a
            pattern fits nothing.
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
    """A missing package is said now, not when hours later the first file that needs it is met."""
    names = [source.name.lower() for source in sources]
    if any(_EXPORT_NAME.search(name) for name in names):
        mediawiki.check_installed()
    if any(is_dataset_name(str(source)) for source in sources):
        hugging_face.check_installed()


def stored_bytes(file: Path) -> int | None:
    """The size of a source as it is stored; None for standard input and Hugging Face datasets."""
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
    """(what makes it the same source, the source) of everything that a name stands for."""
    path = Path(name)
    if path == STANDARD_INPUT or is_dataset_name(name):
        return [(name, path)]
    try:
        if path.is_dir():
            if files := _files_in_folder(path):
                return files
            endings = ", ".join((*_TEXT_ENDINGS, ".parquet"))
            raise UserError(
                f"folder {path} holds no text",
                remedy=f"Put files ending in {endings} into it, or name a file outright",
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
    """The files, whatever they are called, that fit a pattern, and the text in the folders that fit it."""
    parts = Path(pattern).parts
    depth = parts.index("**") if "**" in parts else len(parts)
    head, tail = str(Path(*parts[:depth])), parts[depth:]
    files: list[tuple[str, Path]] = []
    for match in sorted(map(Path, glob.glob(head)), key=lambda path: path.parts):
        if tail and match.is_dir():
            # Not with glob's own `**`, which goes round a loop of links forty times, and round two of them for ever.
            below = _files_in_folder(match, re.compile(""))
            files += [found for found in below if _fits(found[1].relative_to(match).parts, tail)]
        elif not tail and match.is_dir():
            files += _files_in_folder(match)
        elif not tail and match.is_file() and match.stat().st_size:
            files.append((os.path.realpath(match), match))
    if not files:
        raise UserError(
            f"no file with text in it fits the pattern {pattern}", remedy="Check the pattern and its folder"
        )
    return files


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path fit those of a pattern; `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return len(pattern) == 1 or any(_fits(parts[start:], pattern[1:]) for start in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _files_in_folder(folder: Path, ending: re.Pattern[str] = _ENDING) -> list[tuple[str, Path]]:
    try:
        files = list(_walked(str(folder), os.path.realpath(folder), ending, set()))
    except PermissionError as error:
        raise UserError(
            f"{error.filename} cannot be read ({error.strerror})", remedy="Check its permissions"
        ) from error
    return sorted(files, key=lambda file: file[1].parts)


def _walked(folder: str, real_folder: str, ending: re.Pattern[str], visited: set[str]) -> Iterator[tuple[str, Path]]:
    """The files below a folder whose names end so; a folder that links lead back to is walked once."""
    if real_folder in visited:
        return
    visited.add(real_folder)
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in listed:
        # Links apart, the real path is put together, not asked for: 100,000 files are found in a second.
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
            f"{path} is a link to {os.readlink(path)}, which is not there", remedy="Mend or remove the link"
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
