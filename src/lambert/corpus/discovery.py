"""The sources that a person named, as a list: files, folders, patterns, standard input, Hugging Face datasets."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lambert.corpus.compression import SUFFIXES
from lambert.corpus.readers.document import STANDARD_INPUT
from lambert.corpus.readers.hugging_face import is_dataset_name
from lambert.errors import UserError

_TEXT_ENDINGS = (".txt", ".jsonl", ".ndjson", ".json", ".xml")
# Wikimedia cuts its larger dumps by page: enwiki-20250101-pages-articles1.xml-p1p41242.bz2
_TAKEN = re.compile(
    rf"(?:{'|'.join(map(re.escape, _TEXT_ENDINGS))}|\.xml-p\d+p\d+)(?:{'|'.join(map(re.escape, SUFFIXES))})?|\.parquet",
    re.IGNORECASE,
)
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
    return list(found.values())


def stored_bytes(file: Path) -> int | None:
    """The size of a source as it is stored; None for standard input and Hugging Face datasets."""
    return None if file == STANDARD_INPUT or is_dataset_name(str(file)) else file.stat().st_size


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
    matches = [Path(match) for match in glob.glob(pattern, recursive=True)]
    files: list[tuple[str, Path]] = []
    for match in sorted(matches, key=lambda path: path.parts):
        if match.is_dir():
            # With `**` the files in it are matches themselves.
            files += [] if "**" in pattern else _files_in_folder(match)
        elif match.is_file() and match.stat().st_size:
            files.append((os.path.realpath(match), match))
    if not files:
        raise UserError(
            f"no file with text in it fits the pattern {pattern}", remedy="Check the pattern and its folder"
        )
    return files


def _files_in_folder(folder: Path) -> list[tuple[str, Path]]:
    try:
        files = list(_walked(str(folder), os.path.realpath(folder), set()))
    except PermissionError as error:
        raise UserError(
            f"{error.filename} cannot be read ({error.strerror})", remedy="Check its permissions"
        ) from error
    return sorted(files, key=lambda file: file[1].parts)


def _walked(folder: str, real_folder: str, visited: set[str]) -> Iterator[tuple[str, Path]]:
    """The files below a folder; one that links lead back to is walked once."""
    if real_folder in visited:
        return
    visited.add(real_folder)
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in listed:
        # Links apart, the real path is put together, not asked for: 100,000 files are found in two seconds.
        real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real_folder, entry.name)
        if entry.is_dir():
            yield from _walked(entry.path, real, visited)
        elif _ENDING.search(entry.name) and entry.is_file() and entry.stat().st_size:
            yield real, Path(entry.path)


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
