"""Plain text: a paragraph or sentence per line; a blank line or the end of the file ends a document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from lambert.corpus.readers.document import (
    Document,
    ReadStatistics,
    bounded_documents,
    cut_line,
    decoded,
    stripped_lines,
)

_CARRIAGE_RETURNS = re.compile(rb"(?<!\r)\r*+\n|\r")  # a run is tried once, from its start


def documents(file: Path, blocks: Iterator[bytes], statistics: ReadStatistics) -> Iterator[Document]:
    """The documents in decompressed blocks without a byte order mark."""
    pieces = map(stripped_lines, _lines(file, _with_line_feeds(blocks), statistics))
    for has_text, run in groupby(pieces, bool):
        if has_text:
            yield from bounded_documents(file, (piece for line in run for piece in line), statistics)


def _with_line_feeds(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks with every kind of line end as a line feed."""
    held = b""
    for block in blocks:
        block = held + block
        # A carriage return at the end of a block may be half of a line end.
        held = b"\r" if block.endswith(b"\r") else b""
        block = block[: len(block) - len(held)]
        if b"\r" in block:
            block = _CARRIAGE_RETURNS.sub(b"\n", block)
        yield block


def _lines(file: Path, blocks: Iterator[bytes], statistics: ReadStatistics) -> Iterator[str]:
    """Decoded lines; one beyond `LINE_LIMIT_BYTES` comes in pieces and is counted once as cut."""
    tail, was_cut = b"", False
    for block in blocks:
        *complete, tail = (tail + block).split(b"\n")
        for raw in complete:
            pieces, rest = cut_line(raw)
            was_cut = was_cut or bool(pieces)
            statistics.lines += 1
            statistics.cut_lines += was_cut
            # White space left by a cut ends a line; it is not a blank line.
            if rest.strip() or not was_cut:
                pieces.append(rest)
            yield from (decoded(piece, file, statistics) for piece in pieces)
            was_cut = False
        pieces, tail = cut_line(tail)
        was_cut = was_cut or bool(pieces)
        yield from (decoded(piece, file, statistics) for piece in pieces)
    if tail:
        statistics.lines += 1
        yield decoded(tail, file, statistics)
    statistics.cut_lines += was_cut
