"""The fields of journal events about the run, its steps, checkpoints and incidents (docs/journal.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from lambert.corpus.store import Corpus
from lambert.runlog.schema import SPIKE_FIELDS
from lambert.training.checkpoint.async_writer import CheckpointInfo
from lambert.training.config.phase import Phase
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.metrics.execution_info import describe_execution
from lambert.training.metrics.spike_detector import Spike, moved_layers
from lambert.training.step.train_step import StepResult


def run_facts(
    settings: TrainingConfig, corpus: Corpus, processes: ProcessGroup, trainer_options: TrainerOptions
) -> dict[str, Any]:
    """Of the `run` event: what is known before the first step."""
    return {
        "model": settings.model_name,
        "optimizer": settings.optimizer,
        "precision": settings.precision.value,
        "execution": describe_execution(settings, processes, trainer_options),
        "seed": settings.seed,
        "micro_batch_size": list(settings.micro_batch_sizes),
        "world_size": processes.world_size,
        "deterministic": settings.deterministic,
        "total_steps": settings.total_steps,
        "corpus": {
            "path": str(corpus.path),
            "fingerprint": corpus.fingerprint,
            "tokens": corpus.split("train").token_count,
        },
    }


def step_facts(step: int, phase: Phase, result: StepResult) -> dict[str, Any]:
    """Of the `step` event, except throughput."""
    return {
        "step": step,
        "phase": phase.number,
        "loss": result.loss,
        "mlm_loss": result.losses["mlm"],
        "nsp_loss": result.losses.get("nsp"),
        "mlm_accuracy": result.accuracies["mlm"],
        "nsp_accuracy": result.accuracies.get("nsp"),
        "mask_token_loss": result.losses["mask"],
        "mask_token_accuracy": result.accuracies["mask"],
        "learning_rate": phase.learning_rate(step),
        "gradient_norm": result.gradient_norm,
    }


def skipped_facts(step: int, phase: Phase, reason: str, **more: Any) -> dict[str, Any]:
    """Of the `skipped` event: a step that was not applied, and its samples."""
    first, _ = phase.samples_of(step, 0)
    samples = {"first": first, "count": phase.config.batch_size}
    return {"step": step, "phase": phase.number, "reason": reason, "samples": samples, **more}


def spike_facts(
    step: int, phase: Phase, spikes: Sequence[Spike], before: Mapping[str, float], now: Mapping[str, float]
) -> dict[str, Any]:
    """Of the `spike` event: the metrics that rose, and the layers that changed most since the last `trust_ratios`."""
    first, _ = phase.samples_of(step, 0)
    return {
        "step": step,
        "phase": phase.number,
        "spikes": [dict(zip(SPIKE_FIELDS, astuple(spike), strict=True)) for spike in spikes],
        "moved_layers": moved_layers(before, now),
        "samples": {"first": first, "count": phase.config.batch_size},
    }


def saved_facts(facts: Mapping[str, Any], command: str, settings: TrainingConfig) -> dict[str, Any]:
    """What a checkpoint says of its run: enough to write `recipe.toml` again, and to name the version to install."""
    versions = {name: facts.get(name) for name in ("lambert", "torch")}
    return {"versions": versions, "command": command, "recipe": settings.as_tables()}


def checkpoint_facts(run: Path, saved: CheckpointInfo) -> dict[str, Any]:
    """Of the `checkpoint` event."""
    path = str(saved.path.relative_to(run))
    return {"step": saved.step, "path": path, "bytes": saved.size_bytes, "seconds": saved.seconds}
