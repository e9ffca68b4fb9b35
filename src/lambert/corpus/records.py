"""JSON lines and Parquet: one document a record, its text in a named field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.corpus.sources import ReadStatistics

JSON_LINE_LIMIT_BYTES = 1 << 26
"""A longer line is left out, and counted: an object has to be read whole."""
PARQUET_ROWS_AT_ONCE = 256

_SURROGATES = re.compile("[\ud800-\udfff]")


def json_records(blocks: Iterable[bytes], file: Path, field: str, statistics: ReadStatistics) -> Iterator[list[str]]:
    """The texts of a file of JSON lines, each as lines or paragraphs.

    A first line without the field is a mistake in the request; later ones that are no object, or lack it, are left out
    and counted.

    Raises:
        UserError: the first line is no JSON object with the field.
    """
    for number, line in enumerate(_lines(blocks), start=1):
        if line is not None and not line.strip():
            continue
        statistics.lines += 1
        lines = None if line is None else _lines_of(_parsed(line), field)
        if lines is None and number == 1:
            raise _unfit(file, b"" if line is None else line, field)
        if lines is None:
            statistics.skip(file)
        else:
            yield [_whole(text, file, statistics) for text in lines]


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes | None]:
    """Lines; None for one beyond the limit, of which nothing is held."""
    tail, is_too_long = b"", False
    for block in blocks:
        *complete, rest = block.split(b"\n")
        for part in complete:
            line = tail + part
            yield None if is_too_long or len(line) > JSON_LINE_LIMIT_BYTES else line
            tail, is_too_long = b"", False
        tail += rest
        if len(tail) > JSON_LINE_LIMIT_BYTES:
            tail, is_too_long = b"", True
    if tail or is_too_long:
        yield None if is_too_long else tail


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _lines_of(record: Any, field: str) -> list[str] | None:
    """The text of a record, None where it has none: a string, or a list of paragraphs."""
    value = record.get(field) if isinstance(record, dict) else None
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    return None


def _whole(text: str, file: Path, statistics: ReadStatistics) -> str:
    """Half characters, which JSON's escapes can make, replaced and counted."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text, count = _SURROGATES.subn("\ufffd", text)
        statistics.replace(file, count)
    return text


def _unfit(file: Path, line: bytes, field: str) -> UserError:
    record = _parsed(line)
    if not isinstance(record, dict):
        return UserError(
            f"{file}, line 1 is not a JSON object",
            remedy="Give one object a line, or name the file .txt to read it as it is",
        )
    fields = ", ".join(sorted(map(str, record))[:10]) or "none"
    return UserError(
        f"{file}, line 1 has no text in a field {field!r}; its fields: {fields}",
        remedy="Name the right one with --text-field",
    )


def parquet_records(file: Path, field: str, statistics: ReadStatistics) -> Iterator[list[str]]:
    """The texts of a column, each as lines or paragraphs; rows without one are left out and counted.

    What is held is one row group's column, as its writer chose it.

    Raises:
        UserError: the file is damaged, or has no such column of text.
    """
    before = statistics.stored_bytes
    size = file.stat().st_size
    try:
        with pq.ParquetFile(file) as table:
            _check_column(file, table.schema_arrow, field)
            rows = 0
            for batch in table.iter_batches(PARQUET_ROWS_AT_ONCE, columns=[field], use_threads=False):
                rows += batch.num_rows
                statistics.stored_bytes = before + size * rows // max(1, table.metadata.num_rows)
                for value in batch.column(0).to_pylist():
                    lines = _lines_of({field: value}, field)
                    if lines is None:
                        statistics.skip(file)
                        continue
                    statistics.lines += 1
                    statistics.bytes += sum(len(text.encode()) for text in lines)
                    yield lines
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged or was cut short ({error})", remedy="Download or write it again") from error


def _check_column(file: Path, schema: pa.Schema, field: str) -> None:
    if field not in schema.names:
        raise UserError(
            f"{file} has no column {field!r}; its columns: {', '.join(schema.names[:10])}",
            remedy="Name the right one with --text-field",
        )
    kind = schema.field(field).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(
            f"column {field!r} of {file} holds {kind}, not text", remedy="Name a column of text with --text-field"
        )
