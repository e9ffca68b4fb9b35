"""Which files are meant by paths, folders and patterns."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lambert.corpus.compression import SUFFIXES
from lambert.errors import UserError

_PLAIN, _JSON, _PARQUET, _WIKI = (".txt",), (".jsonl", ".ndjson", ".json"), (".parquet",), (".xml",)
_TEXT_SUFFIXES = (*(f"{kind}{suffix}" for kind in (*_PLAIN, *_JSON, *_WIKI) for suffix in ("", *SUFFIXES)), *_PARQUET)
_SHOWN_SUFFIXES = ", ".join((*_PLAIN, *_JSON, *_PARQUET, *_WIKI))
_PATTERN_SIGNS = "*?["

PLAIN_TEXT, JSON_LINES, PARQUET, MEDIAWIKI = "plain text", "JSON lines", "Parquet", "MediaWiki XML"


def parser_of(file: Path) -> str:
    """Which parser takes a file, by its name: whatever is not named otherwise is plain text."""
    name = file.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    for suffixes, parser in ((_JSON, JSON_LINES), (_PARQUET, PARQUET), (_WIKI, MEDIAWIKI)):
        if name.endswith(suffixes):
            return parser
    return PLAIN_TEXT


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The text files among files, folders and patterns, sorted by path within each folder, each file once.

    A file named outright is taken whatever it is called; in folders (searched to any depth, hidden entries left out)
    only `.txt`, `.jsonl`, `.ndjson`, `.json`, `.xml`, each also with `.gz`, `.bz2`, `.xz` or `.zst`, and `.parquet`,
    that are not empty. A path that does not exist and holds `*`, `?` or `[` is a pattern, `**` for any folders.

    Raises:
        UserError: a path does not exist or cannot be read, a named file is empty, or a folder holds no text.
    """
    if not paths:
        raise UserError("no text was given", remedy="Name at least one text file or folder")
    found: dict[Path, Path] = {}
    for path in paths:
        for meant in _matching(Path(path)):
            for file in _files_of(meant):
                found.setdefault(file.resolve(), file)
    return list(found.values())


def _matching(path: Path) -> Iterator[Path]:
    """The path itself, or what it matches as a pattern."""
    if path.exists() or not any(sign in str(path) for sign in _PATTERN_SIGNS):
        yield path
        return
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise UserError(f"nothing matches {path}", remedy="Check the pattern; `**` stands for folders of any depth")
    yield from map(Path, matches)


def _files_of(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            return _files_in_folder(path)
        if not path.exists():
            raise _missing(path)
        if not path.is_file():
            raise UserError(f"{path} is neither a file nor a folder", remedy="Give files or folders of text")
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty", remedy="Give a file with text in it")
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", remedy="Check its permissions") from error
    return [path]


def _files_in_folder(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror})", remedy="Check its permissions")

    files: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        candidates = (Path(parent, name) for name in names if not name.startswith("."))
        files += [file for file in candidates if file.name.lower().endswith(_TEXT_SUFFIXES) and file.is_file()]
    files = sorted(file for file in files if file.stat().st_size)
    if not files:
        raise UserError(
            f"folder {folder} holds no text",
            remedy=f"Put files ending in {_SHOWN_SUFFIXES} (also compressed) into it, or name a file outright",
        )
    return files


def _missing(path: Path) -> UserError:
    parent = path.parent
    if not parent.is_dir():
        return UserError(f"{path} does not exist: there is no folder {parent}", remedy="Check the spelling of the path")
    names = [entry.name for entry in parent.iterdir() if not entry.name.startswith(".")]
    if 0 < len(names) <= 20:
        nearest = difflib.get_close_matches(path.name, names, n=1)
        remedy = f"Perhaps you meant {parent / nearest[0]}" if nearest else "Check the spelling of the path"
        return UserError(f"{path} does not exist", remedy=remedy)
    return UserError(f"{path} does not exist", remedy="Check the spelling of the path")
