"""Journal lines → records; the report, the live display and the trackers read them this way.

docs/journal.md documents every field. Readers ignore events and fields they do not know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.runlog import schema
from lambert.runlog.schema import FORMAT_VERSION, SPIKE_FIELDS, Event
from lambert.utils import formatting

Record = dict[str, Any]

MOST_LINE_BYTES = 10_000_000
"""A longer line is read in parts, each of which counts as a damaged one."""
_LARGEST_WHOLE = 2**53  # a float64 holds every whole number below it


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

    def __contains__(self, step: int) -> bool:
        return self.first_step <= step <= self.last_step


@dataclass(frozen=True)
class Evaluation:
    """Metrics on the validation set after a step; losses in nats, accuracies from 0 to 1, NaN where not recorded."""

    step: int
    mlm_loss: float
    mlm_accuracy: float
    nsp_loss: float
    nsp_accuracy: float
    nsp_majority_accuracy: float
    unigram_loss: float
    unigram_accuracy: float
    masked_tokens: float


@dataclass(frozen=True)
class Fill:
    """A masked sentence and the model's predictions, likeliest first: (word, probability)."""

    text: str
    candidates: tuple[tuple[str, float], ...]
    step: int = 0
    """The last step before it."""


@dataclass(frozen=True)
class Incident:
    """One problem of a run or one resume: its kind (the event's name, or `resumed`) and a line about it."""

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
    """Measured steps that the estimate uses."""


def parse_line(line: bytes) -> Record | None:
    """One journal line as a record, or None when it is not a JSON object with an `event`."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("event"), str) else None


def check_format(record: Record, journal: Path) -> None:
    """Refuses the journal of another version of lambert.

    Args:
        record: any; only `run` records say the format.
        journal: where it stands.

    Raises:
        UserError: it is a `run` record in another format, or in none.
    """
    found = record.get("format_version")
    if record["event"] == Event.RUN and found != FORMAT_VERSION:
        written = f"journal format {found}" if found is not None else "a journal format without a version"
        raise UserError(
            f"{journal} has {written}; this version of lambert reads format {FORMAT_VERSION} only",
            remedy="Use the version of lambert that wrote the run, or train it again (--fresh)",
        )


def check_run_format(journal: Path) -> None:
    """`check_format` of every `run` record in a journal; a missing journal is fine.

    Raises:
        UserError: as `check_format`.
        OSError: the journal cannot be read.
    """
    if journal.exists():
        with journal.open("rb") as lines:
            while line := lines.readline(MOST_LINE_BYTES):
                record = parse_line(line) if b'"run"' in line else None
                if record is not None:
                    check_format(record, journal)


def incident_text(record: Record) -> str:
    """One of schema.INCIDENTS as a line that can be read on its own."""
    step, phase, micro_batch, to_step = (
        formatting.count(number_or_none(record.get(name))) for name in ("step", "phase", "micro_batch_size", "to_step")
    )
    match record["event"]:
        case Event.DAMAGED:
            problems = record.get("problems")
            text = "; ".join(map(str, problems)) if isinstance(problems, list) else "unknown damage"
            return f"{text}. Resuming from step {step}"
        case Event.SKIPPED:
            return f"step {step} skipped: {record.get('reason')}"
        case Event.MICRO_BATCH:
            return (
                f"out of memory after step {step}: micro-batches of phase {phase} now have {micro_batch} sequences;"
                " the global batch is unchanged"
            )
        case Event.ROLLBACK:
            return f"rolling back from step {step} to step {to_step}"
    spikes = record.get("spikes")
    text = "; ".join(map(_spike, spikes)) if isinstance(spikes, list) else "unknown"
    layers = record.get("moved_layers")
    moved = f"; layers that moved most: {', '.join(layers)}" if isinstance(layers, dict) and layers else ""
    return f"spike at step {step}: {text}{moved}"


def _spike(spike: object) -> str:
    if not isinstance(spike, dict):
        return "unknown"
    metric, *numbers = SPIKE_FIELDS
    value, mean, z_score = (formatting.number(number_or_none(spike.get(name))) for name in numbers)
    return f"{str(spike.get(metric)).replace('_', ' ')} {value}, mean {mean} (z-score {z_score})"


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


def phase_of(record: Record) -> Phase:
    """A `phase` record as a Phase. Raises ValueError when it lacks a field."""
    counts = {name: whole(record, name) for name in schema.PHASE_COUNTS}
    return Phase(
        number=counts.pop("phase"), peak_learning_rate=float_or_nan(record.get("peak_learning_rate")), **counts
    )


def noise_of(record: Record) -> Noise:
    """A `noise` record as a Noise. Raises ValueError when it lacks a field."""
    counts = {name: whole(record, name) for name in schema.NOISE_COUNTS}
    scale, error = (float_or_nan(record.get(name)) for name in schema.NOISE_METRICS)
    return Noise(noise_scale=scale, standard_error=error, **counts)


STEP_COLUMNS = (
    "phase", *schema.TRAINING_METRICS, *schema.THROUGHPUT_METRICS, *(f"{part}_seconds" for part in schema.STEP_PARTS)
)  # fmt: skip
"""Of `step_values`: the last ones are the parts of `step_time_breakdown`."""


def step_values(record: Record) -> tuple[float, ...]:
    """The values of a `step` record by STEP_COLUMNS; NaN where not recorded."""
    parts = record.get(schema.BREAKDOWN)
    parts = parts if isinstance(parts, dict) else {}
    own = (float_or_nan(record.get(name)) for name in STEP_COLUMNS[: -len(schema.STEP_PARTS)])
    return (*own, *(float_or_nan(parts.get(name)) for name in schema.STEP_PARTS))


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
