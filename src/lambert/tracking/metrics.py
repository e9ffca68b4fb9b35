"""One journal record → metrics with a name and a step, as dashboards want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lambert.runlog import schema
from lambert.runlog.records import Record, number_or_none
from lambert.runlog.schema import Event

_FIELDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    Event.STEP: {"train": schema.TRAINING_METRICS, "speed": schema.THROUGHPUT_METRICS},
    Event.EVALUATION: {"held_out": (*schema.LOSSES, *schema.BASELINES)},
    Event.NOISE: {"noise": schema.NOISE_METRICS},
    Event.PHASE: {"phase": ("sequence_length", "batch_size")},
    Event.MICRO_BATCH: {"phase": ("micro_batch_size",)},
    Event.CHECKPOINT: {"checkpoint": ("bytes", "seconds")},
    Event.SKIPPED: {"incidents": ("consecutive",)},
}
"""Event → group → fields of docs/journal.md; a metric is called group/field."""


@dataclass(frozen=True)
class Metrics:
    """The metrics of one record."""

    step: int
    seconds: float | None
    """When the record was written, since 1970-01-01 00:00 UTC."""
    values: Mapping[str, float]
    """Finite numbers only."""


def metrics_of(record: Record) -> Metrics | None:
    """The metrics of a record; None for records without any, or without a step."""
    event = record["event"]
    step = number_or_none(record.get("first_step" if event == Event.PHASE else "step"))
    if step is None or step < 0 or step != int(step):
        return None
    found = {name: number for name, value in _named(record) if (number := number_or_none(value)) is not None}
    return Metrics(int(step), number_or_none(record.get("time")), found) if found else None


def returns_to(record: Record) -> int | None:
    """The step to which a resume or a rollback returns; None for other records."""
    field = {Event.RUN: "resumed_from_step", Event.ROLLBACK: "to_step"}.get(record["event"])
    step = None if field is None else number_or_none(record.get(field))
    return None if step is None or step < 0 else int(step)


def _named(record: Record) -> Iterator[tuple[str, object]]:
    event = record["event"]
    for group, fields in _FIELDS.get(event, {}).items():
        for field in fields:
            yield f"{group}/{field}", record.get(field)
    if event == Event.STEP:
        for part, seconds in _items(record.get(schema.BREAKDOWN)):
            yield f"speed/{part}_seconds", seconds
    elif event == Event.TRUST_RATIOS:
        for layer, ratio in _items(record.get("trust_ratios")):
            yield f"trust_ratio/{layer}", ratio
    elif event == Event.SPIKE:
        for spike in record.get("spikes") or ():
            if isinstance(spike, Mapping):
                yield f"incidents/{spike.get('metric')}_spike_z_score", spike.get("z_score")


def _items(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from value.items()
