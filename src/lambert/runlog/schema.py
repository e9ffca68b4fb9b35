"""The names in a run folder, each said once: files, and the journal's events and fields.

docs/journal.md explains every field. A change of a name is a new format: raise FORMAT_VERSION with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

FORMAT_VERSION = 2
"""Of the journal; the `run` event carries it. Readers refuse every other one."""

JOURNAL_FILE = "journal.jsonl"
RECIPE_FILE = "recipe.toml"
REPORT_FILE = "report.html"
SKIPPED_FILE = "skipped_steps.json"
"""Steps that a run rolled back over and does not take again."""


class Event(StrEnum):
    """What a record reports."""

    RUN = "run"
    PHASE = "phase"
    STEP = "step"
    MICRO_BATCH = "micro_batch"
    SKIPPED = "skipped"
    SPIKE = "spike"
    ROLLBACK = "rollback"
    DAMAGED = "damaged"
    TRUST_RATIOS = "trust_ratios"
    EVALUATION = "evaluation"
    FILL = "fill"
    NOISE = "noise"
    CHECKPOINT = "checkpoint"
    END = "end"
    OUTCOME = "outcome"


INCIDENTS = (Event.DAMAGED, Event.SKIPPED, Event.SPIKE, Event.ROLLBACK, Event.MICRO_BATCH)
"""Events that report a problem and how the run dealt with it."""

RUN_FIELDS = (
    "format_version", "lambert", "torch", "python", "host", "precision", "seed", "parameters", "model", "optimizer",
    "corpus", "micro_batch_size", "execution", "peak_matmul_flops_per_second", "world_size", "deterministic",
    "total_steps", "resumed_from_step", "initial_weights",
)  # fmt: skip
PHASE_COUNTS = ("phase", "sequence_length", "batch_size", "first_step", "steps", "warmup_steps")
LOSSES = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
MASK_TOKEN_METRICS = ("mask_token_loss", "mask_token_accuracy")
"""Of a step, at [MASK] tokens alone, as evaluations measure; older journals lack them."""
TRAINING_METRICS = ("loss", *LOSSES, *MASK_TOKEN_METRICS, "learning_rate", "gradient_norm")
THROUGHPUT_METRICS = ("seconds", "sequences_per_second", "tokens_per_second", "model_flops_per_second", "mfu")
BREAKDOWN = "step_time_breakdown"
"""Of a step: an object with the seconds of each of these parts."""
STEP_PARTS = ("data", "forward", "backward", "communication", "optimizer")
BASELINES = ("nsp_majority_accuracy", "unigram_loss", "unigram_accuracy")
EVALUATION_METRICS = (*LOSSES, *BASELINES, "masked_tokens")
NOISE_COUNTS = ("step", "phase", "small_batch", "large_batch", "steps")
NOISE_METRICS = ("noise_scale", "standard_error")
SPIKE_FIELDS = ("metric", "value", "window_mean", "z_score")

FIELDS: Mapping[Event, tuple[str, ...]] = {
    Event.RUN: RUN_FIELDS,
    Event.PHASE: (*PHASE_COUNTS, "peak_learning_rate", "continues"),
    Event.STEP: ("step", "phase", *TRAINING_METRICS, *THROUGHPUT_METRICS, BREAKDOWN, "eta_seconds"),
    Event.MICRO_BATCH: ("step", "phase", "micro_batch_size", "reason"),
    Event.SKIPPED: ("step", "phase", "reason", "samples", "non_finite_samples", "consecutive"),
    Event.SPIKE: ("step", "phase", "samples", "spikes", "moved_layers"),
    Event.ROLLBACK: ("step", "to_step"),
    Event.DAMAGED: ("step", "problems"),
    Event.TRUST_RATIOS: ("step", "trust_ratios"),
    Event.EVALUATION: ("step", *EVALUATION_METRICS),
    Event.FILL: ("text", "candidates"),
    Event.NOISE: (*NOISE_COUNTS, "noise", "signal", *NOISE_METRICS),
    Event.CHECKPOINT: ("step", "path", "bytes", "seconds"),
    Event.END: ("step", "reason", "seconds"),
    Event.OUTCOME: ("seconds", "memory_bytes", "predicted"),
}
"""Every field of every event, but for `event` and `time`, which all records have."""
