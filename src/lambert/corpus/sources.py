"""Text of any kind as a stream of documents in bounded memory.

`find_files` turns names into a list of sources, `TextReader` turns those into documents. `text_encoding.py` makes UTF-8
of any encoding. The first bytes of a file decide its parser where they leave no doubt, else its name does
(`formats.py`). No line exceeds `LINE_LIMIT_BYTES` and no document `DOCUMENT_LIMIT_CHARACTERS`: longer ones are cut, and
the cuts are counted.
"""

from __future__ import annotations

import codecs
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from lambert.corpus.compression import faults_named, open_text_bytes, read_blocks
from lambert.corpus.discovery import FoundFiles, find_files, identities, stored_bytes
from lambert.corpus.formats import HUGGING_FACE, MEDIAWIKI_XML, PARQUET, PARSERS, parser_of, refuse_bytes
from lambert.corpus.readers import hugging_face, mediawiki, parquet
from lambert.corpus.readers.document import (
    DOCUMENT_LIMIT_CHARACTERS,
    LINE_LIMIT_BYTES,
    STANDARD_INPUT,
    Document,
    ReadOptions,
    ReadStatistics,
)
from lambert.corpus.text_encoding import as_utf8, is_recoded, refuse_replaced
from lambert.errors import UserError

__all__ = [
    "DOCUMENT_LIMIT_CHARACTERS",
    "LINE_LIMIT_BYTES",
    "STANDARD_INPUT",
    "Document",
    "DocumentSource",
    "ReadOptions",
    "ReadStatistics",
    "TextReader",
    "find_files",
    "identities",
    "named_sources",
    "stored_bytes",
]


class TextReader:
    """Reads sources one after another as a stream of documents; `statistics` describes the latest pass.

    It can be iterated over more than once; each pass reads the files again and starts new statistics. Only standard
    input (`-`) can be read only once: `named_sources` makes a file of it.

    Args:
        files: files as `find_files` gives them.
        options: how to read them; or give the fields of `ReadOptions` by name.

    Raises (while iterating):
        UserError: a file cannot be read, is damaged or truncated, is not text at all, is not UTF-8 and in no certain
            encoding, or has no such field.
    """

    def __init__(self, files: Sequence[Path], options: ReadOptions = ReadOptions(), **fields: Any) -> None:  # noqa: B008
        self.files = list(files)
        self.options = replace(options, **fields)
        self.statistics = ReadStatistics()
        self._has_read_standard_input = False

    def __iter__(self) -> Iterator[Document]:
        self.statistics = ReadStatistics()
        for file in self.files:
            yield from self._documents(file)
            self.statistics.files += 1

    def _documents(self, file: Path) -> Iterator[Document]:
        statistics, options = self.statistics, self.options
        if hugging_face.is_dataset_name(str(file)):
            statistics.parsers[str(file)] = HUGGING_FACE
            yield from hugging_face.documents(file, statistics, text_field=options.text_field)
            return
        if file != STANDARD_INPUT and _starts_as_parquet(file):
            statistics.parsers[str(file)] = PARQUET
            with faults_named(file):
                yield from parquet.documents(file, statistics, text_field=options.text_field)
            return
        if file == STANDARD_INPUT:
            if self._has_read_standard_input:
                raise UserError("standard input can be read only once", remedy="Put the text into a file and name that")
            self._has_read_standard_input = True
        with open_text_bytes(file) as (stream, used_bytes):
            blocks = self._counted(read_blocks(stream), used_bytes)
            first = next(blocks, b"")
            if mediawiki.is_export(first.removeprefix(codecs.BOM_UTF8)):  # XML says its encoding itself
                statistics.parsers[str(file)] = MEDIAWIKI_XML
                yield from mediawiki.documents(file, chain([first], blocks), statistics)
                return
            if not is_recoded(first, options.encoding):
                refuse_bytes(file, first)
            bytes_before = statistics.bytes - len(first)
            blocks = as_utf8(file, chain([first], blocks), statistics, options.encoding)
            first = next(blocks, b"")
            parser = parser_of(file, first, options.text_format)
            statistics.parsers[str(file)] = parser
            yield from PARSERS[parser](file, chain([first], blocks), statistics, options)
            if options.encoding is None:
                refuse_replaced(file, statistics, statistics.bytes - bytes_before)

    def _counted(self, blocks: Iterator[bytes], used_bytes: Callable[[], int]) -> Iterator[bytes]:
        statistics = self.statistics
        stored_before = statistics.stored_bytes
        for block in blocks:
            statistics.bytes += len(block)
            statistics.stored_bytes = stored_before + used_bytes()
            yield block


class DocumentSource:
    """Documents from files or from a function, with the same statistics for both; each iteration starts anew."""

    def __init__(self, text: Sequence[Path] | Callable[[], Iterable[Document]], options: ReadOptions) -> None:
        self.options = options
        self.make = text if callable(text) else None
        self.files = [] if callable(text) else list(text)
        self.beside = text if isinstance(text, FoundFiles) else FoundFiles()
        self.sizes = [stored_bytes(file) or 0 for file in self.files]
        self.statistics = ReadStatistics()

    def described(self, statistics: ReadStatistics) -> list[dict[str, Any]]:
        """The files, with what was found out in reading them, for a manifest."""
        return [
            {
                "name": str(file),
                "bytes": size,
                "parser": statistics.parsers.get(str(file)),
                "encoding": statistics.encodings.get(str(file), "utf_8"),
            }
            for file, size in zip(self.files, self.sizes, strict=True)
        ]

    def __iter__(self) -> Iterator[Document]:
        if self.make is None:
            reader = TextReader(self.files, self.options)
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
def named_sources(text: str | Path | Sequence[str | Path], out: Path) -> Iterator[FoundFiles]:
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
