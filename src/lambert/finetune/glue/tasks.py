"""Five tasks of GLUE (Wang et al. 2019, arXiv 1804.07461) and their files → checked examples.

Files are tab-separated without quoting. Where a task was published in several layouts, all of them are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lambert.corpus.compression import open_text_bytes, read_blocks
from lambert.errors import UserError, unknown_name

_MOST_BYTES = 200_000_000
Part = Literal["train", "dev"]


@dataclass(frozen=True)
class Layout:
    """Columns of a file: by name where it has a header, else by number from 0."""

    first: str | int
    second: str | int | None
    label: str | int

    @property
    def has_header(self) -> bool:
        return isinstance(self.first, str)


@dataclass(frozen=True)
class GlueTask:
    """One task."""

    name: str
    labels: tuple[str, ...]
    """In the order of their class numbers; none: a number to be met."""
    metrics: tuple[str, ...]
    """Of `metric.METRICS`; the task's score is their mean."""
    files: Mapping[Part, tuple[str, ...]]
    """Names that a part may have."""
    layouts: tuple[Layout, ...]
    """A file with a header has the first of these whose names stand in it."""

    @property
    def classes(self) -> int:
        """Outputs of the model: 1 for a number."""
        return len(self.labels) or 1


@dataclass(frozen=True)
class Example:
    """One or two texts and what is to be said of them."""

    first: str
    second: str | None
    label: float
    """Number of the class, or the number itself."""


_TSV: Mapping[Part, tuple[str, ...]] = {"train": ("train.tsv",), "dev": ("dev.tsv",)}
_STS: Mapping[Part, tuple[str, ...]] = {"train": ("train.tsv", "sts-train.csv"), "dev": ("dev.tsv", "sts-dev.csv")}
TASKS = {
    task.name: task
    for task in (
        GlueTask("sst-2", ("0", "1"), ("accuracy",), _TSV, (Layout("sentence", None, "label"),)),
        GlueTask("mrpc", ("0", "1"), ("accuracy", "f1"), _TSV, (Layout("#1 String", "#2 String", "Quality"),)),
        GlueTask(
            "rte", ("entailment", "not_entailment"), ("accuracy",), _TSV, (Layout("sentence1", "sentence2", "label"),)
        ),
        GlueTask("cola", ("0", "1"), ("matthews",), _TSV, (Layout(3, None, 1),)),
        GlueTask(
            "sts-b", (), ("pearson", "spearman"), _STS, (Layout("sentence1", "sentence2", "score"), Layout(5, 6, 4))
        ),
    )
}


def find_task(name: str) -> GlueTask:
    """The task of a name. Raises UserError, offering the nearest, where there is none."""
    if name.lower() not in TASKS:
        raise unknown_name("GLUE task", name, TASKS)
    return TASKS[name.lower()]


def read_part(folder: Path, task: GlueTask, part: Part) -> tuple[Example, ...]:
    """The examples of `folder`'s file for a part, in file order.

    Raises:
        UserError: there is no such file, it is no table of this task, or a line of it is not right (named).
    """
    for name in task.files[part]:
        if (folder / name).is_file():
            return tuple(_examples(folder / name, task))
    raise UserError(
        f"{folder} has no {' or '.join(task.files[part])}", remedy=f"Give GLUE's folder of {task.name} as --data"
    )


def _examples(path: Path, task: GlueTask) -> Iterator[Example]:
    lines = _text(path).split("\n")
    rows = [(number, line.rstrip("\r").split("\t")) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise UserError(f"{path} is empty", remedy=f"Give GLUE's file of {task.name}")
    layout, columns = _columns(path, task, rows[0][1])
    for number, row in rows[layout.has_header :]:
        try:
            first, label = row[columns[0]], _label(task, row[columns[2]])
            second = None if columns[1] is None else row[columns[1]]
        except (IndexError, ValueError):
            raise UserError(
                f"{path}: line {number} is not an example of {task.name}",
                remedy=f"Give GLUE's own file, in which a label is {' or '.join(task.labels) or 'a number'}",
            ) from None
        yield Example(first, second, label)


def _columns(path: Path, task: GlueTask, header: Sequence[str]) -> tuple[Layout, tuple[int, int | None, int]]:
    """The layout of a file and where its columns are."""
    for layout in task.layouts:
        wanted = (layout.first, layout.second, layout.label)
        if not layout.has_header:
            first, second, label = wanted
            assert isinstance(first, int) and isinstance(label, int) and not isinstance(second, str)
            return layout, (first, second, label)
        if all(name is None or name in header for name in wanted):
            places = [None if name is None else header.index(str(name)) for name in wanted]
            assert places[0] is not None and places[2] is not None
            return layout, (places[0], places[1], places[2])
    names = ", ".join(
        str(name) for name in (task.layouts[0].first, task.layouts[0].second, task.layouts[0].label) if name
    )
    raise UserError(f"{path} has no columns {names}", remedy=f"Give GLUE's file of {task.name}")


def _label(task: GlueTask, text: str) -> float:
    """Raises ValueError for what is no label."""
    if task.labels:
        return float(task.labels.index(text))
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _text(path: Path) -> str:
    content, left = [], _MOST_BYTES
    with open_text_bytes(path) as (stream, _):
        for block in read_blocks(stream):
            left -= len(block)
            if left < 0:
                raise UserError(f"{path} holds more than {_MOST_BYTES:,} bytes", remedy="Give GLUE's own file")
            content.append(block)
    try:
        return b"".join(content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start})", remedy="Give GLUE's own file") from None
