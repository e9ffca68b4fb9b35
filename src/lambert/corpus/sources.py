"""Files of text, plain or compressed, as a stream of documents in bounded memory.

In plain text a document is a run of lines that are not blank; a blank line or the end of a file ends it. Each line is
one paragraph or one sentence. In the other formats a record is a document. Whatever the input looks like, no line is
held beyond `LINE_LIMIT_BYTES` and no document beyond `DOCUMENT_LIMIT_CHARACTERS`: longer ones are cut, and the cuts are
counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from lambert.corpus.compression import open_text_bytes, read_blocks, refuse_other_formats
from lambert.corpus.files import JSON_LINES, MEDIAWIKI, PARQUET, parser_of
from lambert.corpus.mediawiki import wiki_records
from lambert.corpus.records import json_records, parquet_records

TEXT_FIELD = "text"
LINE_LIMIT_BYTES = 1 << 20
DOCUMENT_LIMIT_CHARACTERS = 1_000_000

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
    skipped_records: dict[str, int] = field(default_factory=dict)  # by file: not JSON, without text, too large
    parsers: dict[str, int] = field(default_factory=dict)  # how many files each parser took

    def skip(self, file: Path) -> None:
        """Count a record that was left out."""
        self.skipped_records[str(file)] = self.skipped_records.get(str(file), 0) + 1

    def replace(self, file: Path, count: int) -> None:
        """Count bytes, or half characters, that were replaced."""
        self.replaced_bytes[str(file)] = self.replaced_bytes.get(str(file), 0) + count

    @classmethod
    def total(cls, statistics: Sequence[ReadStatistics]) -> ReadStatistics:
        """The sum, also of what is told by file."""
        sums = cls()
        for one in statistics:
            for entry in fields(cls):
                value, before = getattr(one, entry.name), getattr(sums, entry.name)
                if isinstance(value, dict):
                    value = {**before, **{key: before.get(key, 0) + count for key, count in value.items()}}
                else:
                    value += before
                setattr(sums, entry.name, value)
        return sums


class TextReader:
    """Reads files one after another as a stream of documents; `statistics` tells about the latest pass.

    It can be iterated over more than once; each pass reads the files anew and begins new statistics.

    Raises (while iterating):
        UserError: a file cannot be read, is damaged or truncated, or is not text at all.
    """

    def __init__(self, files: Sequence[Path], *, text_field: str = TEXT_FIELD) -> None:
        self.files = list(files)
        self.text_field = text_field
        self.statistics = ReadStatistics()

    def __iter__(self) -> Iterator[Document]:
        self.statistics = ReadStatistics()
        for file in self.files:
            parser = parser_of(file)
            self.statistics.parsers[parser] = self.statistics.parsers.get(parser, 0) + 1
            records = self._records(file, parser)
            if records is None:
                yield from self._documents(file, self._text_lines(file), ends_at_blank=True)
            else:
                for record in records:
                    lines = (piece for line in record for piece in _pieces(line))
                    yield from self._documents(file, lines, ends_at_blank=False)
            self.statistics.files += 1

    def _records(self, file: Path, parser: str) -> Iterator[list[str]] | None:
        """The documents of a file that says where they end; None for plain text."""
        if parser == PARQUET:
            return parquet_records(file, self.text_field, self.statistics)
        if parser == JSON_LINES:
            return json_records(self._blocks(file), file, self.text_field, self.statistics)
        if parser == MEDIAWIKI:
            return wiki_records(self._blocks(file), file, self.statistics)
        return None

    def _documents(self, file: Path, lines: Iterable[str], *, ends_at_blank: bool) -> Iterator[Document]:
        paragraphs: list[str] = []
        characters = 0
        for line in lines:
            pieces = [stripped for piece in line.splitlines() if (stripped := piece.strip(_BLANKS))]
            if not pieces and paragraphs and ends_at_blank:
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
            self.statistics.replace(file, replaced)
            return text


def _pieces(text: str) -> Iterator[str]:
    """A long text in pieces that lie within the limit of a line, cut at white space where it has any."""
    while len(text) > LINE_LIMIT_BYTES:
        place = max(text.rfind(sign, 0, LINE_LIMIT_BYTES) for sign in ("\n", " ", "。")) + 1 or LINE_LIMIT_BYTES
        yield text[:place]
        text = text[place:]
    yield text


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
