"""What the journal says of a run, a step, a checkpoint and a fault (fields in docs/journal.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lambert.corpus.store import Corpus
from lambert.training.checkpoint.async_writer import Saved
from lambert.training.config.phase import Part
from lambert.training.config.trainer_options import Housekeeping
from lambert.training.config.training_config import RunSettings
from lambert.training.distributed.process_group import Processes
from lambert.training.metrics.execution_info import describe_path
from lambert.training.metrics.spike_detector import Spike, moved_layers
from lambert.training.step.train_step import StepResult


def run_facts(
    settings: RunSettings, corpus: Corpus, processes: Processes, housekeeping: Housekeeping
) -> dict[str, Any]:
    """Of the `run` event: everything that can be known before the first step."""
    return {
        "model": settings.model_name,
        "optimizer": settings.optimizer,
        "precision": settings.precision.value,
        "path": describe_path(settings, processes, housekeeping),
        "seed": settings.seed,
        "micro_batch_size": list(settings.micro_batch_sizes),
        "processes": processes.count,
        "deterministic": settings.deterministic,
        "total_steps": settings.total_steps,
        "corpus": {
            "path": str(corpus.path),
            "fingerprint": corpus.fingerprint,
            "tokens": corpus.split("train").token_count,
        },
    }


def step_facts(step: int, part: Part, result: StepResult) -> dict[str, Any]:
    """Of the `step` event, but for its speed."""
    return {
        "step": step,
        "phase": part.number,
        "loss": result.loss,
        "masked_word_loss": result.losses["masked_word"],
        "next_sentence_loss": result.losses.get("next_sentence"),
        "masked_word_accuracy": result.accuracies["masked_word"],
        "next_sentence_accuracy": result.accuracies.get("next_sentence"),
        "learning_rate": part.learning_rate(step),
        "gradient_norm": result.gradient_norm,
    }


def skipped_facts(step: int, part: Part, reason: str, **more: Any) -> dict[str, Any]:
    """Of the `skipped` event: a step that changed nothing, and which samples it would have learned from."""
    first, _ = part.samples_of(step, 0)
    samples = {"first": first, "count": part.phase.batch_size}
    return {"step": step, "phase": part.number, "reason": reason, "samples": samples, **more}


def spike_facts(
    step: int, part: Part, spikes: Sequence[Spike], before: Mapping[str, float], now: Mapping[str, float]
) -> dict[str, Any]:
    """Of the `spike` event: what rose, and which layers moved since their figures were last written down."""
    first, _ = part.samples_of(step, 0)
    return {
        "step": step,
        "phase": part.number,
        "spikes": [asdict(spike) for spike in spikes],
        "moved_layers": moved_layers(before, now),
        "samples": {"first": first, "count": part.phase.batch_size},
    }


def checkpoint_facts(run: Path, saved: Saved) -> dict[str, Any]:
    """Of the `checkpoint` event."""
    path = str(saved.path.relative_to(run))
    return {"step": saved.step, "path": path, "bytes": saved.size_bytes, "seconds": saved.seconds}
