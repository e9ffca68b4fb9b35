"""Journals as a run writes them, in a few lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]

RUN: Record = {
    "event": "run",
    "format_version": 2,
    "time": 100.0,
    "lambert": "0.1.0",
    "resumed_from_step": 0,
    "total_steps": 4,
}
PHASE: Record = {
    "event": "phase", "time": 100.5, "phase": 1, "sequence_length": 16, "batch_size": 8, "first_step": 1, "steps": 4,
    "peak_learning_rate": 1e-3, "warmup_steps": 1,
}  # fmt: skip


def step(number: int, loss: float | None, time: float = 101.0) -> Record:
    return {
        "event": "step", "time": time + number, "step": number, "phase": 1, "loss": loss, "mlm_loss": loss,
        "nsp_loss": None, "learning_rate": 1e-3, "gradient_norm": 2.0, "seconds": 0.5,
        "step_time_breakdown": {"data": 0.1, "forward": 0.2}, "tokens_per_second": 800.0, "eta_seconds": 3.0,
    }  # fmt: skip


def evaluation(number: int, loss: float) -> Record:
    return {"event": "evaluation", "time": 110.0, "step": number, "mlm_loss": loss, "unigram_loss": 6.0}


END: Record = {"event": "end", "time": 120.0, "step": 4, "reason": "finished", "seconds": 20.0}


def write(run: Path, records: Sequence[Record], *, tail: str = "") -> None:
    """A run folder with a journal; `tail` is half a line."""
    run.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (run / "journal.jsonl").write_text(lines + tail, encoding="utf-8")


def append(run: Path, records: Sequence[Record]) -> None:
    with (run / "journal.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
