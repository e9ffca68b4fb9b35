"""The one knob: from the batch size(s) and the number of samples, every other number of a two-phase run.

S samples in all, B sequences in a batch, T steps. Each number carries the formula it came from and whether that
formula was published for such a run, is stretched beyond what was published, or was fitted here (docs/recipes.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lambert.errors import UserError, unknown_name
from lambert.training.optimizers import LAYERWISE, check_optimizer

Provenance = Literal["published", "extrapolated", "fitted here", "given"]

PAPER_SAMPLES = 512_000_000
"""1,000,000 steps of 512 sequences: the fixed number of epochs of every run in the LAMB paper."""
PAPER_BATCH_SIZES = (512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768)
"""The paper's runs with one batch size in both phases."""
PAPER_MIXED_BATCH = (65_536, 32_768)
"""The paper's run with two; its learning rates and warm-up were not published."""
LEARNING_RATE_TIMES_ROOT_STEPS = 0.625
"""5e-3 · √15,625 at batch 32,768; the square-root rule keeps it the same at every published batch."""
PAPER_WARMUP_STEPS = 3_125
"""Share B / 163,840 of S / B steps, with S = 512 million: 3,125 steps at every batch (LEGW, arXiv 1901.08256)."""
LARGEST_PAPER_WARMUP_SHARE = 0.2
"""At batch 32,768. Shorter runs are held to it; larger batches may warm up for B / 163,840, at most half a phase."""
LARGEST_WARMUP_SHARE = 0.5
FIRST_PHASE_SHARE = 0.9
"""BERT's share of samples at the short length."""

LARGEST_PAPER_RATE = 5e-3
"""At batch 32,768 and 15,625 steps; larger batches may go on with the square root."""
SHORT_RATE_TIMES_ROOT_STEPS = 0.24
LARGEST_SHORT_RATE = 1e-2
"""Where few steps would carry 0.625 / √T beyond the paper's rates, its largest is kept down to 2,304 steps. Both
numbers are fitted here (docs/recipes.md)."""
ADAMW_RATE_CAP = 2e-3
"""Fitted here."""
ADAMW_RATE_TIMES_ROOT_STEPS = 0.1

SHORTEST_SEQUENCE, LONGEST_SEQUENCE = 8, 8_192
MOST_SAMPLES = 10**15

RECIPES = ("sqrt", "paper")


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
    recipe: str = "sqrt",
    learning_rate: float | None = None,
    warmup_share: float | None = None,
) -> tuple[Phase, Phase]:
    """The two phases of a run.

    Args:
        samples: sequences to see in all.
        batch_sizes: one for both phases, or one for each (a mixed batch).
        recipe: `sqrt`, or `paper`, which only takes the paper's own runs and pins the mixed one's published steps.
        learning_rate: peak of both phases in place of the rule's.
        warmup_share: share of each phase's steps in place of the rule's.

    Raises:
        UserError: a number is out of range, or there are too few samples for a step in each phase.
    """
    check_optimizer(optimizer)
    if recipe not in RECIPES:
        raise unknown_name("recipe", recipe, RECIPES)
    check_request(batch_sizes, sequence_lengths, learning_rate, warmup_share)
    if not 1 <= samples <= MOST_SAMPLES:
        raise UserError(f"{samples} samples", remedy=f"Give a whole number of sequences from 1 to {MOST_SAMPLES:,}")
    both = (batch_sizes[0], batch_sizes[-1])
    if recipe == "paper":
        _refuse_other_runs(samples, both, optimizer)
    is_published = samples == PAPER_SAMPLES and both[0] == both[1] in PAPER_BATCH_SIZES and optimizer == "lamb"
    provenance: Provenance = "published" if is_published else "extrapolated"
    counts = _step_counts(samples, both, provenance, is_pinned=recipe == "paper" and both == PAPER_MIXED_BATCH)
    phases = []
    for length, batch_size, steps in zip(sequence_lengths, both, counts, strict=True):
        peak = _peak_learning_rate(samples, batch_size, optimizer, provenance)
        if learning_rate is not None:
            peak = Number(learning_rate, "--learning-rate", "given")
        warmup = _warmup_steps(samples, batch_size, int(steps.value), provenance)
        if warmup_share is not None:
            warmup = Number(round(warmup_share * steps.value), "--warmup-share · steps", "given")
        phases.append(Phase(length, batch_size, steps, peak, warmup))
    return phases[0], phases[1]


def _refuse_other_runs(samples: int, batch_sizes: tuple[int, int], optimizer: str) -> None:
    is_single = batch_sizes[0] == batch_sizes[1] in PAPER_BATCH_SIZES
    if samples != PAPER_SAMPLES or optimizer != "lamb" or not (is_single or batch_sizes == PAPER_MIXED_BATCH):
        raise UserError(
            f"the paper has no run of {optimizer} with batch {batch_sizes[0]:,} and {batch_sizes[1]:,} on "
            f"{samples:,} samples",
            remedy=f"Leave --recipe out, or ask for --samples {PAPER_SAMPLES} and --batch-size "
            f"{' or '.join(map(str, PAPER_BATCH_SIZES))} or {PAPER_MIXED_BATCH[0]} {PAPER_MIXED_BATCH[1]}",
        )


def check_request(
    batch_sizes: tuple[int, ...],
    sequence_lengths: tuple[int, int],
    learning_rate: float | None,
    warmup_share: float | None,
) -> None:
    """Refuse numbers out of their range.

    Raises:
        UserError: names the first one.
    """
    if len(batch_sizes) not in (1, 2):
        raise UserError(f"{len(batch_sizes)} batch sizes", remedy="Give one for both phases or one for each of the two")
    for batch_size in batch_sizes:
        if batch_size < 1:
            raise UserError(f"batch size {batch_size}", remedy="Give a whole number of sequences from 1")
    for length in sequence_lengths:
        if not SHORTEST_SEQUENCE <= length <= LONGEST_SEQUENCE:
            raise UserError(
                f"sequence length {length}",
                remedy=f"Give a whole number of tokens from {SHORTEST_SEQUENCE} to {LONGEST_SEQUENCE:,}",
            )
    if learning_rate is not None and not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise UserError(f"learning rate {learning_rate}", remedy="Give a number above 0")
    if warmup_share is not None and not 0 <= warmup_share <= 1:
        raise UserError(f"warm-up share {warmup_share}", remedy="Give a share from 0 to 1")


def _step_counts(
    samples: int, batch_sizes: tuple[int, int], provenance: Provenance, *, is_pinned: bool
) -> tuple[Number, Number]:
    if is_pinned:
        return (
            Number(7_037, "published total 8,599 − 1,562; the rule round(0.9 · S/B) gives 7,031", "published"),
            Number(1_562, "published total 8,599 − 7,037", "published"),
        )
    first_batch, second_batch = batch_sizes
    if first_batch == second_batch:
        total = round(samples / first_batch)
        first = round_half_up(FIRST_PHASE_SHARE * total)
        second = total - first
        formulas = ("round(0.9 · round(S/B))", "round(S/B) − phase 1")
    else:
        # Whole samples first, so that the halves of 1,562.5 fall as Python's round lets them: to the even 1,562.
        first_samples = samples * 9 // 10
        first = round(first_samples / first_batch)
        second = round((samples - first_samples) / second_batch)
        formulas = ("round(0.9 · S/B)", "round(0.1 · S/B), halves to even")
    if first < 1 or second < 1:
        needed = max(10 * second_batch, round(first_batch / FIRST_PHASE_SHARE))
        raise UserError(
            f"{samples:,} samples make {max(first, 0)} + {max(second, 0)} steps of batch "
            f"{first_batch:,} and {second_batch:,}, and each phase needs one",
            remedy=f"Ask for at least {needed:,} samples (more epochs, more text) or a smaller batch",
        )
    return Number(first, formulas[0], provenance), Number(second, formulas[1], provenance)


def _peak_learning_rate(samples: int, batch_size: int, optimizer: str, provenance: Provenance) -> Number:
    """c · √(B/S), which is c / √T when both phases share a batch size; less than that where runs are short."""
    root = math.sqrt(batch_size / samples)
    if optimizer not in LAYERWISE:
        formula = f"min({ADAMW_RATE_TIMES_ROOT_STEPS} · √(B/S), {ADAMW_RATE_CAP:g})"
        return Number(min(ADAMW_RATE_TIMES_ROOT_STEPS * root, ADAMW_RATE_CAP), formula, "fitted here")
    rate = LEARNING_RATE_TIMES_ROOT_STEPS * root
    largest = LARGEST_PAPER_RATE * max(1.0, math.sqrt(batch_size / PAPER_BATCH_SIZES[-1]))
    if rate > largest * (1 + 1e-9):
        short = max(largest, min(SHORT_RATE_TIMES_ROOT_STEPS * root, LARGEST_SHORT_RATE))
        formula = f"{SHORT_RATE_TIMES_ROOT_STEPS} · √(B/S), from {largest:g} to {LARGEST_SHORT_RATE:g}"
        return Number(short, formula, "fitted here")
    if samples == PAPER_SAMPLES:
        return Number(rate, "5e-3 · √(B/32,768)", provenance)
    return Number(rate, f"{LEARNING_RATE_TIMES_ROOT_STEPS} · √(B/S)", provenance)


def _warmup_steps(samples: int, batch_size: int, steps: int, provenance: Provenance) -> Number:
    """3,125 steps in all as published, as a share of each phase; held to the largest shares of the paper's range."""
    share = PAPER_WARMUP_STEPS * batch_size / samples
    paper_share = PAPER_WARMUP_STEPS * batch_size / PAPER_SAMPLES
    limit = min(LARGEST_WARMUP_SHARE, max(LARGEST_PAPER_WARMUP_SHARE, paper_share))
    if share > limit:
        return Number(round(limit * steps), f"{limit:g} · steps, the largest share taken", "extrapolated")
    formula = "steps · B/163,840" if samples == PAPER_SAMPLES else f"steps · {PAPER_WARMUP_STEPS:,} · B/S"
    return Number(round(share * steps), formula, provenance)
