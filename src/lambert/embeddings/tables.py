"""Files of texts: a line each, or columns of JSON lines, CSV, TSV and Parquet. A row stays a row: none is left out."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lambert.corpus.compression import SUFFIXES, faults_named, open_text_bytes, read_blocks
from lambert.corpus.formats import refuse_bytes
from lambert.corpus.readers import parquet, separated_values
from lambert.corpus.readers.document import STANDARD_INPUT, source_name
from lambert.corpus.readers.json_lines import RECORD_LIMIT_BYTES, records
from lambert.errors import UserError
from lambert.utils.io import read_beginning

JSON_ENDINGS = (".jsonl", ".ndjson", ".json", ".jsonlines")
_NAMES_SHOWN = 12
_NO_HEADER = " in its first line; if that is no header but a text, put a line with the column's name before it"
_NO_UTF8 = "Convert it, such as with: iconv -f cp1252 -t utf-8 FILE > NEW_FILE"

Row = tuple[str, Sequence[Any]]
"""Where a row stands, such as "texts.csv, line 3", and its values."""
Chooser = Callable[[Sequence[str]], Sequence[str]]
"""Names of the columns that a file has → those that are read. Raises UserError where the wanted ones are missing."""


def is_table(file: Path) -> bool:
    """Whether a file has columns, by its name, or as Parquet by its first bytes; standard input has lines."""
    if file == STANDARD_INPUT or not file.is_file():
        return False
    return _name(file).endswith((*JSON_ENDINGS, *separated_values.ENDINGS)) or _is_parquet(file)


def read_lines(file: Path) -> list[str]:
    """The lines of a plain or compressed file or of standard input, empty ones too. Only line feeds end a line.

    Raises:
        UserError: the file cannot be read, is empty, or a line is not UTF-8 or longer than 16 MB.
    """
    with open_text_bytes(file) as (stream, _):
        lines = [text.removesuffix("\r") for _, text in _decoded(file, read_blocks(stream))]
    if not any(map(str.strip, lines)):
        raise UserError(f"{source_name(file)} has no text", remedy="Give a file with a text in each line")
    return lines


def read_rows(file: Path, choose: Chooser) -> list[Row]:
    """The rows of a table with the chosen columns.

    Raises:
        UserError: the file cannot be read, has no rows or not the columns, or a row is damaged (named).
    """
    if not file.is_file():
        raise UserError(f"there is no file {file}", remedy="Give JSON lines, CSV, TSV or Parquet")
    with faults_named(file):
        rows = _parquet_rows(file, choose) if _is_parquet(file) else _text_rows(file, choose)
    if not rows:
        raise UserError(f"{file} has no rows", remedy="Give a file with at least one")
    return rows


def text_of(where: str, value: Any, column: str) -> str:
    """A value that must be a text. Raises UserError where it is none."""
    if not isinstance(value, str):
        shown = "null" if value is None else repr(value)[:40]
        raise UserError(
            f"{where}: {column!r} is {shown}, not a text", remedy="Leave the row out, or write a text there"
        )
    return value


def column_choice(names: Sequence[str] | None, defaults: Sequence[Sequence[str]], option: str) -> Chooser:
    """Chooses the named columns, otherwise the first of `defaults` that a file has all of.

    Args:
        option: the argument that names columns, for messages.
    """

    def choose(there: Sequence[str]) -> Sequence[str]:
        wanted = [names] if names else defaults
        for one in wanted:
            if set(one) <= set(there):
                return one
        shown = ", ".join(there[:_NAMES_SHOWN]) + (", …" if len(there) > _NAMES_SHOWN else "")
        missing = [name for name in wanted[0] if name not in there] if names else wanted[0]
        raise UserError(
            f"no column {' and '.join(map(repr, missing))}",
            remedy=f"Name what to read with `{option}`; there is {shown or 'none'}",
        )

    return choose


def _name(file: Path) -> str:
    name = file.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _is_parquet(file: Path) -> bool:
    with faults_named(file):
        return read_beginning(file, 4) == parquet.MAGIC


def _text_rows(file: Path, choose: Chooser) -> list[Row]:
    with open_text_bytes(file) as (stream, _):
        lines = _decoded(file, read_blocks(stream))
        if _name(file).endswith(JSON_ENDINGS):
            return list(_json_rows(file, lines, choose))
        return list(_separated_rows(file, lines, choose, is_tabbed=not _name(file).endswith(".csv")))


def _decoded(file: Path, blocks: Iterator[bytes]) -> Iterator[tuple[int, str]]:
    first = next(blocks, b"")
    refuse_bytes(file, first)
    for number, line in enumerate(records(chain([first.removeprefix(b"\xef\xbb\xbf")], blocks)), start=1):
        if line is None:
            raise UserError(
                f"{source_name(file)}, line {number:,} is longer than {RECORD_LIMIT_BYTES >> 20} MB",
                remedy="Cut it into several texts",
            )
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            what = f"{source_name(file)}, line {number:,} is not UTF-8 (byte {error.start + 1})"
            raise UserError(what, remedy=_NO_UTF8) from None


def _chosen(file: Path, choose: Chooser, there: Sequence[str], *, more: str = "") -> Sequence[str]:
    """The columns. `more` is a further remedy where they are not there."""
    try:
        return choose(there)
    except UserError as error:
        raise UserError(f"{file} has {error.what}", remedy=f"{error.remedy}{more}") from None


def _json_rows(file: Path, lines: Iterator[tuple[int, str]], choose: Chooser) -> Iterator[Row]:
    chosen: Sequence[str] | None = None
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{file}, line {number:,}"
        record = _json_object(where, line)
        if chosen is None:
            chosen = _chosen(file, choose, list(record))
        if missing := [name for name in chosen if name not in record]:
            raise UserError(f"{where} has no {missing[0]!r}", remedy="Leave the line out, or write the field there")
        yield where, [record[name] for name in chosen]


def _json_object(where: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if isinstance(record, dict):
        return record
    remedy = "Correct the line, or leave it out"
    if line.lstrip().startswith("["):
        remedy = "Write one object a line: jq -c '.[]' makes them of a list"
    elif line.strip() == "{":
        remedy = "Write one object a line: jq -c . does it"
    raise UserError(f"{where} is no JSON object", remedy=remedy)


def _separated_rows(file: Path, lines: Iterator[tuple[int, str]], choose: Chooser, *, is_tabbed: bool) -> Iterator[Row]:
    texts = (f"{line}\n" for _, line in lines)
    names_line, first = next(
        ((number, text.rstrip("\r\n")) for number, text in enumerate(texts, 1) if text.strip()), (0, "")
    )
    if not first:
        raise UserError(f"{file} is empty", remedy="Give a file with a line of columns' names, and a row for each text")
    delimiter = "\t" if is_tabbed else max(",;\t", key=first.count)
    csv.field_size_limit(RECORD_LIMIT_BYTES)
    header = [name.strip().strip('"') for name in first.split(delimiter)]
    places = [header.index(name) for name in _chosen(file, choose, header, more=_NO_HEADER)]
    reader = csv.reader(texts, delimiter=delimiter, quoting=csv.QUOTE_NONE if is_tabbed else csv.QUOTE_MINIMAL)
    try:
        for row in reader:
            where = f"{file}, line {reader.line_num + names_line:,}"
            if row and len(row) <= max(places):
                what = f"{where} has {len(row)} columns where the first line has {len(header)}"
                raise UserError(what, remedy="Complete the row, or leave it out")
            if row:
                yield where, [row[place] for place in places]
    except csv.Error as error:
        raise UserError(
            f"{file}, near line {reader.line_num + names_line:,}: {error}",
            remedy="Close the quote that is open there, or write a quote within a field twice",
        ) from None


def _parquet_rows(file: Path, choose: Chooser) -> list[Row]:
    opened = pq.ParquetFile(file)
    chosen = list(_chosen(file, choose, opened.schema_arrow.names))
    columns = opened.read(columns=chosen)
    values = [columns.column(name).to_pylist() for name in chosen]
    return [(f"{file}, row {number:,}", row) for number, row in enumerate(zip(*values, strict=True), start=1)]


def read_texts(file: Path, column: str | None = None) -> list[str]:
    """The texts of a file of lines, or of a column ("text" where none is named), in order.

    Raises:
        UserError: the file or a row cannot be read, or has no such column.
    """
    if not is_table(file):
        if column is not None:
            raise UserError(
                f"{source_name(file)} has lines, no columns",
                remedy="Leave out `column`, or give JSON lines, CSV, TSV or Parquet",
            )
        if file != STANDARD_INPUT and not file.is_file():
            raise UserError(f"there is no file {file}", remedy="Give a file of texts, or - for standard input")
        return read_lines(file)
    names = (column or "text",)
    rows = read_rows(file, column_choice(names, (), "column"))
    texts = [text_of(where, values[0], names[0]) for where, values in rows]
    if not any(map(str.strip, texts)):
        raise UserError(f"{file}: the column {names[0]!r} has no text", remedy="Name another column with `column`")
    return texts


def first_few(texts: Sequence[str], count: int = 3) -> str:
    """The beginnings of some texts, for messages."""
    return ", ".join(repr(text[:30]) for text in islice(texts, count))
