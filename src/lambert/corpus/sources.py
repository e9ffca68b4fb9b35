"""Text files, plain or compressed, as a stream of documents in bounded memory.

A document is a run of lines that are not blank; a blank line or the end of a file ends it. Each line is one
paragraph or one sentence. Whatever the input looks like, no line is held beyond `LINE_LIMIT_BYTES` and no
document beyond `DOCUMENT_LIMIT_CHARACTERS`: longer ones are cut, and the cuts are counted.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from lambert.corpus.compression import SUFFIXES, open_text_bytes, read_blocks, refuse_other_formats
from lambert.errors import UserError

LINE_LIMIT_BYTES = 1 << 20
DOCUMENT_LIMIT_CHARACTERS = 1_000_000

_TEXT_SUFFIXES = tuple(f".txt{suffix}" for suffix in ("", *SUFFIXES))
# Zero-width marks and NUL carry no text: a line made of them alone is blank.
_BLANKS = " \t\r\n\v\f\x00\x1c\x1d\x1e\x85\xa0\u2028\u2029\u3000\ufeff\u200b"
_UNDECODABLE = re.compile("[\udc80-\udcff]")
_CARRIAGE_RETURNS = re.compile(rb"\r*\n|\r")
_UTF8_MARK = b"\xef\xbb\xbf"
_CHINESE_FULL_STOP = "。".encode()


@dataclass(frozen=True)
class Document:
    """One document: where it came from, and its lines in order, stripped, none of them empty."""

    source: str
    paragraphs: list[str]


@dataclass
class ReadStatistics:
    """What a pass over the files met; counts grow while the pass goes on."""

    files: int = 0
    bytes: int = 0  # of text, after decompression
    stored_bytes: int = 0  # as they lie on the disk, for progress
    lines: int = 0
    replaced_bytes: dict[str, int] = field(default_factory=dict)  # by file, only where there were any
    cut_lines: int = 0
    cut_documents: int = 0

    @classmethod
    def total(cls, statistics: Sequence[ReadStatistics]) -> ReadStatistics:
        """The sum; what is told by file is put together."""
        sums = cls()
        for one in statistics:
            for entry in fields(cls):
                value = getattr(one, entry.name)
                before = getattr(sums, entry.name)
                setattr(sums, entry.name, {**before, **value} if isinstance(value, dict) else before + value)
        return sums


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The text files among files and folders, sorted by path within each folder, each file once.

    A file named outright is taken whatever it is called; in folders (searched to any depth, hidden entries
    left out) only `.txt`, `.txt.gz`, `.txt.bz2`, `.txt.xz` and `.txt.zst` that are not empty.

    Raises:
        UserError: a path does not exist or cannot be read, a named file is empty, or a folder holds no text.
    """
    if not paths:
        raise UserError("no text was given", remedy="Name at least one text file or folder")
    found: dict[Path, Path] = {}
    for path in paths:
        for file in _files_of(Path(path)):
            found.setdefault(file.resolve(), file)
    return list(found.values())


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
            remedy=f"Put files ending in {', '.join(_TEXT_SUFFIXES)} into it, or name a file outright",
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


class TextReader:
    """Reads files one after another as a stream of documents; `statistics` tells about the latest pass.

    It can be iterated over more than once; each pass reads the files anew and begins new statistics.

    Raises (while iterating):
        UserError: a file cannot be read, is damaged or truncated, or is not text at all.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self.statistics = ReadStatistics()

    def __iter__(self) -> Iterator[Document]:
        self.statistics = ReadStatistics()
        for file in self.files:
            yield from self._documents(file)
            self.statistics.files += 1

    def _documents(self, file: Path) -> Iterator[Document]:
        paragraphs: list[str] = []
        characters = 0
        for line in self._text_lines(file):
            pieces = [stripped for piece in line.splitlines() if (stripped := piece.strip(_BLANKS))]
            if not pieces and paragraphs:
                yield Document(str(file), paragraphs)
                paragraphs, characters = [], 0
            for piece in pieces:
                if paragraphs and characters + len(piece) > DOCUMENT_LIMIT_CHARACTERS:
                    self.statistics.cut_documents += 1
                    yield Document(str(file), paragraphs)
                    paragraphs, characters = [], 0
                paragraphs.append(piece)
                characters += len(piece)
        if paragraphs:
            yield Document(str(file), paragraphs)

    def _text_lines(self, file: Path) -> Iterator[str]:
        """Decoded lines; one longer than `LINE_LIMIT_BYTES` comes in pieces and is counted once as cut."""
        statistics = self.statistics
        tail, was_cut = b"", False
        for block in self._blocks(file):
            *complete, tail = (tail + block).split(b"\n")
            for raw in complete:
                pieces, rest = _cut(raw)
                was_cut = was_cut or bool(pieces)
                statistics.lines += 1
                statistics.cut_lines += was_cut
                # Where a cut left only white space behind, that is the end of a line, not a blank line.
                if rest.strip() or not was_cut:
                    pieces.append(rest)
                yield from (self._decode(piece, file) for piece in pieces)
                was_cut = False
            pieces, tail = _cut(tail)
            was_cut = was_cut or bool(pieces)
            yield from (self._decode(piece, file) for piece in pieces)
        if tail:
            statistics.lines += 1
            yield self._decode(tail, file)
        statistics.cut_lines += was_cut

    def _blocks(self, file: Path) -> Iterator[bytes]:
        """Decompressed blocks with line feeds for every kind of line end, without a byte order mark."""
        statistics = self.statistics
        stored_before = statistics.stored_bytes
        held = b""
        with open_text_bytes(file) as (stream, raw):
            for number, block in enumerate(read_blocks(stream)):
                statistics.bytes += len(block)
                statistics.stored_bytes = stored_before + raw.tell()
                if number == 0:
                    refuse_other_formats(file, block)
                    block = block.removeprefix(_UTF8_MARK)
                block = held + block
                # A carriage return at the end of a block may be half of a line end.
                held = b"\r" if block.endswith(b"\r") else b""
                block = block[: len(block) - len(held)]
                if b"\r" in block:
                    block = _CARRIAGE_RETURNS.sub(b"\n", block)
                yield block

    def _decode(self, raw: bytes, file: Path) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            # One lone surrogate stands for each byte that is not UTF-8, so the substitutions count bytes.
            text, replaced = _UNDECODABLE.subn("\ufffd", raw.decode("utf-8", "surrogateescape"))
            counts = self.statistics.replaced_bytes
            counts[str(file)] = counts.get(str(file), 0) + replaced
            return text


def _cut(raw: bytes) -> tuple[list[bytes], bytes]:
    """(pieces of at most `LINE_LIMIT_BYTES`, what is left); what follows does not move the cuts."""
    pieces: list[bytes] = []
    while len(raw) > LINE_LIMIT_BYTES:
        place = _cut_place(raw)
        pieces.append(raw[:place])
        raw = raw[place:]
    return pieces, raw


def _cut_place(raw: bytes) -> int:
    """After the last white space or Chinese full stop within the limit, else the last whole character."""
    head = raw[:LINE_LIMIT_BYTES]
    place = max(head.rfind(b" ") + 1, head.rfind(b"\t") + 1)
    if place == 0 and _CHINESE_FULL_STOP in head:
        place = head.rfind(_CHINESE_FULL_STOP) + len(_CHINESE_FULL_STOP)
    if place == 0:
        place = LINE_LIMIT_BYTES
        for _ in range(3):  # continuation bytes of UTF-8 are 10xxxxxx, at most three in a row
            place -= raw[place] & 0xC0 == 0x80
    return place
