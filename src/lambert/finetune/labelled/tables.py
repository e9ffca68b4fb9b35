"""Files of labelled examples → rows: CSV, TSV, JSON lines, a JSON list, Parquet, CoNLL, a Hugging Face dataset."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lambert.corpus.readers import hugging_face
from lambert.errors import UserError
from lambert.finetune.files import read_text

Row = dict[str, Any]
WORDS, TAGS = "words", "tags"
"""Columns of a CoNLL file."""
NO_HEADER = "if that is no header but an example, put a line with the columns' names before it"
_NAMES_SHOWN = 12
_SPACE = re.compile(r"\s*")
_CONLL_ENDINGS = (".conll", ".conllu", ".bio", ".iob", ".iob2")
_COMPRESSED = (".gz", ".bz2", ".xz")
_REMEDY = "Give UTF-8 text as CSV, TSV, JSON lines or CoNLL, or a Parquet file"


@dataclass(frozen=True)
class Table:
    """The rows of a file."""

    source: str
    rows: Sequence[Row]
    places: Sequence[str]
    """Where each row is in the file, such as "line 7"."""
    has_header: bool = False
    """Whether the first line of the file names the columns."""

    @property
    def names(self) -> list[str]:
        """The columns, in order."""
        return list(dict.fromkeys(name for row in self.rows[:1_000] for name in row))

    def column_text(self) -> str:
        """The names and where they come from, for a message."""
        names = [repr(name) for name in self.names]
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
        if not self.has_header:
            return f"there is {shown or 'none'}"
        return f"its first line, which names the columns, has {shown}; {NO_HEADER}"


def read_table(source: str | Path) -> Table:
    """The rows of a file or a Hugging Face dataset (`hf:NAME[:CONFIG[:SPLIT]]`).

    Raises:
        UserError: it cannot be read, is none of the formats, or has no rows.
    """
    if hugging_face.is_dataset_name(str(source)):
        table = _dataset(str(source))
    else:
        path = Path(source)
        if path.is_dir():
            raise UserError(f"{path} is a folder", remedy="Give a file of labelled examples")
        table = _file(path)
    if not table.rows:
        raise UserError(f"{table.source} has no examples", remedy="Give a file with a row for each example")
    return table


def _file(path: Path) -> Table:
    name = path.name.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    if name.endswith(".parquet"):
        return _parquet(path)
    text = read_text(path, remedy=_REMEDY)
    start = text.lstrip()[:1]
    if name.endswith((".jsonl", ".ndjson", ".json")) or start == "{":
        return _json_list(path, text) if start == "[" else _json_lines(path, text)
    if name.endswith(_CONLL_ENDINGS):
        return _conll(path, text)
    if name.endswith((".csv", ".tsv", ".tab")):
        return _separated(path, text, is_tabbed=not name.endswith(".csv"))
    if _is_conll(text):
        return _conll(path, text)
    return _separated(path, text, is_tabbed="\t" in text.partition("\n")[0])


def _separated(path: Path, text: str, *, is_tabbed: bool) -> Table:
    """The first line names the columns. In TSV only quotes around a whole field are taken off."""
    first = text.partition("\n")[0]
    delimiter = "\t" if is_tabbed else max(",;\t|", key=first.count)
    is_tabbed = delimiter == "\t"
    csv.field_size_limit(len(text) + 1)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if is_tabbed else csv.QUOTE_MINIMAL
    split = text.split("\n") if is_tabbed else io.StringIO(text, newline="")  # ends lines at none of Unicode's others
    lines = csv.reader(split, delimiter=delimiter, quoting=quoting, strict=True)
    rows: list[Row] = []
    places: list[str] = []
    names: list[str] = []
    begins = 1
    try:
        for fields in lines:
            place, begins = f"line {begins:,}", lines.line_num + 1
            if is_tabbed:
                fields = [_unquoted(field.rstrip("\r")) for field in fields]
            if not any(field.strip() for field in fields):
                continue
            if not names:
                names = [field.strip() for field in fields]
                _check_names(path, names)
                continue
            if len(fields) > len(names):
                raise UserError(
                    f"{path}, {place}: {len(fields)} fields where the first line names {len(names)}",
                    remedy="Quote a field that holds a separator, and give the first line with the columns' names",
                )
            rows.append(dict(zip(names, fields, strict=False)))
            places.append(place)
    except csv.Error as error:
        raise UserError(
            f"{path}, the row that begins in line {begins:,}: {error}",
            remedy="Close the quote that is open there, or write a quote within a field twice",
        ) from None
    return Table(str(path), rows, places, has_header=True)


def _check_names(path: Path, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} names the column {twice!r} twice in its first line", remedy="Rename one of them")


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if len(field) > 1 and field[0] == field[-1] == '"' else field


def _json_lines(path: Path, text: str) -> Table:
    rows, places = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            remedy = "Correct the line, or leave it out"
            if _holds_objects(text):
                remedy = "Write one JSON object a line: jq -c . does it"
            raise UserError(f"{path}, line {number:,}: not JSON ({error})", remedy=remedy) from None
        rows.append(_object(row, f"{path}, line {number:,}"))
        places.append(f"line {number:,}")
    return Table(str(path), rows, places)


def _holds_objects(text: str) -> bool:
    """Whether a text is one JSON value after another, over several lines each."""
    decoder, at = json.JSONDecoder(), 0
    try:
        while (at := _next_character(text, at)) < len(text):
            at = decoder.raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return False
    return True


def _next_character(text: str, at: int) -> int:
    """Position of the first that is no white space."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _json_list(path: Path, text: str) -> Table:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error})", remedy="Give a list of objects, or JSON lines") from None
    places = [f"entry {number:,}" for number in range(1, len(values) + 1)]
    rows = [_object(row, f"{path}, {place}") for row, place in zip(values, places, strict=True)]
    return Table(str(path), rows, places)


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{place}: no JSON object", remedy="Write an object with a text and a label for each example")
    return row


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read as Parquet ({error})", remedy="Write it again, or give a CSV") from None
    return Table(str(path), rows, [f"row {number:,}" for number in range(1, len(rows) + 1)])


def _dataset(source: str) -> Table:
    opened = hugging_face.opened_dataset(Path(source), streaming=False)
    named = {name: feature.names for name, feature in opened.features.items() if hasattr(feature, "names")}
    inner: dict[str, Any] = {name: getattr(feature, "feature", None) for name, feature in opened.features.items()}
    lists = {name: feature.names for name, feature in inner.items() if hasattr(feature, "names")}
    rows = []
    for row in opened:
        for name, names in named.items():
            if isinstance(row[name], int):
                row[name] = names[row[name]] if row[name] >= 0 else None  # −1: a test set without labels
        for name, names in lists.items():
            row[name] = [names[index] if index >= 0 else None for index in row[name] or []]
        rows.append(row)
    return Table(source, rows, [f"row {number:,}" for number in range(1, len(rows) + 1)])


def _is_conll(text: str) -> bool:
    """Whether the first sentences are lines of a word and a tag, with empty lines between them."""
    lines = text[:20_000].split("\n")[:-1] or [text]
    fields = [line.split() for line in lines]
    filled = [some for some in fields if some]
    tags = [some[-1] for some in filled if len(some) > 1]
    looks = [tag for tag in tags if tag == "O" or tag[:2] in ("B-", "I-", "E-", "S-", "L-", "U-")]
    return bool(filled) and [] in fields and len(looks) > 0.8 * len(filled)


def _conll(path: Path, text: str) -> Table:
    """A word a line, its tag in the last column; an empty line after each text."""
    rows: list[Row] = []
    places: list[str] = []
    for first, lines in _blocks(text):
        words, tags = [], []
        for number, line in enumerate(lines, start=first):
            fields = line.split("\t") if "\t" in line else line.split()
            if len(fields) < 2:
                raise UserError(
                    f"{path}, line {number:,}: {line[:40]!r} has no tag",
                    remedy="Write a word and its tag, with a space or a tab between them, and an empty line after each text",  # noqa: E501
                )
            words.append(fields[0])
            tags.append(fields[-1].strip())
        rows.append({WORDS: words, TAGS: tags})
        places.append(f"line {first:,}")
    return Table(str(path), rows, places)


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """First line's number and lines of each text; comments and document marks are left out."""
    block: list[str] = []
    first = 1
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        line = line.rstrip("\r")
        if line.strip() and not line.startswith(("# ", "-DOCSTART-")):
            first = first if block else number
            block.append(line)
        elif block and not line.strip():
            yield first, block
            block = []
