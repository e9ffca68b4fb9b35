"""The one knob: from the batch size(s) and the number of samples, every other number of a two-phase run.

S samples in all, B sequences in a batch, T steps. Each number carries the formula it came from and whether that
formula was published for such a run, is stretched beyond what was published, or was fitted here (docs/recipes.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lambert.errors import UserError, unknown_name

Provenance = Literal["published", "extrapolated", "fitted here", "given"]

PAPER_SAMPLES = 512_000_000
"""1,000,000 steps of 512 sequences: the fixed number of epochs of every run in the LAMB paper."""
PAPER_BATCH_SIZES = (512, 32_768)
"""The paper's range for one batch size in both phases."""
LEARNING_RATE_TIMES_ROOT_STEPS = 0.625
"""5e-3 · √15,625 at batch 32,768; the square-root rule keeps it the same at every published batch."""
PAPER_WARMUP_STEPS = 3_125
"""Share B / 163,840 of S / B steps, with S = 512 million: 3,125 steps at every batch (LEGW, arXiv 1901.08256)."""
FIRST_PHASE_SHARE = 0.9
"""BERT's share of samples at the short length."""

LEARNING_RATE_CAP = {"lamb": 2e-2, "adamw": 2e-3}
ADAMW_RATE_TIMES_ROOT_STEPS = 0.1
SHORT_RUN_WARMUP_SHARE = 0.1

OPTIMIZERS = ("lamb", "adamw")
RULES = ("sqrt", "paper")


@dataclass(frozen=True)
class Number:
    """A number of the recipe and where it came from."""

    value: int | float
    formula: str
    provenance: Provenance


@dataclass(frozen=True)
class Phase:
    """One phase: a sequence length, a batch size and a warm-up from zero of its own."""

    sequence_length: int
    """Tokens in a full sequence."""
    batch_size: int
    """Sequences in a step, over all micro-batches and processes."""
    steps: Number
    peak_learning_rate: Number
    warmup_steps: Number

    @property
    def step_count(self) -> int:
        """`steps` as a whole number."""
        return int(self.steps.value)

    @property
    def samples(self) -> int:
        """Sequences seen, steps · batch size."""
        return self.step_count * self.batch_size

    @property
    def tokens(self) -> int:
        """Token slots seen, padding included."""
        return self.samples * self.sequence_length


def round_half_up(value: float) -> int:
    """The nearest whole number, halves upwards."""
    return math.floor(value + 0.5)


def make_phases(
    *,
    samples: int,
    batch_sizes: tuple[int, ...],
    sequence_lengths: tuple[int, int] = (128, 512),
    optimizer: str = "lamb",
    rule: str = "sqrt",
    learning_rate: float | None = None,
    warmup_share: float | None = None,
) -> tuple[Phase, Phase]:
    """The two phases of a run.

    Args:
        samples: sequences to see in all.
        batch_sizes: one for both phases, or one for each (a mixed batch).
        rule: `sqrt`, or `paper`, which pins the published step counts of the 64K/32K run.
        learning_rate: peak of both phases in place of the rule's.
        warmup_share: share of each phase's steps in place of the rule's.

    Raises:
        UserError: a number is out of range, or there are too few samples for a step in each phase.
    """
    if optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", optimizer, OPTIMIZERS)
    if rule not in RULES:
        raise unknown_name("recipe", rule, RULES)
    _check(samples, batch_sizes, sequence_lengths, learning_rate, warmup_share)
    first_batch, second_batch = batch_sizes[0], batch_sizes[-1]
    counts = _step_counts(samples, first_batch, second_batch, rule)
    phases = []
    for length, batch_size, steps in zip(sequence_lengths, (first_batch, second_batch), counts, strict=True):
        peak = (
            Number(learning_rate, "--learning-rate", "given")
            if learning_rate is not None
            else _peak_learning_rate(samples, batch_size, optimizer)
        )
        warmup = _warmup_steps(samples, batch_size, int(steps.value), warmup_share)
        phases.append(Phase(length, batch_size, steps, peak, warmup))
    return phases[0], phases[1]


def _check(
    samples: int,
    batch_sizes: tuple[int, ...],
    sequence_lengths: tuple[int, int],
    learning_rate: float | None,
    warmup_share: float | None,
) -> None:
    if len(batch_sizes) not in (1, 2):
        raise UserError(f"{len(batch_sizes)} batch sizes", remedy="Give one for both phases or one for each of the two")
    for batch_size in batch_sizes:
        if batch_size < 1:
            raise UserError(f"batch size {batch_size}", remedy="Give a whole number of sequences from 1")
    for length in sequence_lengths:
        if not length >= 8:
            raise UserError(f"sequence length {length}", remedy="Give a whole number of tokens from 8")
    if samples < 1:
        raise UserError(f"{samples} samples", remedy="Give a whole number of sequences from 1")
    if learning_rate is not None and not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise UserError(f"learning rate {learning_rate}", remedy="Give a number above 0")
    if warmup_share is not None and not 0 <= warmup_share <= 1:
        raise UserError(f"warm-up share {warmup_share}", remedy="Give a share from 0 to 1")


def _step_counts(samples: int, first_batch: int, second_batch: int, rule: str) -> tuple[Number, Number]:
    if rule == "paper" and (samples, first_batch, second_batch) == (PAPER_SAMPLES, 65_536, 32_768):
        return (
            Number(7_037, f"pinned to the paper's 8,599 − 1,562; the rule gives {7_031:,}", "published"),
            Number(1_562, "pinned to the paper's 8,599 − 7,037", "published"),
        )
    is_published = samples == PAPER_SAMPLES and _is_paper_batch(first_batch) and first_batch == second_batch
    provenance: Provenance = "published" if is_published else "extrapolated"
    if first_batch == second_batch:
        total = round(samples / first_batch)
        first = round_half_up(FIRST_PHASE_SHARE * total)
        second = total - first
        formulas = ("round(0.9 · round(S/B))", "round(S/B) − phase 1")
    else:
        first = round(FIRST_PHASE_SHARE * samples / first_batch)
        second = round((1 - FIRST_PHASE_SHARE) * samples / second_batch)
        formulas = ("round(0.9 · S/B)", "round(0.1 · S/B)")
    if first < 1 or second < 1:
        needed = max(10 * second_batch, round(first_batch / FIRST_PHASE_SHARE))
        raise UserError(
            f"{samples:,} samples make {max(first, 0)} + {max(second, 0)} steps of batch "
            f"{first_batch:,} and {second_batch:,}, and each phase needs one",
            remedy=f"Ask for at least {needed:,} samples (more epochs, more text) or a smaller batch",
        )
    return Number(first, formulas[0], provenance), Number(second, formulas[1], provenance)


def _is_paper_batch(batch_size: int) -> bool:
    return PAPER_BATCH_SIZES[0] <= batch_size <= PAPER_BATCH_SIZES[1]


def _peak_learning_rate(samples: int, batch_size: int, optimizer: str) -> Number:
    """c · √(B/S), which is c / √T when both phases share a batch size; capped where runs are short."""
    root = math.sqrt(batch_size / samples)
    cap = LEARNING_RATE_CAP[optimizer]
    if optimizer == "adamw":
        rate = ADAMW_RATE_TIMES_ROOT_STEPS * root
        formula = f"min({ADAMW_RATE_TIMES_ROOT_STEPS} · √(B/S), {cap})"
        return Number(min(rate, cap), formula, "fitted here")
    rate = LEARNING_RATE_TIMES_ROOT_STEPS * root
    if rate > cap:
        return Number(cap, f"cap; {LEARNING_RATE_TIMES_ROOT_STEPS} · √(B/S) would be {rate:.2g}", "fitted here")
    if samples == PAPER_SAMPLES:
        published = _is_paper_batch(batch_size)
        return Number(rate, "5e-3 · √(B/32,768)", "published" if published else "extrapolated")
    return Number(rate, f"{LEARNING_RATE_TIMES_ROOT_STEPS} · √(B/S)", "extrapolated")


def _warmup_steps(samples: int, batch_size: int, steps: int, share: float | None) -> Number:
    if share is not None:
        return Number(round(share * steps), "--warmup-share · steps", "given")
    paper_share = PAPER_WARMUP_STEPS * batch_size / PAPER_SAMPLES
    if samples == PAPER_SAMPLES and paper_share <= 0.5:
        published = _is_paper_batch(batch_size)
        return Number(round(paper_share * steps), "steps · B/163,840", "published" if published else "extrapolated")
    return Number(round(SHORT_RUN_WARMUP_SHARE * steps), f"{SHORT_RUN_WARMUP_SHARE} · steps", "fitted here")
