"""Rows of a table → checked examples and the task they are of."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np

from lambert.errors import UserError
from lambert.finetune.labelled.columns import Columns, as_number, is_missing
from lambert.finetune.labelled.tables import Row, Table
from lambert.finetune.labelled.task import OUTSIDE, Example, Kind, Scale, TaggedText, Task, own_task

log = logging.getLogger("lambert")
_WORD = re.compile(r"\w+|[^\w\s]")
_MOST_LABELS = 1_000
_LARGEST_NUMBER = 1e38
_LEAST_VARIATION = 1e-5
"""Standard deviation by mean: a hundred times what float32 tells apart."""


class _Unusable(Exception):
    """Why a row is no example."""


@dataclass(frozen=True)
class Labelled:
    """A row with its label as text, before the labels have indices."""

    texts: tuple[str, ...]
    label: Any
    """A string, a number, a tuple of strings; for tags a tuple of (begin, end, tag) for each word."""
    place: str


def read_rows(table: Table, columns: Columns) -> list[Labelled]:
    """The usable rows. Those without a text or a label are left out and told.

    Raises:
        UserError: no row is usable, or a label is not what the kind of the task needs.
    """
    found: list[Labelled] = []
    skipped: Counter[str] = Counter()
    first: dict[str, str] = {}
    for row, place in zip(table.rows, table.places, strict=True):
        try:
            found.append(_labelled(row, columns, place))
        except _Unusable as error:
            reason = str(error)
            skipped[reason] += 1
            first.setdefault(reason, place)
    for reason, count in skipped.items():
        left_out = f"{count:,} of {len(table.rows):,} rows {'are' if count > 1 else 'is'} left out"
        log.warning(f"{table.source}: {left_out}, first in {first[reason]}: {reason}.")
    if not found:
        reason = next(iter(skipped), "there are none")
        raise UserError(
            f"{table.source} has no usable example: {reason}", remedy="Name the columns with `text` and `label`"
        )
    return found


def labels_of(rows: Iterable[Labelled], kind: Kind) -> Counter[str]:
    """Label → examples (words, of tags); empty for numbers."""
    counts: Counter[str] = Counter()
    for row in rows:
        if kind == "tags":
            counts.update(tag for _, _, tag in row.label)
        elif kind != "regression":
            counts.update(row.label if kind == "multi-label" else (row.label,))
    return counts


def make_task(name: str, columns: Columns, learned: Counter[str], measured: Counter[str]) -> Task:
    """The task; its classes are all labels, numbers in order and then words in order.

    Args:
        learned, measured: `labels_of` the training and the development rows.

    Raises:
        UserError: the training examples have only one class, or there are far too many.
    """
    if columns.kind == "regression":
        return own_task(name, "regression", ())
    labels = sorted({*learned, *measured}, key=_order)
    if len(learned) < 2 and columns.kind != "multi-label":
        raise UserError(
            f"all training labels are {next(iter(learned))!r}, so there is nothing to tell apart",
            remedy="Give examples of at least two labels, or name another column with `label`",
        )
    if unseen := sorted(measured.keys() - learned.keys(), key=_order):
        named = ", ".join(map(repr, unseen[:8])) + (", …" if len(unseen) > 8 else "")
        log.warning(f"Labels of development examples that no training example has: {named}.")
    if len(labels) > _MOST_LABELS:
        raise UserError(
            f"there are {len(labels):,} different labels, such as {labels[0]!r} and {labels[-1]!r}",
            remedy="Name another column with `label`, or regression as `task` where they are numbers",
        )
    return own_task(name, columns.kind, tuple(labels))


def label_scale(learned: Sequence[Labelled], measured: Sequence[Labelled]) -> Scale:
    """Mean and standard deviation of the training labels of a regression.

    Raises:
        UserError: all are the same, or one is too large for float32.
    """
    labels = np.array([row.label for row in learned])
    for row in (*learned, *measured):
        if abs(row.label) > _LARGEST_NUMBER:
            raise UserError(
                f"the label in {row.place} is {row.label:g}, and float32 ends at {_LARGEST_NUMBER:g}",
                remedy="Give the labels in another unit, or as logarithms",
            )
    if np.ptp(labels) == 0:
        raise UserError(
            f"all training labels are {labels[0]:g}, so there is nothing to predict",
            remedy="Give examples of different labels, or name another column with `label`",
        )
    scale = Scale(float(labels.mean()), float(labels.std()))
    if scale.deviation < _LEAST_VARIATION * abs(scale.mean):
        log.warning(
            f"The labels are near {scale.mean:.7g} and differ by some {scale.deviation:.3g}, which float32 hardly "
            "tells apart. Subtract a constant from them."
        )
    return scale


def make_examples(rows: Sequence[Labelled], task: Task) -> list[Any]:
    """`Example` or `TaggedText` of each row."""
    indices = {label: index for index, label in enumerate(task.labels)}
    examples: list[Any] = []
    for row in rows:
        second = row.texts[1] if len(row.texts) > 1 else None
        if task.kind == "tags":
            words = tuple((begin, end) for begin, end, _ in row.label)
            tags = tuple(indices[tag] for _, _, tag in row.label)
            examples.append(TaggedText(row.texts[0], words, tags))
        elif task.kind == "regression":
            examples.append(Example(row.texts[0], second, row.label))
        elif task.kind == "multi-label":
            several = tuple(sorted(indices[label] for label in row.label))
            examples.append(Example(row.texts[0], second, several))
        else:
            examples.append(Example(row.texts[0], second, float(indices[row.label])))
    return examples


def _order(label: str) -> tuple[bool, float, bool, str]:
    number = as_number(label)
    return math.isnan(number), 0.0 if math.isnan(number) else number, label != OUTSIDE, label


def _labelled(row: Row, columns: Columns, place: str) -> Labelled:
    value = row.get(columns.labels[0])
    if columns.kind == "tags":
        return _tagged(row, columns, place)
    texts = tuple(_text(row.get(name), name) for name in columns.texts)
    if columns.kind == "multi-label":
        return Labelled(texts, _several(row, columns), place)
    if is_missing(value, of_numbers=columns.of_numbers):
        raise _Unusable("it has no label")
    number = as_number(value)
    if columns.kind == "regression":
        if not math.isfinite(number):
            raise _Unusable(f"the label {str(value)[:40]!r} is not a number")
        return Labelled(texts, number, place)
    if columns.of_numbers and isinstance(value, str) and value.strip().endswith(".0"):
        value = number  # as pandas writes whole numbers of which some are missing
    return Labelled(texts, _name(value), place)


def _text(value: Any, column: str) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = " ".join(value)
    if is_missing(value):
        raise _Unusable(f"{column!r} is empty")
    return str(value)


def _name(value: Any) -> str:
    """A label as text: 1 and 1.0 are the same."""
    if isinstance(value, bool):
        return str(value).lower()
    if is_missing(value):
        raise _Unusable("one of its labels is missing")
    if isinstance(value, dict | list):
        raise _Unusable(f"its label is {'an object' if isinstance(value, dict) else 'a list'}")
    number = math.nan if isinstance(value, str) else as_number(value)
    return str(int(value) if number.is_integer() else value).strip()


def _several(row: Row, columns: Columns) -> tuple[str, ...]:
    """The labels of a row, each once."""
    if len(columns.labels) > 1:
        return tuple(name for name in columns.labels if _is_true(row.get(name), name))
    value = row.get(columns.labels[0])
    if is_missing(value) and not (isinstance(value, str) and not value.strip()):
        raise _Unusable("it has no labels")
    if isinstance(value, str):
        if not columns.separator:
            raise UserError(
                f"the labels of {columns.labels[0]!r} are in one field",
                remedy="Say what is between them with `label_separator`",
            )
        value = [part for part in value.split(columns.separator) if part.strip()]
    if not isinstance(value, list):
        raise _Unusable("its labels are no list")
    return tuple(dict.fromkeys(map(_name, value)))


def _is_true(value: Any, column: str) -> bool:
    text = _name(value).lower() if not is_missing(value) else "0"
    if text not in ("0", "1", "true", "false"):
        raise _Unusable(f"{column!r} is {text[:20]!r}, not 0 or 1")
    return text in ("1", "true")


def _tagged(row: Row, columns: Columns, place: str) -> Labelled:
    value, tags = row.get(columns.texts[0]), row.get(columns.labels[0])
    if _is_list(value):
        if not _is_list(tags) or len(tags) != len(value):
            raise _Unusable(f"{columns.texts[0]!r} and {columns.labels[0]!r} are not lists of the same length")
        words = [str(word) for word in value]
        text, begin, spans = " ".join(words), 0, []
        for word, tag in zip(words, tags, strict=True):
            if word.strip():
                spans.append((begin, begin + len(word), _name(tag)))
            begin += len(word) + 1
    else:
        text = _text(value, columns.texts[0])
        if not _is_list(tags):
            raise _Unusable(f"{columns.labels[0]!r} is no list of spans")
        spans = _words_of_spans(text, sorted(map(_span, tags)))
    if not spans:
        raise _Unusable("it has no words")
    return Labelled((text,), tuple(spans), place)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _span(value: Any) -> tuple[int, int, str]:
    """(begin, end, label) of a span, in characters: a list, or an object as of Label Studio, spaCy or doccano."""
    try:
        if isinstance(value, dict):
            begin = value["start"] if "start" in value else value["start_offset"]
            end = value["end"] if "end" in value else value["end_offset"]
            label = next(value[name] for name in ("label", "labels", "entity", "type", "tag") if name in value)
            label = label[0] if isinstance(label, list) else label
        else:
            begin, end, label = value
        return int(begin), int(end), _name(label)
    except (KeyError, ValueError, TypeError, StopIteration):
        raise _Unusable("a span has no start, end and label") from None


def _words_of_spans(text: str, spans: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Every word with its tag, B- or I- and the label, or O. A word is cut where a span begins or ends within it."""
    before = 0
    for begin, end, _ in spans:
        if not 0 <= begin < end <= len(text):
            raise _Unusable(f"the span {begin} to {end} is not within its text of {len(text)} characters")
        if begin < before:
            raise _Unusable("two of its spans overlap")
        before = end
    edges = {edge for begin, end, _ in spans for edge in (begin, end)}
    words: list[tuple[int, int, str]] = []
    at = 0  # of the spans
    for match in _WORD.finditer(text):
        cuts = [match.start(), *sorted(edge for edge in edges if match.start() < edge < match.end()), match.end()]
        for begin, end in pairwise(cuts):
            while at < len(spans) and spans[at][1] <= begin:
                at += 1
            inside = at < len(spans) and spans[at][0] <= begin
            is_first = inside and not (words and words[-1][0] >= spans[at][0])
            words.append((begin, end, f"{'B' if is_first else 'I'}-{spans[at][2]}" if inside else OUTSIDE))
    return words
