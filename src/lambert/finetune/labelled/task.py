"""What is learned from labelled examples, and an example of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["classification", "multi-label", "regression", "tags"]
KINDS: tuple[Kind, ...] = ("classification", "multi-label", "regression", "tags")
OUTSIDE = "O"
"""The tag of a word that belongs to no entity."""


@dataclass(frozen=True)
class Scale:
    """Labels are `mean` + `deviation` times what the model learns, which has mean 0 and standard deviation 1."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Task:
    """What is learned."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    """In the order of their class indices; none: a regression."""
    metrics: tuple[str, ...]
    """Names in `metrics`."""
    scored: tuple[str, ...] = ()
    """Metrics whose mean is the score; none: all of them."""
    scale: Scale | None = None
    """Of the training labels of a regression that learns standardized labels; None: it learns them as they are."""

    @property
    def classes(self) -> int:
        """Outputs of the model: 1 for a regression."""
        return len(self.labels) or 1


@dataclass(frozen=True)
class Example:
    """One or two texts and their label."""

    first: str
    second: str | None
    label: float | tuple[int, ...]
    """Index of the class, the number of a regression, or the indices of all its labels."""


@dataclass(frozen=True)
class TaggedText:
    """A text and a tag for each of its words."""

    text: str
    words: tuple[tuple[int, int], ...]
    """Begin and end of each word in the text, in characters."""
    tags: tuple[int, ...]
    """Index of each word's tag."""


_METRICS: dict[Kind, tuple[str, ...]] = {
    "classification": ("macro_f1", "accuracy"),
    "multi-label": ("micro_f1", "macro_f1", "exact_match"),
    "regression": ("pearson", "spearman", "rmse"),
    "tags": ("span_f1", "span_precision", "span_recall", "tag_accuracy"),
}


def own_task(name: str, kind: Kind, labels: tuple[str, ...]) -> Task:
    """A task on a person's own labels; its score is the first of its metrics."""
    metrics = _METRICS[kind]
    return Task(name, kind, labels, metrics, scored=metrics[:1])
