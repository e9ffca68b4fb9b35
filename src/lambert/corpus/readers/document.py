"""What every reader produces: documents of bounded size, and statistics of what was read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

LINE_LIMIT_BYTES = 1 << 20
DOCUMENT_LIMIT_CHARACTERS = 1_000_000
STANDARD_INPUT = Path("-")

# Zero-width marks and NUL carry no text: a line made of them alone is blank.
_BLANKS = " \t\r\n\v\f\x00\x1c\x1d\x1e\x85\xa0\u2028\u2029\u3000\ufeff\u200b"
_SURROGATE = re.compile("[\ud800-\udfff]")
_CHINESE_FULL_STOP = "。".encode()


@dataclass(frozen=True)
class Document:
    """One document: its source, and its lines in order, stripped and not empty."""

    source: str
    paragraphs: list[str]


@dataclass(frozen=True)
class ReadOptions:
    """How sources are read."""

    text_field: str = "text"
    """Field of JSON lines, column of CSV, TSV, Parquet and of Hugging Face datasets that holds the text."""
    encoding: str | None = None
    """Of the files that are not UTF-8; None detects it."""
    text_format: str = "auto"
    """A key of `formats.TEXT_FORMATS`."""
    one_document_per_file: bool = False
    """A file of plain text is a document, in which blank lines separate paragraphs only."""
    join_lines: bool = False
    """The lines of plain text between two blank lines are one paragraph."""


@dataclass
class ReadStatistics:
    """Statistics of one pass over the sources, updated while reading."""

    files: int = 0
    bytes: int = 0  # of text, after decompression
    stored_bytes: int = 0  # on disk, for progress
    lines: int = 0  # of a file of lines; elsewhere the records: rows, pages
    replaced_bytes: dict[str, int] = field(default_factory=dict)  # by file, only where there were any
    cut_lines: int = 0
    cut_documents: int = 0
    wrapped_lines: int = 0  # of plain text, whose sentence seems to go on in the next line
    parsers: dict[str, str] = field(default_factory=dict)  # by file: which parser took it
    encodings: dict[str, str] = field(default_factory=dict)  # by file, where it was decoded from another than UTF-8
    skipped_records: dict[str, int] = field(default_factory=dict)  # by file, only where there were any
    first_skipped: dict[str, str] = field(default_factory=dict)  # by file: position and reason of the first

    def skip(self, file: Path, position: str, reason: str) -> None:
        """Counts a record without a document; `position` is text such as "line 17"."""
        self.skipped_records[str(file)] = self.skipped_records.get(str(file), 0) + 1
        self.first_skipped.setdefault(str(file), f"{position}: {reason}")

    def add(self, other: ReadStatistics) -> None:
        """Adds the statistics of later files."""
        for name in ("files", "bytes", "stored_bytes", "lines", "cut_lines", "cut_documents", "wrapped_lines"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in (
            (self.replaced_bytes, other.replaced_bytes),
            (self.skipped_records, other.skipped_records),
        ):
            for file, count in theirs.items():
                mine[file] = mine.get(file, 0) + count
        self.parsers |= other.parsers
        self.encodings |= other.encodings
        self.first_skipped = other.first_skipped | self.first_skipped


def source_name(file: Path) -> str:
    """A source's name in messages."""
    return "standard input" if file == STANDARD_INPUT else str(file)


def decoded(raw: bytes, file: Path, statistics: ReadStatistics) -> str:
    """Decodes UTF-8; each invalid byte becomes U+FFFD and is counted."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        # One lone surrogate stands for each byte that is not UTF-8, so the substitutions count bytes.
        return without_surrogates(raw.decode("utf-8", "surrogateescape"), file, statistics)


def without_surrogates(text: str, file: Path, statistics: ReadStatistics) -> str:
    """Replaces lone surrogates, which UTF-8 cannot encode, by U+FFFD and counts them as replaced bytes."""
    text, replaced = _SURROGATE.subn("\ufffd", text)
    if replaced:
        counts = statistics.replaced_bytes
        counts[str(file)] = counts.get(str(file), 0) + replaced
    return text


def stripped_lines(line: str) -> list[str]:
    """The non-blank lines of a line: form feed, U+2028 and similar characters end lines too."""
    return [stripped for piece in line.splitlines() if (stripped := piece.strip(_BLANKS))]


def paragraphs_of(text: str, statistics: ReadStatistics) -> Iterator[str]:
    """The non-blank lines of one document's text; overlong ones are cut and counted."""
    for line in stripped_lines(text):
        # A character is at most four bytes of UTF-8.
        if 4 * len(line) <= LINE_LIMIT_BYTES or len(raw := line.encode()) <= LINE_LIMIT_BYTES:
            yield line
            continue
        statistics.cut_lines += 1
        pieces, rest = cut_line(raw)
        for piece in (*pieces, rest):
            yield from stripped_lines(piece.decode())


def bounded_documents(file: Path, paragraphs: Iterable[str], statistics: ReadStatistics) -> Iterator[Document]:
    """One document of these paragraphs, several where it exceeds `DOCUMENT_LIMIT_CHARACTERS`, or none."""
    held: list[str] = []
    characters = 0
    for paragraph in paragraphs:
        if held and characters + len(paragraph) > DOCUMENT_LIMIT_CHARACTERS:
            statistics.cut_documents += 1
            yield Document(str(file), held)
            held, characters = [], 0
        held.append(paragraph)
        characters += len(paragraph)
    if held:
        yield Document(str(file), held)


def cut_line(raw: bytes) -> tuple[list[bytes], bytes]:
    """(pieces of at most `LINE_LIMIT_BYTES`, the rest); text that follows does not move the cuts."""
    pieces: list[bytes] = []
    while len(raw) > LINE_LIMIT_BYTES:
        position = _cut_position(raw)
        pieces.append(raw[:position])
        raw = raw[position:]
    return pieces, raw


def _cut_position(raw: bytes) -> int:
    """After the last white space or Chinese full stop within the limit, else the last whole character."""
    head = raw[:LINE_LIMIT_BYTES]
    position = max(head.rfind(b" ") + 1, head.rfind(b"\t") + 1)
    if position == 0 and _CHINESE_FULL_STOP in head:
        position = head.rfind(_CHINESE_FULL_STOP) + len(_CHINESE_FULL_STOP)
    if position == 0:
        position = LINE_LIMIT_BYTES
        for _ in range(3):  # continuation bytes of UTF-8 are 10xxxxxx, at most three in a row
            position -= raw[position] & 0xC0 == 0x80
    return position
