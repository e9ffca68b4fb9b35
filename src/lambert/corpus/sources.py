"""Text of any kind as a stream of documents in bounded memory.

`find_files` turns names into a list of sources, `TextReader` turns those into documents. The first bytes of a file
decide its parser where they leave no doubt (Parquet, a MediaWiki export), else its name does. No line exceeds
`LINE_LIMIT_BYTES` and no document `DOCUMENT_LIMIT_CHARACTERS`: longer ones are cut, and the cuts are counted.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from lambert.corpus.compression import SUFFIXES, faults_named, open_text_bytes, read_blocks, refuse_other_formats
from lambert.corpus.discovery import find_files, identities, stored_bytes
from lambert.corpus.readers import hugging_face, json_lines, mediawiki, parquet, plain_text, separated_values
from lambert.corpus.readers.document import (
    DOCUMENT_LIMIT_CHARACTERS,
    LINE_LIMIT_BYTES,
    STANDARD_INPUT,
    Document,
    ReadStatistics,
    source_name,
)
from lambert.errors import UserError

__all__ = [
    "DOCUMENT_LIMIT_CHARACTERS",
    "LINE_LIMIT_BYTES",
    "STANDARD_INPUT",
    "Document",
    "DocumentSource",
    "ReadStatistics",
    "TextReader",
    "find_files",
    "identities",
    "named_sources",
    "stored_bytes",
]

PLAIN_TEXT, JSON_LINES, PARQUET = "plain text", "JSON lines", "Parquet"
CSV, TSV = "CSV", "TSV"
MEDIAWIKI_XML, HUGGING_FACE = "MediaWiki XML", "Hugging Face datasets"

_JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
_UTF8_MARK = b"\xef\xbb\xbf"


class TextReader:
    """Reads sources one after another as a stream of documents; `statistics` describes the latest pass.

    It can be iterated over more than once; each pass reads the files again and starts new statistics. Only standard
    input (`-`) can be read only once: `named_sources` makes a file of it.

    Args:
        files: files as `find_files` gives them.
        text_field: the field of JSON lines, the column of CSV, TSV, Parquet and of Hugging Face datasets that holds the
            text.

    Raises (while iterating):
        UserError: a file cannot be read, is damaged or truncated, is not text at all, or has no such field.
    """

    def __init__(self, files: Sequence[Path], *, text_field: str = "text") -> None:
        self.files = list(files)
        self.text_field = text_field
        self.statistics = ReadStatistics()
        self._has_read_standard_input = False

    def __iter__(self) -> Iterator[Document]:
        self.statistics = ReadStatistics()
        for file in self.files:
            yield from self._documents(file)
            self.statistics.files += 1

    def _documents(self, file: Path) -> Iterator[Document]:
        statistics, field = self.statistics, self.text_field
        if hugging_face.is_dataset_name(str(file)):
            statistics.parsers[str(file)] = HUGGING_FACE
            yield from hugging_face.documents(file, statistics, text_field=field)
            return
        if file != STANDARD_INPUT and _starts_as_parquet(file):
            statistics.parsers[str(file)] = PARQUET
            with faults_named(file):
                yield from parquet.documents(file, statistics, text_field=field)
            return
        if file == STANDARD_INPUT:
            if self._has_read_standard_input:
                raise UserError("standard input can be read only once", remedy="Put the text into a file and name that")
            self._has_read_standard_input = True
        with open_text_bytes(file) as (stream, used_bytes):
            blocks = self._counted(read_blocks(stream), used_bytes)
            first = next(blocks, b"").removeprefix(_UTF8_MARK)
            parser = _parser_of(file, first)
            statistics.parsers[str(file)] = parser
            blocks = chain([first], blocks)
            if parser == JSON_LINES:
                yield from json_lines.documents(file, blocks, statistics, text_field=field)
            elif parser in (CSV, TSV):
                yield from separated_values.documents(
                    file, blocks, statistics, text_field=field, is_tabbed=parser == TSV
                )
            elif parser == MEDIAWIKI_XML:
                yield from mediawiki.documents(file, blocks, statistics)
            else:
                yield from plain_text.documents(file, blocks, statistics)

    def _counted(self, blocks: Iterator[bytes], used_bytes: Callable[[], int]) -> Iterator[bytes]:
        statistics = self.statistics
        stored_before = statistics.stored_bytes
        for block in blocks:
            statistics.bytes += len(block)
            statistics.stored_bytes = stored_before + used_bytes()
            yield block


class DocumentSource:
    """Documents from files or from a function, with the same statistics for both; each iteration starts anew."""

    def __init__(self, text: Sequence[Path] | Callable[[], Iterable[Document]], text_field: str) -> None:
        self.text_field = text_field
        self.make = text if callable(text) else None
        self.files = [] if callable(text) else list(text)
        self.sizes = [stored_bytes(file) or 0 for file in self.files]
        self.statistics = ReadStatistics()

    def __iter__(self) -> Iterator[Document]:
        if self.make is None:
            reader = TextReader(self.files, text_field=self.text_field)
            for document in reader:
                self.statistics = reader.statistics
                yield document
            return
        self.statistics = ReadStatistics()
        for document in self.make():
            self.statistics.lines += len(document.paragraphs)
            self.statistics.bytes += sum(len(line.encode()) + 1 for line in document.paragraphs)
            yield document


@contextmanager
def named_sources(text: str | Path | Sequence[str | Path], out: Path) -> Iterator[list[Path]]:
    """The files that `find_files` finds; a temporary file beside `out` keeps standard input, which is read twice."""
    named = [Path(text)] if isinstance(text, str | Path) else [Path(one) for one in text]
    if STANDARD_INPUT not in named:
        yield find_files(named)
        return
    nearest = next(folder for folder in out.absolute().parents if folder.is_dir())  # has room for the corpus anyway
    with tempfile.TemporaryDirectory(prefix="lambert-", dir=nearest) as folder:
        kept = Path(folder) / "standard-input"
        with open(0, "rb", closefd=False) as source, kept.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        yield find_files([kept if path == STANDARD_INPUT else path for path in named])


def _starts_as_parquet(file: Path) -> bool:
    with faults_named(file), file.open("rb") as raw:
        return raw.read(len(parquet.MAGIC)) == parquet.MAGIC


def _parser_of(file: Path, start: bytes) -> str:
    """The parser for a file by its first decompressed bytes and its name.

    Raises:
        UserError: the bytes are of an unsupported format, or not of the one in the name.
    """
    if mediawiki.is_export(start):
        return MEDIAWIKI_XML
    if start.startswith(parquet.MAGIC):
        raise UserError(
            f"{source_name(file)} is Parquet {'by way of' if file == STANDARD_INPUT else 'within'} a stream",
            remedy="Name the Parquet file itself, not compressed: it is read from its end",
        )
    if start:
        refuse_other_formats(file, start)
    name = file.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    if name.endswith(_JSON_ENDINGS):
        return JSON_LINES
    if name.endswith(separated_values.ENDINGS):
        return CSV if name.endswith(".csv") else TSV
    if name.endswith((".xml", ".parquet")) and start:
        kind = "a MediaWiki export" if name.endswith(".xml") else "a Parquet file"
        raise UserError(
            f"{source_name(file)} is not {kind}, despite its name",
            remedy="Leave it out, or convert it to plain text or JSON lines",
        )
    # Without a known ending, as with standard input: only a JSON object begins like this.
    if not name.endswith(".txt") and start.lstrip().startswith(b'{"'):
        return JSON_LINES
    return PLAIN_TEXT
