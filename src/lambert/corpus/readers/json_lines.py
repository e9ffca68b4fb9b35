"""JSON lines: an object per line, with the text of a document in one field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lambert.corpus.readers.document import (
    Document,
    ReadOptions,
    ReadStatistics,
    bounded_documents,
    decoded,
    paragraphs_of,
    source_name,
    without_surrogates,
)
from lambert.errors import UserError

# The longest books are a few megabytes. Unlike text, a line cannot be cut, and parsed it may be many times its size (an
# empty list is 2 bytes of JSON and 64 of memory), so longer ones are skipped unread.
RECORD_LIMIT_BYTES = 16 << 20

_NAMES_SHOWN = 12


def documents(
    file: Path, blocks: Iterator[bytes], statistics: ReadStatistics, options: ReadOptions
) -> Iterator[Document]:
    """A document per line; lines without one are counted as skipped, with the position of the first.

    The field holds a string, whose line ends separate paragraphs, or a list of strings.

    Raises:
        UserError: the first line is not a JSON object with this field: the field or the file is wrong.
    """
    is_first, text_field = True, options.text_field
    for number, line in enumerate(records(blocks), start=1):
        statistics.lines += 1
        if line is not None and not line.strip():
            continue
        try:
            if line is None:
                raise _NoTextError(f"longer than {RECORD_LIMIT_BYTES >> 20} MB", "Cut its text into several records")
            value = _field(decoded(line, file, statistics), text_field)
        except _NoTextError as error:
            if is_first:
                raise _refused(file, number, error, text_field) from error
            statistics.skip(file, f"line {number:,}", str(error))
            continue
        is_first = False
        if value is None:
            statistics.skip(file, f"line {number:,}", f"the field {text_field!r} is null")
            continue
        text = without_surrogates(value, file, statistics)
        yield from bounded_documents(file, paragraphs_of(text, statistics), statistics)


def records(blocks: Iterator[bytes]) -> Iterator[bytes | None]:
    """Lines without their line feed; None for one beyond `RECORD_LIMIT_BYTES`, which is not kept in memory."""
    held: list[bytes] = []
    held_bytes = 0
    for block in blocks:
        *complete, tail = block.split(b"\n")
        for end in complete:
            is_long = held_bytes + len(end) > RECORD_LIMIT_BYTES
            yield None if is_long else b"".join((*held, end))
            held, held_bytes = [], 0
        held_bytes += len(tail)
        if held_bytes > RECORD_LIMIT_BYTES:
            held = []
        elif tail:
            held.append(tail)
    if held_bytes:
        yield None if held_bytes > RECORD_LIMIT_BYTES else b"".join(held)


class _NoTextError(Exception):
    """Why a line has no text, and what to do about it."""

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.remedy = remedy


def _field(line: str, text_field: str) -> str | None:
    """The text of a line, with the strings of a list joined as lines; None where the field is null.

    Raises:
        _NoTextError: the line is not JSON, not an object, without the field, or has something else in it.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError of another kind
        said = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        of_a_list = line.lstrip().startswith("[")  # its objects follow, each over several lines
        how = "jq -c '.[]' makes them of a list" if of_a_list else "jq -c . does it"
        raise _NoTextError(f"not JSON ({said})", f"Write one JSON object a line: {how}") from error
    if not isinstance(record, dict):
        raise _NoTextError(
            f"{_kind(record)}, not an object",
            "Write one JSON object a line: jq -c '.[]' makes them of a list",
        )
    if text_field not in record:
        names = ", ".join([*map(str, record)][:_NAMES_SHOWN]) + (", …" if len(record) > _NAMES_SHOWN else "")
        raise _NoTextError(
            f"no field {text_field!r}", f"Name the field of the text with `text_field`; there is {names or 'none'}"
        )
    value = record[text_field]
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    raise _NoTextError(
        f"the field {text_field!r} is {_kind(value)}",
        "Name a field that holds a string or a list of strings with `text_field`",
    )


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _refused(file: Path, number: int, error: _NoTextError, text_field: str) -> UserError:
    return UserError(
        f"{source_name(file)}, line {number:,}: {error}",
        remedy=error.remedy or f"Give JSON lines with the text in the field {text_field!r}",
    )
