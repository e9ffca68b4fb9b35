"""What a run has survived, each as one line: damaged checkpoints, steps left out, spikes, ways back."""

from __future__ import annotations

from lambert.runlog.records import Record, number_or_none
from lambert.utils import formatting

TROUBLES = ("damaged", "skipped", "spike", "rollback", "micro_batch")


def trouble_line(record: Record) -> str:
    """One of these events as a line that can be read on its own."""
    step = formatting.count(number_or_none(record.get("step")))
    match record["event"]:
        case "damaged":
            problems = record.get("problems")
            told = "; ".join(map(str, problems)) if isinstance(problems, list) else "unknown damage"
            return f"{told}. Going on from step {step}"
        case "skipped":
            return f"step {step} changed nothing: {record.get('reason')}"
        case "micro_batch":
            size = formatting.count(number_or_none(record.get("micro_batch_size")))
            return f"memory ended after step {step}: micro-batches of {size} from there on"
        case "rollback":
            return f"going back from step {step} to step {formatting.count(number_or_none(record.get('to_step')))}"
    spikes = record.get("spikes")
    told = "; ".join(map(_spike, spikes)) if isinstance(spikes, list) else "unknown"
    layers = record.get("moved_layers")
    moved = f"; layers that moved most: {', '.join(layers)}" if isinstance(layers, dict) and layers else ""
    return f"a spike at step {step}: {told}{moved}"


def _spike(spike: object) -> str:
    if not isinstance(spike, dict):
        return "unknown"
    value, usual, deviations = (
        formatting.number(number_or_none(spike.get(name))) for name in ("value", "usual", "deviations")
    )
    name = str(spike.get("figure")).replace("_", " ")
    return f"{name} {value}, usually {usual} ({deviations} standard deviations)"
