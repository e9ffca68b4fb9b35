"""The settings that all fine-tuning shares, and what it reports while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

from lambert.errors import UserError, unknown_name
from lambert.planning.hardware import inspect_hardware
from lambert.training.config.precision import Precision, resolve_precision
from lambert.training.optimizer import check_optimizer, is_layerwise

MIN_SEQUENCE_TOKENS = 8


@dataclass(frozen=True, kw_only=True)
class FineTuneSettings:
    """How a model is fine-tuned."""

    APPLIED_AFTERWARDS: ClassVar[tuple[str, ...]] = ()
    """Settings that are applied to the predictions and change no weight."""

    epochs: int
    batch_size: int = 32
    """Sequences of an optimizer step."""
    micro_batch_size: int = 8
    """Sequences of a forward pass: speed and memory, and the result by rounding and dropout."""
    evaluation_batch_size: int | None = None
    """Sequences of a forward pass while evaluating; None: as in a step."""
    sequence_length: int
    """Longest sequence in tokens, special tokens included."""
    optimizer: str = "adamw"
    """BERT's recipe is for `adamw`; `lamb`, `lars`, `lans` and `muon` work too."""
    learning_rate: float | None = None
    """Peak; None takes `default_learning_rate`."""
    warmup_ratio: float = 0.1
    """Fraction of the steps in which the learning rate rises."""
    weight_decay: float = 0.01
    """λ of the decoupled weight decay."""
    max_grad_norm: float | None = 1.0
    """Largest L2 norm of the whole gradient; None does not clip."""
    precision: Precision = Precision.FLOAT32
    """float32 or bfloat16-autocast."""

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)
        if self.precision is Precision.BFLOAT16_MASTER:
            raise UserError("fine-tuning does not run in bfloat16-master", remedy="Choose float32 or bfloat16-autocast")
        for field in fields(self):
            value, least = getattr(self, field.name), MIN_SEQUENCE_TOKENS if field.name == "sequence_length" else 1
            is_whole = isinstance(value, int) and value >= least
            if (field.type == "int" or (field.type == "int | None" and value is not None)) and not is_whole:
                raise UserError(f"`{field.name}` = {value}", remedy=f"Give a whole number from {least}")
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"`{name}` = {value}", remedy="Give a number above 0")
        if not 0 <= self.warmup_ratio <= 1:
            raise UserError(f"`warmup_ratio` = {self.warmup_ratio}", remedy="Give a fraction from 0 to 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"`weight_decay` = {self.weight_decay}", remedy="Give a number from 0")

    @classmethod
    def of(cls, settings: Self | None = None, **options: Any) -> Self:
        """The settings with some fields changed. `precision` may be a name; `auto` uses bfloat16 where it is faster.

        Raises:
            UserError: a field is unknown (the nearest name is offered) or out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown_name("argument", name, known)
        precision = options.get("precision", "auto" if settings is None else settings.precision)
        if not isinstance(precision, Precision):
            precision = resolve_precision(precision, bfloat16_gains=inspect_hardware().bfloat16_gains)
        options["precision"] = precision
        return cls(**options) if settings is None else replace(settings, **options)

    def resolved(self, hidden_size: int) -> Self:
        """The same with a learning rate for a model of this width, where none is set."""
        return replace(self, learning_rate=self.learning_rate or default_learning_rate(self.optimizer, hidden_size))


@dataclass(frozen=True)
class FineTuneProgress:
    """Where a fine-tuning is, after each step and each evaluation batch."""

    seed: int
    stage: Literal["training", "evaluating"]
    done: int
    """Optimizer steps, or sequences while evaluating."""
    total: int
    seconds: float
    """Since the stage began."""
    loss: float | None = None
    """Of the last step."""
    learning_rate: float | None = None
    run: str = ""
    """Which of several fine-tunings this is, such as "seed 1 (2 of 3)"."""


Progress = Callable[[FineTuneProgress], None]


def check_rates(rates: Sequence[float], settings: FineTuneSettings) -> None:
    """Raises UserError where learning rates to choose from are given twice, beside a fixed one, or out of range."""
    if rates and settings.learning_rate is not None:
        raise UserError("both `learning_rate` and `learning_rates` are given", remedy="Give one of them")
    if len({f"{rate:g}" for rate in rates}) != len(rates):
        raise UserError(f"`learning_rates` = {list(rates)}", remedy="Give each once")
    for rate in rates:
        replace(settings, learning_rate=rate)  # refuses what is out of range


def default_learning_rate(optimizer: str, hidden_size: int) -> float:
    """The peak for a model of this width.

    AdamW: 3e-5 from width 768 on (BERT's README); below, from the grid of Turc et al. 2019 (1908.08962), 1e-4
    from 512 on, else 3e-4. LAMB's rate is relative to a layer's own norm, so it is about 1/0.03 of AdamW's,
    where 0.03 is the root mean square of a BERT weight. That is a rule of thumb without a published source. LARS and
    LANS use it too.
    """
    adamw = 3e-5 if hidden_size >= 768 else 1e-4 if hidden_size >= 512 else 3e-4
    return adamw / 0.03 if is_layerwise(optimizer) else adamw
