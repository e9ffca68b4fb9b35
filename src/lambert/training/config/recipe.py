"""A recipe: the hyperparameters of each phase, given or derived by the square-root rule; and the resolved phases.

`scaling_rules.py` derives what a recipe leaves open; `recipe_io.py` reads named and custom recipes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lambert.errors import UserError
from lambert.training.config import scaling_rules
from lambert.training.config.lr_scheduler import LRSchedulerChoice
from lambert.training.config.phase_config import DerivedValue, PhaseConfig, Provenance
from lambert.training.config.phase_recipe import MOST_SAMPLES, PhaseRecipe
from lambert.training.optimizer import check_optimizer

MOST_PHASES = 32


@dataclass(frozen=True)
class Recipe:
    """The phases of a run, and its global hyperparameters; None takes the default."""

    name: str
    phases: tuple[PhaseRecipe, ...]
    source: str = ""
    """Source of its numbers."""
    notes: tuple[str, ...] = ()
    """Caveats, one sentence each."""
    provenance: Provenance = "given"
    """Provenance of its numbers."""
    samples: int | None = None
    """Total sequences, if neither the phases nor the user set them."""
    model: str | None = None
    architecture: str | None = None
    optimizer: str | None = None
    betas: tuple[float, float] | None = None
    epsilon: float | None = None
    weight_decay: float | None = None
    max_grad_norm: float | None = None
    ema_decay: float | None = None
    dropout: float | None = None
    attention_dropout: float | None = None
    """Of attention weights, where it is another than `dropout`."""
    pairs: str | None = None
    masking: str | None = None
    mlm_probability: float | None = None
    mlm_probability_end: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.phases) <= MOST_PHASES:
            raise UserError(f"{len(self.phases)} phases", remedy=f"Give from 1 to {MOST_PHASES}")
        if self.phases[0].continues:
            raise UserError(
                "the first phase has continues = true, but no phase comes before it", remedy="Leave it out there"
            )
        for number, phase in enumerate(self.phases, start=1):
            if phase.continues and (own := phase.own_schedule):
                raise UserError(
                    f"phase {number} continues the previous phase, but sets {' and '.join(own)}",
                    remedy="Set the schedule in the first of these phases, or leave out continues = true",
                )
        for name in ("share", "steps"):
            count = sum(getattr(phase, name) is not None for phase in self.phases)
            if count not in (0, len(self.phases)):
                raise UserError(f"{count} of {len(self.phases)} phases have {name}", remedy="Give all of them or none")
        if (self.phases[0].share is None) == (self.phases[0].steps is None):
            raise UserError(
                "a phase sets neither or both of share and steps",
                remedy="Give every phase a share, or every phase steps",
            )
        total = sum(phase.share or 0 for phase in self.phases)
        if self.phases[0].steps is None and abs(total - 1) > 1e-6:
            raise UserError(f"the shares of the phases sum to {total:g}", remedy="Give shares whose sum is 1")

    @property
    def shares(self) -> tuple[float, ...]:
        """Fraction of the samples, by phase."""
        own = [phase.share or (phase.steps or 0) * phase.batch_size for phase in self.phases]
        return tuple(own) if self.phases[0].steps is None else tuple(part / sum(own) for part in own)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Sequences in a step, by phase."""
        return tuple(phase.batch_size for phase in self.phases)

    @property
    def sequence_lengths(self) -> tuple[int, ...]:
        """Tokens in a sequence, by phase."""
        return tuple(phase.sequence_length for phase in self.phases)


def recipe_by_rule(
    batch_sizes: Sequence[int],
    sequence_lengths: Sequence[int] = (128, 512),
    shares: Sequence[float] = (),
    *,
    name: str = "sqrt",
) -> Recipe:
    """A recipe with given batch sizes, lengths and fractions; the rule derives the rest.

    Args:
        batch_sizes: one for all phases, or one for each.
        sequence_lengths: one for each phase.
        shares: fractions of the samples; default 9/10 and 1/10 for two phases, as in BERT, and 1 for one.

    Raises:
        UserError: they are inconsistent, or one is out of range.
    """
    count = len(sequence_lengths)
    if len(batch_sizes) not in (1, count):
        raise UserError(
            f"{len(batch_sizes)} batch sizes for {count} sequence length{'s' * (count != 1)}",
            remedy="Give one for all phases or one for each; `sequence_lengths` says how many phases there are",
        )
    if not shares:
        if count > 2:
            raise UserError(
                f"{count} phases without phase fractions",
                remedy="Give `phase_fractions`, the fraction of the samples in each phase",
            )
        shares = (0.9, 0.1)[:count] if count == 2 else (1.0,)
    if len(shares) != count:
        raise UserError(
            f"{len(shares)} phase fractions for {count} sequence lengths", remedy="Give one for each phase, with sum 1"
        )
    sizes = tuple(batch_sizes) * count if len(batch_sizes) == 1 else tuple(batch_sizes)
    parts = zip(sequence_lengths, sizes, shares, strict=True)
    return Recipe(name, tuple(PhaseRecipe(length, size, share) for length, size, share in parts))


def make_phases(
    recipe: Recipe,
    *,
    samples: int | None,
    optimizer: str = "lamb",
    learning_rate: float | None = None,
    learning_rate_multiplier: float = 1.0,
    warmup_ratio: float | None = None,
    scheduler: LRSchedulerChoice | None = None,
    is_continued: bool = False,
    architecture: str = "bert",
) -> tuple[PhaseConfig, ...]:
    """The phases of a run: the recipe's numbers, with the rule's for those it leaves open.

    Args:
        samples: total sequences; None takes the recipe's steps. If both are given, every phase keeps its fraction of
            the steps, its learning rate and its warm-up ratio.
        learning_rate: replaces the recipe's peak in all phases.
        learning_rate_multiplier: multiplies every peak.
        warmup_ratio: replaces the recipe's warm-up ratio in all phases.
        scheduler: replaces what follows the warm-up in all schedules.
        is_continued: the model is trained already, so that the rule's rates and warm-up are those for continuing.
        architecture: whose rates the rule gives.

    Raises:
        UserError: a number is out of range, or there are too few samples for a step in each phase.
    """
    check_optimizer(optimizer)
    given = {"peak_learning_rate": learning_rate, "warmup_ratio": warmup_ratio}
    override: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if warmup_ratio is not None:
        override["warmup_steps"] = None
    shape = {} if scheduler is None else scheduler.phase_fields
    stated = tuple(phase if phase.continues else replace(phase, **override, **shape) for phase in recipe.phases)
    is_own = samples is None and stated[0].steps is not None
    if is_own:
        samples = sum((phase.steps or 0) * phase.batch_size for phase in stated)
    elif stated[0].steps is not None:
        recipe = replace(recipe, provenance="given" if recipe.provenance == "given" else "extrapolated")
    if samples is None:
        raise UserError(f"the recipe {recipe.name} sets no number of samples", remedy="Give `samples` or `epochs`")
    _check_numbers(samples, learning_rate_multiplier)
    counts = _steps(recipe, samples, optimizer, is_own=is_own)
    phases: list[PhaseConfig] = []
    theta: float | None = None
    for index, (phase, steps) in enumerate(zip(stated, counts, strict=True)):
        theta = theta if phase.global_rope_theta is None else phase.global_rope_theta
        if phase.continues:
            phases.append(replace(_continued(phases[-1], phase, steps), global_rope_theta=theta))
            continue
        continuing = itertools.takewhile(lambda at: stated[at].continues, range(index + 1, len(stated)))
        span = [index, *continuing]
        total = sum(int(counts[at].value) for at in span)
        open_numbers = _Numbers(recipe, phase, samples, optimizer, frozenset(override), is_continued, architecture)
        warmup = open_numbers.warmup(total, None if is_own else sum(stated[at].steps or 0 for at in span))
        peak = open_numbers.peak(learning_rate_multiplier)
        own = PhaseConfig(phase.sequence_length, phase.batch_size, steps, peak, warmup, global_rope_theta=theta)
        phases.append(replace(own, **_shape(phase, total, int(warmup.value), scheduler)))
    return tuple(phases)


def _shape(phase: PhaseRecipe, total: int, warmup: int, scheduler: LRSchedulerChoice | None) -> dict[str, Any]:
    """Fields of `PhaseConfig` that describe a schedule of `total` steps after its warm-up."""
    stable = round(phase.stable_ratio * total) if scheduler is None else scheduler.stable_steps(total, warmup)
    return {
        "stable_steps": min(stable, total - warmup),
        "decay": phase.decay,
        "decay_power": phase.decay_power,
        "decays_from_start": phase.decays_from_start,
        "min_lr_ratio": phase.min_lr_ratio,
        "cooldown_steps": min(round(phase.cooldown_ratio * total), total - warmup),
    }


def _check_numbers(samples: int, multiplier: float) -> None:
    if not 1 <= samples <= MOST_SAMPLES:
        raise UserError(f"{samples} samples", remedy=f"Give a whole number of sequences from 1 to {MOST_SAMPLES:,}")
    if not 0 < multiplier < math.inf:
        raise UserError(f"{multiplier} times the learning rate", remedy="Give a number above 0")


def _continued(before: PhaseConfig, phase: PhaseRecipe, steps: DerivedValue) -> PhaseConfig:
    """A phase that continues the schedule of the previous one."""
    return replace(
        before,
        sequence_length=phase.sequence_length,
        batch_size=phase.batch_size,
        steps=steps,
        warmup_steps=DerivedValue(0, "continues the schedule of the phase before", steps.provenance),
        stable_steps=0,
        cooldown_steps=0,
        continues=True,
    )


def _steps(recipe: Recipe, samples: int, optimizer: str, *, is_own: bool) -> list[DerivedValue]:
    sizes, shares = recipe.batch_sizes, recipe.shares
    if is_own:
        return [DerivedValue(phase.steps or 0, f"recipe {recipe.name}", recipe.provenance) for phase in recipe.phases]
    if recipe.name == "paper":
        scaling_rules.refuse_other_runs(samples, sizes, shares, optimizer)
        if sizes == scaling_rules.PAPER_MIXED_BATCH:
            return scaling_rules.pinned_steps()
    return scaling_rules.step_counts(
        samples, sizes, shares, scaling_rules.rule_provenance(samples, sizes, shares, optimizer)
    )


@dataclass(frozen=True)
class _Numbers:
    """Peak and warm-up of one phase: the user's, the recipe's, or the rule's."""

    recipe: Recipe
    phase: PhaseRecipe
    samples: int
    optimizer: str
    overridden: frozenset[str]
    is_continued: bool
    architecture: str

    @property
    def _by_rule(self) -> Provenance:
        return scaling_rules.rule_provenance(self.samples, self.recipe.batch_sizes, self.recipe.shares, self.optimizer)

    def peak(self, multiplier: float) -> DerivedValue:
        """The learning rate times the user's multiplier."""
        own = self._peak()
        if multiplier == 1:
            return own
        return DerivedValue(multiplier * own.value, f"{multiplier:g} · ({own.formula})", "given")

    def _peak(self) -> DerivedValue:
        rate = self.phase.peak_learning_rate
        if rate is None and self.is_continued:
            return scaling_rules.continued_learning_rate(self.samples, self.phase.batch_size, self.optimizer)
        if rate is None:
            return scaling_rules.peak_learning_rate(
                self.samples, self.phase.batch_size, self.optimizer, self._by_rule, self.architecture
            )
        if "peak_learning_rate" in self.overridden:
            return DerivedValue(rate, "--learning-rate", "given")
        return DerivedValue(rate, f"recipe {self.recipe.name}", self.recipe.provenance)

    def warmup(self, steps: int, stated_steps: int | None) -> DerivedValue:
        """Warm-up of a schedule of `steps`; `stated_steps` are the recipe's own if they differ, else None."""
        share, formula = self.phase.warmup_ratio, f"recipe {self.recipe.name}"
        if self.phase.warmup_steps is not None:
            own = self.phase.warmup_steps
            if stated_steps:
                own, formula = round(own / stated_steps * steps), f"{own:,}/{stated_steps:,} · steps, {formula}"
            if own > steps:
                raise UserError(
                    f"recipe {self.recipe.name}: {own:,} steps of warm-up in a phase of {steps:,}",
                    remedy="Give fewer warmup_steps, or warmup_ratio",
                )
            return DerivedValue(own, formula, self.recipe.provenance)
        if share is None and self.is_continued:
            return scaling_rules.continued_warmup_steps(steps)
        if share is None:
            return scaling_rules.warmup_steps(self.samples, self.phase.batch_size, steps, self._by_rule)
        if "warmup_ratio" in self.overridden:
            return DerivedValue(round(share * steps), "--warmup-ratio · steps", "given")
        return DerivedValue(round(share * steps), f"{share:g} · steps, {formula}", self.recipe.provenance)
