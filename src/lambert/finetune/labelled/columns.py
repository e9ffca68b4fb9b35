"""Which columns hold texts and labels, and what kind of labels they are: as named, or as found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

from lambert.errors import UserError, unknown_name
from lambert.finetune.labelled.tables import TAGS, WORDS, Table
from lambert.finetune.labelled.task import KINDS, Kind

_TEXTS = (
    *("text", "sentence", "review", "content", "comment", "body", "document", "utterance", "tweet", "message"),
    *("abstract", "title", WORDS, "tokens"),
)
_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("query", "passage"),
    ("question", "sentence"),
    ("question", "answer"),
)
_LABELS = (
    *("label", "labels", TAGS, "ner_tags", "class", "category", "target", "sentiment", "intent", "score", "rating"),
    *("stars", "spans", "entities", "topic", "genre", "y"),
)
_MOST_CLASSES_OF_WHOLE_NUMBERS = 20
_ROWS_LOOKED_AT = 20_000
_NOT_A_NUMBER = ("nan", "NaN", "NAN")
_NOT_AVAILABLE = ("na", "n/a", "#n/a", "<na>", "none", "null", "nan", "-nan")


@dataclass(frozen=True)
class Columns:
    """Where texts and labels are."""

    texts: tuple[str, ...]
    """One column, or two of a pair."""
    labels: tuple[str, ...]
    """One column, or several that hold 0 or 1."""
    kind: Kind
    separator: str | None = None
    """Between the labels of one field."""
    of_numbers: bool = False
    """Whether all labels that are not missing are numbers, so that `NA` is a missing one."""

    def text(self) -> str:
        """One line for the user."""
        texts, labels = ", ".join(map(repr, self.texts)), ", ".join(map(repr, self.labels[:6]))
        more = ", …" if len(self.labels) > 6 else ""
        return f"{self.kind}: texts in {texts}, labels in {labels}{more}"


def find_columns(
    table: Table,
    *,
    texts: Sequence[str] = (),
    labels: Sequence[str] = (),
    kind: str | None = None,
    separator: str | None = None,
) -> Columns:
    """The columns as given; what is not given is found by usual names, or because only it is left.

    Raises:
        UserError: there is no such column or kind, or what is not given cannot be found.
    """
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind of labels", kind, KINDS)
    if separator and kind not in (None, "multi-label"):
        raise UserError(f"`label_separator` is for multi-label, and `task` is {kind}", remedy="Give one of them")
    names = table.names
    for option, given in (("text", texts), ("label", labels)):
        if missing := [name for name in given if name not in names]:
            raise UserError(
                f"{table.source} has no column {missing[0]!r}",
                remedy=f"Name another with `{option}`; {table.column_text()}",
            )
    if len(texts) > 2:
        raise UserError(f"{len(texts)} columns of text are given", remedy="Give one, or the two of a pair")
    found_labels = tuple(labels) or _label_column(table, texts)
    found_texts = tuple(texts) or _text_columns(table, found_labels)
    if both := {*found_texts} & {*found_labels}:
        raise UserError(f"{sorted(both)[0]!r} is given as text and as label", remedy="Name two columns")
    if kind is not None and len(found_labels) == 1:
        _check_kind(table, found_labels[0], kind)
    found_kind = _kind(table, found_texts, found_labels, separator) if kind is None else kind
    if found_kind == "tags" and len(found_texts) > 1:
        raise UserError("tags are of the words of one text, and two columns are given", remedy="Give one")
    if len(found_labels) > 1 and found_kind != "multi-label":
        raise UserError(f"several columns of labels are not {found_kind}", remedy="Give one, or multi-label as task")
    assert found_kind in KINDS
    numbers, word = _numbers(table, found_labels[0])
    of_numbers = len(found_labels) == 1 and bool(numbers) and word is None
    return Columns(found_texts, found_labels, found_kind, separator, of_numbers)


def _label_column(table: Table, texts: Sequence[str]) -> tuple[str]:
    by_name = {name.lower(): name for name in reversed(table.names) if name not in texts}
    for usual in _LABELS:
        if usual in by_name:
            return (by_name[usual],)
    left = [name for name in table.names if name not in texts]
    if len(texts) and len(left) == 1:
        return (left[0],)
    raise UserError(
        f"which column of {table.source} holds the labels? None is called label",
        remedy=f"Name it with `label`; {table.column_text()}",
    )


def _text_columns(table: Table, labels: Sequence[str]) -> tuple[str, ...]:
    by_name = {name.lower(): name for name in reversed(table.names) if name not in labels}
    for first, second in _PAIRS:
        if first in by_name and second in by_name:
            return by_name[first], by_name[second]
    for usual in _TEXTS:
        if usual in by_name:
            return (by_name[usual],)
    left = [name for name in by_name.values() if isinstance(table.rows[0].get(name), str)]
    if len(left) == 1:
        return (left[0],)
    raise UserError(
        f"which column of {table.source} holds the texts? None is called text",
        remedy=f"Name it with `text`, or both of a pair; {table.column_text()}",
    )


def _kind(table: Table, texts: Sequence[str], labels: Sequence[str], separator: str | None) -> Kind:
    """By the first rows."""
    if len(labels) > 1 or separator:
        return "multi-label"
    values = [row.get(labels[0]) for row in table.rows[:_ROWS_LOOKED_AT]]
    known = [value for value in values if not is_missing(value)]
    lists = [value for value in known if isinstance(value, list)]
    if lists and len(lists) == len(known):
        words = [row.get(texts[0]) for row in table.rows[:_ROWS_LOOKED_AT]]
        of_words = any(isinstance(text, list) for text in words)
        of_spans = any(isinstance(item, list | dict) for value in lists for item in value)
        return "tags" if of_words or of_spans else "multi-label"
    numbers, word = _numbers(table, labels[0])
    whole = all(number.is_integer() for number in numbers)
    if not numbers or (whole and len(set(numbers)) <= _MOST_CLASSES_OF_WHOLE_NUMBERS):
        return "classification"
    if word is not None and 2 * len(numbers) >= len(known):
        raise UserError(
            f"{len(numbers):,} of the labels in {labels[0]!r} are numbers, but {word} is none",
            remedy="Correct such labels, or give `task`: regression leaves them out, classification makes each number "
            "a class",
        )
    return "classification" if word is not None else "regression"


def _check_kind(table: Table, column: str, kind: str) -> None:
    """Raises UserError where no label is what a given kind needs."""
    values = [row.get(column) for row in table.rows[:_ROWS_LOOKED_AT] if not is_missing(row.get(column))]
    needs = {"tags": "a list for each text", "regression": "numbers", "classification": "one for each text"}
    fits = {
        "tags": lambda value: isinstance(value, list),
        "regression": lambda value: math.isfinite(as_number(value)),
        "classification": lambda value: not isinstance(value, list | dict),
    }
    if kind in needs and values and not any(map(fits[kind], values)):
        as_lists = ", or write lists or spans as JSON lines, or CoNLL" if kind == "tags" else ""
        raise UserError(
            f"the labels in {column!r} are such as {str(values[0])[:40]!r}, and {kind} needs {needs[kind]}",
            remedy=f"Leave out `task`, which then is as the labels look{as_lists}",
        )


def _numbers(table: Table, column: str) -> tuple[list[float], str | None]:
    """The finite numbers in a column, and the first label that is neither a number nor missing."""
    numbers: list[float] = []
    word = None
    for row, place in zip(table.rows[:_ROWS_LOOKED_AT], table.places, strict=False):
        value = row.get(column)
        if is_missing(value, of_numbers=True):
            continue
        number = as_number(value)
        if math.isfinite(number):
            numbers.append(number)
        elif math.isnan(number) and word is None:
            word = f"{str(value)[:40]!r} in {place}"
    return numbers, word


def is_missing(value: Any, *, of_numbers: bool = False) -> bool:
    """Whether a text or a label is none: null, empty, or not a (finite) number as pandas writes it.

    Args:
        of_numbers: among numbers `NA`, infinity and the like are missing, too; among words they may be classes.
    """
    if isinstance(value, str):
        text = value.strip()
        if of_numbers and (text.lower() in _NOT_AVAILABLE or math.isinf(as_number(text))):
            return True
        return not text or text in _NOT_A_NUMBER
    return value is None or (_is_number(value) and not math.isfinite(as_number(value)))


def as_number(value: Any) -> float:
    """NaN for what is not a number."""
    if not isinstance(value, str) and not _is_number(value):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _is_number(value: Any) -> bool:
    """Of Python, NumPy or a decimal column; a bool is a class."""
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)
