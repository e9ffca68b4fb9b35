"""What WikiExtractor writes: an article between `<doc id=… url=… title=…>` and `</doc>`, its title, its paragraphs."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from lambert.corpus.readers import plain_text
from lambert.corpus.readers.document import (
    Document,
    ReadOptions,
    ReadStatistics,
    bounded_documents,
    source_name,
    stripped_lines,
)
from lambert.errors import UserError

_STARTS = re.compile(rb'\s*<doc id="[^"\n]{0,100}" [a-z]+="')
_START = re.compile(r'<doc id="[^"]*+" (.*)>')
_TITLE = re.compile(r'\btitle="')
_END = "</doc>"


def is_output(start: bytes) -> bool:
    """Whether a file that begins with these bytes is WikiExtractor's output."""
    return _STARTS.match(start[:4096]) is not None


def documents(
    file: Path, blocks: Iterator[bytes], statistics: ReadStatistics, options: ReadOptions
) -> Iterator[Document]:
    """A document per article, without its tags and title; lines outside of articles are counted as skipped.

    Raises:
        UserError: the last article has no end.
    """
    lines = (line for raw in plain_text.lines(file, blocks, statistics) for line in stripped_lines(raw))
    for line in lines:
        if (title := _title(line)) is not None:
            paragraphs = _paragraphs(file, lines, html.unescape(title))
            yield from bounded_documents(file, paragraphs, statistics)
        else:
            statistics.skip(file, f"line {line[:40]!r}", "outside of <doc> and </doc>")


def _title(line: str) -> str | None:
    """The title of the article that this line starts ("" without one); None if it starts none."""
    if not (start := _START.fullmatch(line)):
        return None
    _, *found = _TITLE.split(start[1], maxsplit=1)
    title, quote, rest = found[0].rpartition('"') if found else ("", "", start[1])
    if found and not quote:  # the title has no end
        title, rest = "", start[1]
    return None if ">" in rest else title


def _paragraphs(file: Path, lines: Iterator[str], title: str) -> Iterator[str]:
    is_first = True
    for line in lines:
        if line == _END:
            return
        text = html.unescape(line)
        if not (is_first and text == title):
            yield text
        is_first = False
    raise UserError(f"{source_name(file)} was cut short: its last article has no {_END}", remedy="Extract it again")
