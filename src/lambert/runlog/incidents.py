"""Incidents of a run (damaged checkpoints, skipped steps, spikes, rollbacks, halved micro-batches) as lines of text."""

from __future__ import annotations

from lambert.runlog.records import Record, number_or_none
from lambert.runlog.schema import SPIKE_FIELDS, Event
from lambert.utils import formatting


def incident_text(record: Record) -> str:
    """One of schema.INCIDENTS as a line that can be read on its own."""
    step, phase, micro_batch, to_step = (
        formatting.count(number_or_none(record.get(name))) for name in ("step", "phase", "micro_batch_size", "to_step")
    )
    match record["event"]:
        case Event.DAMAGED:
            problems = record.get("problems")
            told = "; ".join(map(str, problems)) if isinstance(problems, list) else "unknown damage"
            return f"{told}. Resuming from step {step}"
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
    told = "; ".join(map(_spike, spikes)) if isinstance(spikes, list) else "unknown"
    layers = record.get("moved_layers")
    moved = f"; layers that moved most: {', '.join(layers)}" if isinstance(layers, dict) and layers else ""
    return f"spike at step {step}: {told}{moved}"


def _spike(spike: object) -> str:
    if not isinstance(spike, dict):
        return "unknown"
    metric, *numbers = SPIKE_FIELDS
    value, mean, z_score = (formatting.number(number_or_none(spike.get(name))) for name in numbers)
    return f"{str(spike.get(metric)).replace('_', ' ')} {value}, mean {mean} (z-score {z_score})"
