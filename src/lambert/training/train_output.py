"""Results of a run for its caller: the metrics of a step, and the outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from lambert.training.step.pretraining_loss import Evaluation


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step, over the whole global batch; losses in nats, before the update."""

    step: int
    phase: int
    loss: float
    """MLM loss plus NSP loss; NaN if it was not finite and the step was skipped."""
    mlm_loss: float
    """Of all masked tokens: as in BERT a tenth keep the token and a tenth get a random one."""
    nsp_loss: float | None
    mlm_accuracy: float
    nsp_accuracy: float | None
    mask_token_loss: float
    """MLM loss at [MASK] tokens alone, which is what evaluations measure; NaN where the batch has none."""
    mask_token_accuracy: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    tokens_per_second: float
    """Without padding, over all ranks."""
    mfu: float
    """Model FLOPs utilization: model FLOP/s over the measured peak of large matmuls."""
    eta_seconds: float
    """Estimated time to the end of the run."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """Build from the journal's `step` record."""
        return cls(**{field.name: record[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class TrainOutput:
    """How a run ended."""

    out: Path
    """The run's folder: recipe, journal, checkpoints, and once finished the Hugging Face model and the report."""
    step: int
    """Steps done, earlier sessions included."""
    finished: bool
    """False if it was stopped before its last step."""
    resumed_from_step: int
    """0 for a new run."""
    evaluation: Evaluation | None
    """The last evaluation of this session."""
    seconds: float
    """Duration of this session."""
    signal: int = 0
    """Number of the signal that stopped the run; 0 without one."""

    @property
    def metrics(self) -> dict[str, float]:
        """The last evaluation as `eval_mlm_loss`, `eval_unigram_loss`, …, and `step`, `train_seconds`."""
        found = {} if self.evaluation is None else asdict(self.evaluation)
        evaluated = {f"eval_{name}": value for name, value in found.items() if value is not None}
        return {**evaluated, "step": self.step, "train_seconds": self.seconds}
