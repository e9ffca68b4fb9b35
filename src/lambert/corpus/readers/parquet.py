"""Parquet: a row is a document, with its text in one column. Only that column is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from lambert.corpus.readers.document import (
    Document,
    ReadStatistics,
    bounded_documents,
    decoded,
    paragraphs_of,
)
from lambert.errors import UserError
from lambert.utils.memory import bounded_memory

MAGIC = b"PAR1"

# Few rows at a time, so that a long text that is stored once and repeated stays small when it is decoded.
_BATCH_ROWS = 64
_BUFFER_BYTES = 1 << 20
VALUE_LIMIT_BYTES = 64 << 20
"""Longer texts are skipped. The longest books have a few megabytes."""
MEMORY_BYTES = 400 << 20
"""What the decoding of a batch may take; usually it takes some pages of a megabyte."""
_NAMES_SHOWN = 12


def documents(file: Path, statistics: ReadStatistics, *, text_field: str) -> Iterator[Document]:
    """A document per row, of a column of strings (whose line ends separate paragraphs) or of lists of strings.

    Memory is bounded by the pages being read, regardless of the size of the file and its row groups: the column is read
    through a buffer. Nulls are counted as skipped.

    Raises:
        UserError: no such column, or it does not hold text.
        pyarrow.ArrowException: the file is damaged or cut short.
    """
    stored_before, stored_bytes = statistics.stored_bytes, file.stat().st_size
    with _opened(file) as opened:
        _check_column(file, opened.schema_arrow, text_field)
        rows = opened.metadata.num_rows
        done = 0
        for column in _columns(file, opened.iter_batches(_BATCH_ROWS, columns=[text_field], use_threads=False)):
            for value in column:
                done += 1
                statistics.lines += 1
                if (size := _size(value)) is None or size > VALUE_LIMIT_BYTES:
                    reason = "null" if size is None else f"longer than {VALUE_LIMIT_BYTES >> 20} MB"
                    statistics.skip(file, f"row {done:,}", reason)
                    continue
                found = value.as_py()
                raw = found if isinstance(found, bytes) else b"\n".join(item for item in found if item is not None)
                statistics.bytes += len(raw)
                statistics.stored_bytes = stored_before + stored_bytes * done // rows
                text = decoded(raw, file, statistics)
                yield from bounded_documents(file, paragraphs_of(text, statistics), statistics)
    statistics.stored_bytes = stored_before + stored_bytes


def _opened(file: Path) -> Any:
    """The file, read through the system's allocator: Arrow's own has reserved a gigabyte that no limit sees."""
    pool = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False, memory_map=False)
    finally:
        pa.set_memory_pool(pool)


def _columns(file: Path, batches: Iterator[Any]) -> Iterator[Any]:
    """The text of each batch as bytes.

    Raises:
        UserError: a batch takes more than `MEMORY_BYTES`, as one page of a file of 50 KB can.
    """
    while True:
        try:
            with bounded_memory(MEMORY_BYTES):
                batch = next(batches, None)
                column = None if batch is None else _as_bytes(batch.column(0))
        except MemoryError:
            raise UserError(
                f"{file} needs more than {MEMORY_BYTES >> 20} MB for {_BATCH_ROWS} rows",
                remedy="Write it again with pages of about 1 MB and texts below 64 MB",
            ) from None
        if column is None:
            return
        yield column


def _size(value: Any) -> int | None:
    """Bytes that a row takes, 64 for each item of a list; None for null."""
    if not value.is_valid:
        return None
    return int(value.values.nbytes + 64 * len(value.values) if _is_list(value.type) else value.as_buffer().size)


def _check_column(file: Path, schema: pa.Schema, name: str) -> None:
    indices = schema.get_all_field_indices(name)
    if len(indices) != 1:
        shown = ", ".join(f"{field.name} ({field.type})" for field in list(schema)[:_NAMES_SHOWN])
        more = ", …" if len(schema) > _NAMES_SHOWN else ""
        problem = "has no column" if not indices else f"has {len(indices)} columns named"
        raise UserError(
            f"{file} {problem} {name!r}",
            remedy=f"Name the column of the text with `text_field`; there is {shown}{more}",
        )
    kind = schema.field(indices[0]).type
    if not _is_text(kind) and not (_is_list(kind) and _is_text(kind.value_type)):
        raise UserError(
            f"{file}: the column {name!r} holds {kind}, not text",
            remedy="Name a column of strings or of lists of strings with `text_field`",
        )


def _is_text(kind: pa.DataType) -> bool:
    if kinds.is_dictionary(kind):
        return _is_text(kind.value_type)
    # Old writers do not mark their bytes as UTF-8.
    return any(
        is_it(kind)
        for is_it in (
            kinds.is_string,
            kinds.is_large_string,
            kinds.is_string_view,
            kinds.is_binary,
            kinds.is_large_binary,
            kinds.is_binary_view,
        )
    )


def _is_list(kind: pa.DataType) -> bool:
    return any(is_it(kind) for is_it in (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list))


def _as_bytes(column: Any) -> Any:
    """The column as bytes: pyarrow does not check that strings are UTF-8 and would fail where they are not."""
    return column.cast(pa.list_(pa.large_binary()) if _is_list(column.type) else pa.large_binary())
