"""One journal record → figures with a name and a step, as dashboards want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lambert.runlog.records import Record, number_or_none

_STEP_GROUPS = {
    "train": (
        "loss", "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy",
        "learning_rate", "gradient_norm",
    ),
    "speed": ("seconds", "sequences_per_second", "tokens_per_second", "model_flops_per_second", "mfu"),
}  # fmt: skip
_EVALUATION = (
    "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy",
    "nsp_majority_accuracy", "unigram_loss", "unigram_accuracy",
)  # fmt: skip
_FIELDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "step": _STEP_GROUPS,
    "evaluation": {"held_out": _EVALUATION},
    "noise": {"noise": ("noise_scale", "standard_error")},
    "phase": {"phase": ("sequence_length", "batch_size")},
    "micro_batch": {"phase": ("micro_batch_size",)},
    "checkpoint": {"checkpoint": ("bytes", "seconds")},
}
"""Event → group → fields of docs/journal.md; every figure is called group/field."""


@dataclass(frozen=True)
class Figures:
    """What a record says of one step."""

    step: int
    seconds: float | None
    """When it was written, since 1970-01-01 00:00 UTC."""
    values: Mapping[str, float]
    """Finite numbers only: what a run could not measure is left out."""


def figures_of(record: Record) -> Figures | None:
    """The figures of a record; None for records that have none, or no step."""
    event = record["event"]
    step = number_or_none(record.get("first_step" if event == "phase" else "step"))
    if step is None or step < 0 or step != int(step):
        return None
    found = {name: number for name, value in _named(record) if (number := number_or_none(value)) is not None}
    return Figures(int(step), number_or_none(record.get("time")), found) if found else None


def returns_to(record: Record) -> int | None:
    """The step after which a record begins to tell anew (a resume, a rollback); None where it goes on."""
    field = {"run": "resumed_from_step", "rollback": "to_step"}.get(record["event"])
    step = None if field is None else number_or_none(record.get(field))
    return None if step is None or step < 0 else int(step)


def _named(record: Record) -> Iterator[tuple[str, object]]:
    event = record["event"]
    for group, fields in _FIELDS.get(event, {}).items():
        for field in fields:
            yield f"{group}/{field}", record.get(field)
    if event == "step":
        for part, seconds in _items(record.get("step_time_breakdown")):
            yield f"speed/seconds_of_{part}", seconds
    elif event == "trust_ratios":
        for layer, ratio in _items(record.get("trust_ratios")):
            yield f"trust_ratio/{layer}", ratio
    elif event == "skipped":
        yield "trouble/skipped_in_a_row", record.get("consecutive")
    elif event == "spike":
        for spike in record.get("spikes") or ():
            if isinstance(spike, Mapping):
                yield f"trouble/spike_of_{spike.get('figure')}", spike.get("deviations")


def _items(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from value.items()
