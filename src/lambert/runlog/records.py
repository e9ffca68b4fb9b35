"""One line of `journal.jsonl` -> one record; also used by the live display while a run goes on.

`docs/journal.md` documents every field. Readers ignore events and fields they do not know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]

_LARGEST_WHOLE = 2**53  # a float64 holds every whole number below it
_FIGURES = ("masked_word_loss", "masked_word_accuracy", "next_sentence_loss", "next_sentence_accuracy")
STEP_FIELDS = (
    "phase", "loss", *_FIGURES, "learning_rate", "gradient_norm", "seconds", "sequences_per_second",
    "tokens_per_second", "model_flops_per_second", "utilisation",
)  # fmt: skip
STEP_PARTS = ("data", "forward", "backward", "communication", "optimizer")
"""What `seconds_of` of a step tells apart; their columns are called `seconds_of_data` and so on."""
EVALUATION_FIELDS = (*_FIGURES, "next_sentence_commonest", "unigram_loss", "unigram_accuracy", "masked_words")


@dataclass(frozen=True)
class Phase:
    """One phase of the recipe; `first_step` counts from 1 over the whole run."""

    number: int
    sequence_length: int
    batch_size: int
    first_step: int
    steps: int
    peak_learning_rate: float
    warmup_steps: int

    @property
    def last_step(self) -> int:
        return self.first_step + self.steps - 1


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures after a step; losses in nats, accuracies between 0 and 1, NaN where not recorded."""

    step: int
    masked_word_loss: float
    masked_word_accuracy: float
    next_sentence_loss: float
    next_sentence_accuracy: float
    next_sentence_commonest: float
    unigram_loss: float
    unigram_accuracy: float
    masked_words: float


@dataclass(frozen=True)
class Fill:
    """A masked sentence and the words the model put in it, likeliest first: (word, probability)."""

    text: str
    candidates: tuple[tuple[str, float], ...]
    step: int = 0
    """The last step before it."""


@dataclass(frozen=True)
class Mark:
    """Something that befell a run: its kind (the event's name, or `resumed`) and a line about it."""

    step: int
    kind: str
    text: str


@dataclass(frozen=True)
class Noise:
    """The gradient noise scale after a step that measured it, in sequences; NaN where the signal was not above zero."""

    step: int
    phase: int
    small_batch: int
    large_batch: int
    noise_scale: float
    standard_error: float
    steps: int
    """Measured steps that it rests on."""


def parse_line(line: bytes) -> Record | None:
    """One journal line as a record, or None when it is not a JSON object with an `event`."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("event"), str) else None


def whole(record: Record, name: str) -> int:
    """The whole number, 0 or more, in a field. Raises ValueError when it is missing or something else."""
    value = float_or_nan(record.get(name))
    if not (0 <= value < _LARGEST_WHOLE and value == int(value)):
        raise ValueError(f"{name} is not a whole number")
    return int(value)


def number_or_none(value: object) -> float | None:
    """A field's value where it is a finite number, else None."""
    converted = float_or_nan(value)
    return converted if math.isfinite(converted) else None


def total_steps(header: Record, phases: Mapping[int, Phase]) -> int | None:
    """Steps of the whole run: the `run` event's `total_steps`, else where the phases known so far end."""
    recorded = number_or_none(header.get("total_steps"))
    if recorded is not None:
        return int(recorded)
    return max((phase.last_step for phase in phases.values()), default=None)


def phase_of(record: Record) -> Phase:
    """A `phase` record as a Phase. Raises ValueError when it lacks a field."""
    counts = ("sequence_length", "batch_size", "first_step", "steps", "warmup_steps")
    values = {name: whole(record, name) for name in counts}
    rate = float_or_nan(record.get("peak_learning_rate"))
    return Phase(number=whole(record, "phase"), peak_learning_rate=rate, **values)


def noise_of(record: Record) -> Noise:
    """A `noise` record as a Noise. Raises ValueError when it lacks a field."""
    counts = {name: whole(record, name) for name in ("step", "phase", "small_batch", "large_batch", "steps")}
    scale, error = (float_or_nan(record.get(name)) for name in ("noise_scale", "standard_error"))
    return Noise(noise_scale=scale, standard_error=error, **counts)


def step_figures(record: Record) -> tuple[float, ...]:
    """The figures of a `step` record: STEP_FIELDS, then the seconds of STEP_PARTS; NaN where not recorded."""
    parts = record.get("seconds_of")
    parts = parts if isinstance(parts, dict) else {}
    return (*(float_or_nan(record.get(n)) for n in STEP_FIELDS), *(float_or_nan(parts.get(n)) for n in STEP_PARTS))


def fill_of(record: Record, step: int) -> Fill:
    """A `fill` record that stands after a step as a Fill. Raises ValueError when it lacks a field."""
    candidates = record.get("candidates")
    if not isinstance(record.get("text"), str) or not isinstance(candidates, list):
        raise ValueError("text or candidates missing")
    pairs = [(str(mapping(c).get("word", "")), float_or_nan(mapping(c).get("probability"))) for c in candidates]
    return Fill(record["text"], tuple(pairs), step)


def mapping(value: object) -> Mapping[str, object]:
    """The value, where it is a JSON object. Raises ValueError where it is not."""
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def float_or_nan(value: object) -> float:
    """A number as float; NaN for everything else, infinities included (a plot cannot show them)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        converted = float(value)
    except OverflowError:
        return math.nan
    return converted if math.isfinite(converted) else math.nan
