"""Named sources as a list: files, folders, patterns, standard input, Hugging Face datasets."""

from __future__ import annotations

import difflib
import errno
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lambert.corpus.compression import SUFFIXES
from lambert.corpus.readers import hugging_face, mediawiki
from lambert.corpus.readers.document import STANDARD_INPUT
from lambert.corpus.readers.hugging_face import is_dataset_name
from lambert.errors import UserError

_TEXT_ENDINGS = (".txt", ".jsonl", ".jsonlines", ".ndjson", ".json", ".xml")
# Wikimedia splits its larger dumps by page: enwiki-20250101-pages-articles1.xml-p1p41242.bz2
_TAKEN = re.compile(
    rf"(?:{'|'.join(map(re.escape, _TEXT_ENDINGS))}|\.xml-p\d+p\d+)(?:{'|'.join(map(re.escape, SUFFIXES))})?|\.parquet",
    re.IGNORECASE,
)
_ENDINGS_SHOWN = 6
DANGLING = "links to nothing"
_EXPORT_NAME = re.compile(r"\.xml(?:-p\d+p\d+)?(?:\.[a-z0-9]+)?$")
_ENDING = re.compile(rf"(?:{_TAKEN.pattern}|^wiki_\d+(?:{'|'.join(map(re.escape, SUFFIXES))})?)$", re.IGNORECASE)


class FoundFiles(list[Path]):
    """Sources in order, and what the folders hold beside them."""

    left_out: Counter[str]
    """Ending → files in folders that are not taken; "" for those without one, "links to nothing" for those."""
    left_out_bytes: int = 0

    def __init__(self, files: Iterable[Path] = ()) -> None:
        super().__init__(files)
        self.left_out = Counter()

    def leave_out(self, entry: os.DirEntry[str]) -> None:
        """Counts a file that is not taken."""
        self.left_out[Path(entry.name).suffix.lower()] += 1
        self.left_out_bytes += entry.stat().st_size

    def leave_out_link(self) -> None:
        """Counts a link to nothing."""
        self.left_out[DANGLING] += 1


def find_files(paths: Sequence[Path | str]) -> FoundFiles:
    """The sources among files, folders, patterns, `-` and `hf:` names, each once, sorted within a folder or a pattern.

    A file that is named or matches a pattern (`*`, `?`, `[a-z]`, `**` for any depth) may have any name. Folders are
    searched to any depth, following links and skipping hidden entries, for files that are not empty and end in
    `.txt`, `.jsonl`, `.jsonlines`, `.ndjson`, `.json`, `.xml` (each also with `.gz`, `.bz2`, `.xz` or `.zst`) or
    `.parquet`, or are called `wiki_00` and so on, as WikiExtractor's. Other files there are counted in `left_out`.
    `-` (standard input) and `hf:` names of Hugging Face datasets are returned as they are.

    Raises:
        UserError: a path does not exist or cannot be read, a named file is empty, a folder has no text, or a
            pattern matches nothing.
    """
    if not paths:
        raise UserError("no text was given", remedy="Name at least one text file or folder")
    found: dict[str, Path] = {}
    beside = FoundFiles()
    for path in paths:
        for key, file in _sources_of(str(path), beside):
            found.setdefault(key, file)
    _check_extras(found.values())
    beside.extend(found.values())
    return beside


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


def _sources_of(name: str, beside: FoundFiles) -> list[tuple[str, Path]]:
    """(identity, source) of everything that a name stands for."""
    path = Path(name)
    if path == STANDARD_INPUT or is_dataset_name(name):
        return [(name, path)]
    try:
        if path.is_dir():
            if files := _files_in_folder(path, beside):
                return files
            endings = ", ".join((*_TEXT_ENDINGS, ".parquet"))
            others = f", only {endings_told(beside.left_out)}" if beside.left_out else ""
            raise UserError(
                f"the folder {path} has no text that is taken by its name{others}",
                remedy=f"Put files ending in {endings} into it, or name files by a pattern such as '{path}/**/*'",
            )
        if not path.exists():
            if glob.has_magic(name):
                return _files_of_pattern(name, beside)
            raise _missing(path)
        if not path.is_file() and not path.is_fifo():
            raise UserError(f"{path} is neither a file nor a folder", remedy="Give files or folders of text")
        if path.is_file() and path.stat().st_size == 0:
            raise UserError(f"{path} is empty", remedy="Give a file with text in it")
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", remedy="Check its permissions") from error
    return [(os.path.realpath(path), path)]


def _files_of_pattern(pattern: str, beside: FoundFiles) -> list[tuple[str, Path]]:
    """The files of any name that match a pattern, and the text in the folders that match it."""
    parts = Path(pattern).parts
    depth = parts.index("**") if "**" in parts else len(parts)
    head, tail = str(Path(*parts[:depth])), parts[depth:]
    files: list[tuple[str, Path]] = []
    for match in sorted(map(Path, glob.glob(head)), key=lambda path: path.parts):
        if tail and match.is_dir():
            # Not by glob's own `**`, which follows a loop of links forty times, and two of them forever.
            below = _files_in_folder(match, None)
            files += [found for found in below if _matches(found[1].relative_to(match).parts, tail)]
        elif not tail and match.is_dir():
            files += _files_in_folder(match, beside)
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


def _files_in_folder(folder: Path, beside: FoundFiles | None) -> list[tuple[str, Path]]:
    """The files below a folder that are taken by their names; others are counted in `beside`, or taken with None."""
    try:
        files = list(_walked(str(folder), os.path.realpath(folder), beside, set()))
    except PermissionError as error:
        raise UserError(
            f"{error.filename} cannot be read ({error.strerror})", remedy="Check its permissions"
        ) from error
    return sorted(files, key=lambda file: file[1].parts)


def _walked(folder: str, real_folder: str, beside: FoundFiles | None, visited: set[str]) -> Iterator[tuple[str, Path]]:
    """As `_files_in_folder`; every folder is walked once, however many links lead to it."""
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
                yield from _walked(entry.path, real, beside, visited)
            elif entry.is_file() and entry.stat().st_size:
                if beside is None or _ENDING.search(entry.name):
                    yield real, Path(entry.path)
                else:
                    beside.leave_out(entry)
            elif beside is not None and entry.is_symlink() and not os.path.exists(entry.path):
                beside.leave_out_link()
        except OSError as error:
            if error.errno != errno.ELOOP:  # a link to itself leads nowhere, as one to nothing does
                raise
            if beside is not None:
                beside.leave_out_link()


def endings_told(left_out: Mapping[str, int]) -> str:
    """Files by ending, the commonest first: "5 .md, 2 without ending, 7 others"."""
    ranked = sorted(left_out.items(), key=lambda entry: (-entry[1], entry[0]))
    told = [f"{count:,} {ending or 'without ending'}" for ending, count in ranked[:_ENDINGS_SHOWN]]
    others = sum(count for _, count in ranked[_ENDINGS_SHOWN:])
    return ", ".join([*told, f"{others:,} others"] if others else told)


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
