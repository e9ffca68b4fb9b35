"""What a fine-tuning can be told, and what it tells while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from lambert.errors import UserError
from lambert.finetune.squad.features import WindowShape
from lambert.training.config.precision import Precision
from lambert.training.optimizer import LAYERWISE, check_optimizer


@dataclass(frozen=True)
class FineTuneSettings:
    """How a model is fine-tuned and asked."""

    optimizer: str = "adamw"
    """`adamw`, which BERT's recipe is for, or `lamb`."""
    learning_rate: float | None = None
    """Peak; None takes `default_learning_rate`."""
    epochs: int = 2
    """Passes over the training windows."""
    batch_size: int = 32
    """Windows of an optimizer step."""
    micro_batch_size: int = 8
    """Windows that go through the model at once: speed and memory, and the result by rounding and dropout."""
    warmup_share: float = 0.1
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = 0.01
    """λ of the decoupled weight decay."""
    clip_norm: float | None = 1.0
    """Largest L2 norm of the whole gradient; None leaves it alone."""
    precision: Precision = Precision.FLOAT32
    """float32 or bfloat16-autocast."""
    shape: WindowShape = field(default_factory=WindowShape)
    """Windows of training and evaluation, in tokens."""
    best: int = 20
    """Starts, ends and answers that are kept for a question."""
    answer_length: int = 30
    """Longest answer in tokens."""
    evaluation_batch_size: int = 32
    """Windows that are scored at once."""
    null_threshold: float = 0.0
    """SQuAD v2.0: where the odds of no answer (`AnswerCollector.null_odds`) are above this, the answer is none."""

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)
        if self.precision is Precision.BFLOAT16_MASTER:
            raise UserError("fine-tuning does not run in bfloat16-master", remedy="Choose float32 or bfloat16-autocast")
        whole_numbers = (
            "epochs",
            "batch_size",
            "micro_batch_size",
            "best",
            "answer_length",
            "evaluation_batch_size",
        )
        for name in whole_numbers:
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)}", remedy="Give a whole number from 1")
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} = {value}", remedy="Give a number above 0")
        if not math.isfinite(self.null_threshold):
            raise UserError(f"null_threshold = {self.null_threshold}", remedy="Give a number")
        if not 0 <= self.warmup_share <= 1 or self.weight_decay < 0:
            raise UserError(
                f"warmup_share = {self.warmup_share}, weight_decay = {self.weight_decay}",
                remedy="Give a share from 0 to 1 and a decay from 0",
            )


@dataclass(frozen=True)
class FineTuneProgress:
    """Where a fine-tuning is, after each step and each evaluation batch."""

    seed: int
    stage: Literal["training", "evaluating"]
    done: int
    """Optimizer steps, or windows while evaluating."""
    total: int
    seconds: float
    """Since the stage began."""
    loss: float | None = None
    """Of the last step."""
    learning_rate: float | None = None
    part: str = ""
    """Which of several fine-tunings this is, in words, such as "seed 1 (2 of 3)"."""


Progress = Callable[[FineTuneProgress], None]


def default_learning_rate(optimizer: str, hidden_size: int) -> float:
    """The peak for a model of this width.

    AdamW: 3e-5 from width 768 on (BERT's README); below, from the grid of Turc et al. 2019 (1908.08962), 1e-4
    from 512 on, else 3e-4. LAMB's rate is a share of a layer's own norm, so it is about 1/0.03 of AdamW's,
    where 0.03 is the root mean square of a BERT weight; a rule of thumb, nobody published one. So for LARS and LANS.
    """
    adamw = 3e-5 if hidden_size >= 768 else 1e-4 if hidden_size >= 512 else 3e-4
    return adamw / 0.03 if optimizer in LAYERWISE else adamw
