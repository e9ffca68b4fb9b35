"""The tasks of GLUE (Wang et al. 2019, arXiv 1804.07461) and their files → checked examples.

Files are tab-separated without quoting. All published layouts of a task are read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lambert.errors import UserError, unknown_name
from lambert.finetune.files import read_text
from lambert.finetune.labelled.task import Example, Task

log = logging.getLogger("lambert")
Split = Literal["train", "dev"]


@dataclass(frozen=True)
class Layout:
    """Columns of a file: by name where it has a header, else by index."""

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
    """In the order of their class indices; none: a regression."""
    metrics: tuple[str, ...]
    """Names in `metric`; the task's score is their mean."""
    files: Mapping[Split, tuple[str, ...]]
    """Names that the file of a split may have."""
    layouts: tuple[Layout, ...]
    """The first one whose names the header contains."""
    skips_short_lines: bool = False
    """Whether the published file has lines with too few fields."""

    @property
    def task(self) -> Task:
        """What is learned."""
        return Task(self.name, "classification" if self.labels else "regression", self.labels, self.metrics)


_TSV: Mapping[Split, tuple[str, ...]] = {"train": ("train.tsv",), "dev": ("dev.tsv",)}
_STS: Mapping[Split, tuple[str, ...]] = {"train": ("train.tsv", "sts-train.csv"), "dev": ("dev.tsv", "sts-dev.csv")}
_MNLI = ("contradiction", "entailment", "neutral")
_INFERENCE = ("entailment", "not_entailment")
_QQP = Layout("question1", "question2", "is_duplicate")


def _mnli(name: str, dev: str) -> GlueTask:
    files: Mapping[Split, tuple[str, ...]] = {"train": ("train.tsv",), "dev": (dev,)}
    return GlueTask(name, _MNLI, ("accuracy",), files, (Layout("sentence1", "sentence2", "gold_label"),))


TASKS = {
    task.name: task
    for task in (
        GlueTask("sst-2", ("0", "1"), ("accuracy",), _TSV, (Layout("sentence", None, "label"),)),
        GlueTask("mrpc", ("0", "1"), ("accuracy", "f1"), _TSV, (Layout("#1 String", "#2 String", "Quality"),)),
        GlueTask("qqp", ("0", "1"), ("accuracy", "f1"), _TSV, (_QQP,), skips_short_lines=True),
        _mnli("mnli", "dev_matched.tsv"),
        _mnli("mnli-mm", "dev_mismatched.tsv"),
        GlueTask("qnli", _INFERENCE, ("accuracy",), _TSV, (Layout("question", "sentence", "label"),)),
        GlueTask("rte", _INFERENCE, ("accuracy",), _TSV, (Layout("sentence1", "sentence2", "label"),)),
        GlueTask("wnli", ("0", "1"), ("accuracy",), _TSV, (Layout("sentence1", "sentence2", "label"),)),
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


def read_split(folder: Path, task: GlueTask, split: Split) -> tuple[Example, ...]:
    """The examples of a split in GLUE's folder of the task, in file order.

    Raises:
        UserError: there is no such file, it is no table of this task, or a line is wrong (named).
    """
    return tuple(_examples(split_file(folder, task, split), task))


def split_file(folder: Path, task: GlueTask, split: Split) -> Path:
    """The file of a split in GLUE's folder of the task. Raises UserError where there is none."""
    for name in task.files[split]:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder} has no {' or '.join(task.files[split])}", remedy=f"Give GLUE's folder of {task.name} as `data`"
    )


def _examples(path: Path, task: GlueTask) -> Iterator[Example]:
    lines = read_text(path, remedy=f"Give GLUE's file of {task.name}").split("\n")
    rows = [(number, line.rstrip("\r").split("\t")) for number, line in enumerate(lines, start=1) if line.strip()]
    layout, columns = _columns(path, task, rows[0][1])
    examples = rows[layout.has_header :]
    if task.skips_short_lines:
        examples = [(number, row) for number, row in examples if len(row) == len(rows[0][1])]
        if short := len(rows) - layout.has_header - len(examples):
            log.warning(f"{path}: {short:,} lines with too few or too many fields are left out.")
    for number, row in examples:
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
    """The layout of a file and the indices of its columns."""
    for layout in task.layouts:
        wanted = (layout.first, layout.second, layout.label)
        if not layout.has_header:
            first, second, label = wanted
            assert isinstance(first, int) and isinstance(label, int) and not isinstance(second, str)
            return layout, (first, second, label)
        if all(name is None or name in header for name in wanted):
            found = [None if name is None else header.index(str(name)) for name in wanted]
            assert found[0] is not None and found[2] is not None
            return layout, (found[0], found[1], found[2])
    layout = task.layouts[0]
    names = ", ".join(str(name) for name in (layout.first, layout.second, layout.label) if name)
    raise UserError(f"{path} has no columns {names}", remedy=f"Give GLUE's file of {task.name}")


def _label(task: GlueTask, text: str) -> float:
    """Raises ValueError for what is no label."""
    if task.labels:
        return float(task.labels.index(text))
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
