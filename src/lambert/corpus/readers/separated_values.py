"""CSV and TSV: a document per row, with its text in one column; the first row names the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from lambert.corpus.readers.document import (
    Document,
    ReadOptions,
    ReadStatistics,
    bounded_documents,
    decoded,
    paragraphs_of,
    source_name,
)
from lambert.corpus.readers.json_lines import RECORD_LIMIT_BYTES, records
from lambert.errors import UserError

ENDINGS = (".csv", ".tsv", ".tab")
_NAMES_SHOWN = 12
_END = "\ue000end of the file\ue000"
"""A row of its own behind the last one, unless a quote is still open there."""


def tabbed_documents(
    file: Path, blocks: Iterator[bytes], statistics: ReadStatistics, options: ReadOptions
) -> Iterator[Document]:
    """As `documents`, of TSV."""
    return documents(file, blocks, statistics, options, is_tabbed=True)


def documents(
    file: Path,
    blocks: Iterator[bytes],
    statistics: ReadStatistics,
    options: ReadOptions,
    *,
    is_tabbed: bool = False,
) -> Iterator[Document]:
    """A document per row. Rows with fewer columns are counted as skipped.

    CSV is separated by the most frequent of comma, semicolon and tab in its first line, and its fields may be quoted
    and hold line ends. TSV has one row a line; only quotes around a whole field are taken off.

    Raises:
        UserError: no such column, or a quote that is not closed within 16 MB or at the end of the file.
    """
    text_field = options.text_field
    lines: Iterator[str] = (decoded(line, file, statistics) + "\n" for line in records(blocks) if line is not None)
    first = next(lines, "")
    delimiter = "\t" if is_tabbed else max(",;\t", key=first.count)
    csv.field_size_limit(RECORD_LIMIT_BYTES)
    names = [name.strip().strip('"') for name in first.replace("\r", "\n").split("\n")[0].split(delimiter)]
    if text_field not in names:
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
        raise UserError(
            f"{source_name(file)} has no column {text_field!r} in its first line",
            remedy=f"Name the column of the text with `text_field`; there is {shown or 'none'}",
        )
    column = names.index(text_field)
    lines = chain(lines, [_END])
    rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if is_tabbed else csv.QUOTE_MINIMAL)
    begins = 2
    try:
        for row in rows:
            if row == [_END]:
                return
            if row and row[-1].endswith(_END):
                raise csv.Error("its quote is still open at the end of the file")
            statistics.lines += 1
            if len(row) > column:
                text = row[column]
                if is_tabbed and len(text) > 1 and text[0] == text[-1] == '"':
                    text = text[1:-1].replace('""', '"')
                yield from bounded_documents(file, paragraphs_of(text, statistics), statistics)
            elif row:
                columns = f"{len(row)} column{'s' * (len(row) > 1)} where the first line has {len(names)}"
                statistics.skip(file, f"line {rows.line_num + 1:,}", columns)
            begins = rows.line_num + 2
    except csv.Error as error:
        raise UserError(
            f"{source_name(file)}, the row that begins in line {begins:,}: {error}",
            remedy="Close the quote that is open there, or write a quote within a field twice",
        ) from None
