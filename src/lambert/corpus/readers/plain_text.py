"""Plain text: a paragraph or sentence per line; a blank line or the end of the file ends a document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, pairwise
from pathlib import Path

from lambert.corpus.readers.document import (
    Document,
    ReadOptions,
    ReadStatistics,
    bounded_documents,
    cut_line,
    decoded,
    stripped_lines,
)

_CARRIAGE_RETURNS = re.compile(rb"(?<!\r)\r*+\n|\r")  # a run is tried once, from its start
# From U+2E80 on scripts are written without spaces (Hangul, from U+AC00, with them).
_WITHOUT_SPACES = re.compile("[\u2e80-\uabff\uf900-\uffef\U00020000-\U0003ffff]")
_JOINED_CHARACTERS = 100_000
_WRAPPED_CHARACTERS = (40, 100)


def documents(
    file: Path, blocks: Iterator[bytes], statistics: ReadStatistics, options: ReadOptions
) -> Iterator[Document]:
    """The documents in decompressed blocks without a byte order mark."""
    pieces = map(stripped_lines, lines(file, blocks, statistics))
    runs = ((piece for line in run for piece in line) for has_text, run in groupby(pieces, bool) if has_text)
    texts: Iterable[Iterator[str]] = (_joined(run) if options.join_lines else _watched(run, statistics) for run in runs)
    if options.one_document_per_file:
        texts = [chain.from_iterable(texts)]
    for paragraphs in texts:
        yield from bounded_documents(file, paragraphs, statistics)


def lines(file: Path, blocks: Iterator[bytes], statistics: ReadStatistics) -> Iterator[str]:
    """Decoded lines, whatever ends them; one beyond `LINE_LIMIT_BYTES` comes in pieces and is counted once as cut."""
    return _lines(file, _with_line_feeds(blocks), statistics)


def _joined(run: Iterable[str]) -> Iterator[str]:
    """Lines that were wrapped at a width, as one paragraph."""
    held = ""
    for line in run:
        if len(held) + len(line) > _JOINED_CHARACTERS:
            yield held
            held = ""
        is_glued = held.endswith("-") or all(_WITHOUT_SPACES.match(side) for side in (held[-1:], line))
        held += line if not held or is_glued else f" {line}"
    yield held


def _watched(run: Iterable[str], statistics: ReadStatistics) -> Iterator[str]:
    """The lines as they are; those that look wrapped are counted: the sentence goes on in the next line."""
    for line, following in pairwise(chain(run, [""])):
        has_width = _WRAPPED_CHARACTERS[0] <= len(line) <= _WRAPPED_CHARACTERS[1]
        if has_width and (line[-1].isalnum() or line[-1] in ",;-") and following[:1].islower():
            statistics.wrapped_lines += 1
        yield line


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
