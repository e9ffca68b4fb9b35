"""Square-root learning-rate scaling: derives a recipe from batch size and number of samples.

S samples, B sequences in a batch, T steps. Each number has its formula and provenance: published for such a run,
extrapolated beyond it, or fitted here (docs/recipes.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from lambert.errors import UserError
from lambert.training.config.phase_config import DerivedValue, PhaseConfig, Provenance
from lambert.training.optimizer import is_layerwise

PAPER_SAMPLES = 512_000_000
"""1,000,000 steps of 512 sequences: the fixed number of epochs of every run in the LAMB paper."""
PAPER_BATCH_SIZES = (512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768)
"""The paper's runs with one batch size in both phases."""
PAPER_MIXED_BATCH = (65_536, 32_768)
"""The paper's run with two; its learning rates and warm-up were not published."""
PAPER_SHARES = (0.9, 0.1)
"""BERT's fractions of the samples at length 128 and at 512."""
LEARNING_RATE_TIMES_ROOT_STEPS = 0.625
"""5e-3 · √15,625 at batch 32,768; the square-root rule keeps it the same at every published batch."""
PAPER_WARMUP_STEPS = 3_125
"""Fraction B / 163,840 of S / B steps, with S = 512 million: 3,125 steps at every batch (LEGW, arXiv 1901.08256)."""
LARGEST_PAPER_WARMUP_SHARE = 0.2
"""At batch 32,768. Upper limit for shorter runs; larger batches may warm up for B / 163,840, at most half a phase."""
LARGEST_WARMUP_SHARE = 0.5

LARGEST_PAPER_RATE = 5e-3
"""At batch 32,768 and 15,625 steps; larger batches may follow the square root."""
SHORT_RATE_TIMES_ROOT_STEPS = 0.24
SHORT_RATE_OVER_ROOT_BATCH = 7e-4
LARGEST_SHORT_RATE = 2e-2
"""Few steps would raise 0.625 / √T above the paper's learning rates. Down to 2,304 steps the paper's largest is kept;
the limit for shorter runs grows with the batch. All fitted here (docs/recipes.md); the last is the largest known to
work."""
SMALLEST_PUBLISHED_HIDDEN_SIZE = 768
"""Base; the paper's own runs are of Large."""
ADAMW_RATE_TIMES_ROOT_STEPS = 0.1
ADAMW_RATE_OVER_ROOT_BATCH = 1.25e-4
LEAST_ADAMW_CAP, LARGEST_ADAMW_RATE = 2e-3, 4e-3
"""All fitted here, as for LAMB: the limit for short runs is 2e-3 up to batch 256."""
MUON_RATE_TIMES_ROOT_STEPS = 0.2
MUON_RATE_OVER_ROOT_BATCH = 4.6e-4
LARGEST_MUON_RATE = 3.2e-2
"""All fitted here, as for LAMB."""
HYPERBALL_RATE_TIMES_ROOT_STEPS = {"adam-hyperball": 0.55, "muon-hyperball": 1.1}
LARGEST_HYPERBALL_RATE = {"adam-hyperball": 2e-2, "muon-hyperball": 4e-2}
"""The best of three rates at 750 steps, each twice the last; the limit is that rate (docs/recipes.md)."""
MODERNBERT_RATE = {"lamb": 4.0, "stableadamw": 2.0, "muon": 2.0}
OTHER_MODERNBERT_RATE = 2.0
"""Times BERT's rate: the best of several at three batches (docs/modernbert.md)."""
CONTINUED_RATE, CONTINUED_BATCH = 1e-4, 256
"""Of AdamW where a trained model is continued: BERT's own peak, reached again (Ibrahim et al. 2024, arXiv 2403.08763),
and that of task-adaptive pre-training (Gururangan et al. 2020, arXiv 2004.10964), both at this batch."""
LARGEST_CONTINUED_RATE = 6e-4
"""RoBERTa's own peak, at batch 8,192, where the square root gives 5.7e-4."""
CONTINUED_WARMUP_SHARE = 0.06
"""Gururangan et al. 2020, for domain- and task-adaptive pre-training."""


def rule_provenance(samples: int, batch_sizes: Sequence[int], shares: Sequence[float], optimizer: str) -> Provenance:
    """`published` for the paper's own runs with one batch size, `extrapolated` for all others."""
    is_single = len(set(batch_sizes)) == 1 and batch_sizes[0] in PAPER_BATCH_SIZES
    is_published = samples == PAPER_SAMPLES and is_single and tuple(shares) == PAPER_SHARES and optimizer == "lamb"
    return "published" if is_published else "extrapolated"


def refuse_other_runs(samples: int, batch_sizes: Sequence[int], shares: Sequence[float], optimizer: str) -> None:
    """Check that the paper has such a run.

    Raises:
        UserError: it does not; lists those it has.
    """
    is_single = len(set(batch_sizes)) == 1 and batch_sizes[0] in PAPER_BATCH_SIZES
    is_papers = tuple(shares) == PAPER_SHARES and (is_single or tuple(batch_sizes) == PAPER_MIXED_BATCH)
    if samples != PAPER_SAMPLES or optimizer != "lamb" or not is_papers:
        sizes = " and ".join(f"{size:,}" for size in batch_sizes)
        raise UserError(
            f"the paper has no run of {optimizer} with batch {sizes} on {samples:,} samples",
            remedy=f"Leave `recipe` out, or ask for `samples` {PAPER_SAMPLES} and `batch_size` "
            f"{' or '.join(map(str, PAPER_BATCH_SIZES))} or {PAPER_MIXED_BATCH[0]} {PAPER_MIXED_BATCH[1]}",
        )


def pinned_steps() -> list[DerivedValue]:
    """The published steps of the mixed run, which differ from the rule by six."""
    return [
        DerivedValue(7_037, "published total 8,599 − 1,562; the rule round(0.9 · S/B) gives 7,031", "published"),
        DerivedValue(1_562, "published total 8,599 − 7,037", "published"),
    ]


def step_counts(
    samples: int, batch_sizes: Sequence[int], shares: Sequence[float], provenance: Provenance
) -> list[DerivedValue]:
    """Steps of every phase: at one batch size the total is rounded, then split; at several, each phase is rounded.

    Raises:
        UserError: there are too few samples for a step in each phase.
    """
    exact = [Fraction(repr(share)) for share in shares]
    if len(set(batch_sizes)) == 1:
        total = round(samples / batch_sizes[0])
        ends = [round_half_up(sum(exact[: index + 1]) * total) for index in range(len(exact) - 1)] + [total]
        counts = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        formulas = [f"round({share:g} · round(S/B))" for share in shares]
        if len(shares) == 2:
            formulas[-1] = "round(S/B) − phase 1"
        elif len(shares) == 1:
            formulas[-1] = "round(S/B)"
    else:
        # Whole samples first: 1,562.5 then rounds to even, 1,562, as in Python.
        own = [int(share * samples) for share in exact[:-1]]
        own.append(samples - sum(own))
        counts = [round(Fraction(count, size)) for count, size in zip(own, batch_sizes, strict=True)]
        formulas = [f"round({share:g} · S/B), halves to even" for share in shares]
    if min(counts) < 1:
        needed = max(math.ceil(size / share) for size, share in zip(batch_sizes, exact, strict=True))
        raise UserError(
            f"{samples:,} samples make {' + '.join(str(count) for count in counts)} steps of batch "
            f"{' and '.join(f'{size:,}' for size in batch_sizes)}, but each phase needs one",
            remedy=f"Give `samples` from {needed:,} (more epochs, more text), or a smaller batch; edit a recipe's "
            "batch size and peak learning rate in the file that `lambert plan --save-recipe` writes",
        )
    return [DerivedValue(count, formula, provenance) for count, formula in zip(counts, formulas, strict=True)]


def peak_learning_rate(
    samples: int, batch_size: int, optimizer: str, provenance: Provenance, architecture: str = "bert"
) -> DerivedValue:
    """c · √(B/S), which is c / √T if all phases have one batch size; limited for short runs; times the architecture's
    factor."""
    own = _rate_of_bert(samples, batch_size, optimizer, provenance)
    if architecture == "bert":
        return own
    factor = MODERNBERT_RATE.get(optimizer, OTHER_MODERNBERT_RATE)
    known: Provenance = "fitted here" if optimizer in MODERNBERT_RATE else "extrapolated"
    return DerivedValue(factor * own.value, f"{factor:g} · ({own.formula}), {architecture}", known)


def _rate_of_bert(samples: int, batch_size: int, optimizer: str, provenance: Provenance) -> DerivedValue:
    root = math.sqrt(batch_size / samples)
    if not is_layerwise(optimizer):
        factor = ADAMW_RATE_TIMES_ROOT_STEPS
        cap = rate_cap(batch_size, ADAMW_RATE_OVER_ROOT_BATCH, LEAST_ADAMW_CAP, LARGEST_ADAMW_RATE)
        if optimizer == "muon":
            factor = MUON_RATE_TIMES_ROOT_STEPS
            cap = rate_cap(batch_size, MUON_RATE_OVER_ROOT_BATCH, 0.0, LARGEST_MUON_RATE)
        return DerivedValue(min(factor * root, cap), f"min({factor} · √(B/S), {cap:.3g})", "fitted here")
    if optimizer in HYPERBALL_RATE_TIMES_ROOT_STEPS:
        factor, cap = HYPERBALL_RATE_TIMES_ROOT_STEPS[optimizer], LARGEST_HYPERBALL_RATE[optimizer]
        return DerivedValue(min(factor * root, cap), f"min({factor} · √(B/S), {cap:g})", "fitted here")
    rate = LEARNING_RATE_TIMES_ROOT_STEPS * root
    largest = LARGEST_PAPER_RATE * max(1.0, math.sqrt(batch_size / PAPER_BATCH_SIZES[-1]))
    if rate > largest * (1 + 1e-9):
        cap = rate_cap(batch_size, SHORT_RATE_OVER_ROOT_BATCH, largest, LARGEST_SHORT_RATE)
        short = max(largest, min(SHORT_RATE_TIMES_ROOT_STEPS * root, cap))
        formula = f"{SHORT_RATE_TIMES_ROOT_STEPS} · √(B/S), from {largest:g} to {cap:.3g}"
        return DerivedValue(short, formula, "fitted here" if optimizer == "lamb" else "extrapolated")
    if samples == PAPER_SAMPLES:
        return DerivedValue(rate, "5e-3 · √(B/32,768)", provenance)
    return DerivedValue(rate, f"{LEARNING_RATE_TIMES_ROOT_STEPS} · √(B/S)", provenance)


def continued_learning_rate(samples: int, batch_size: int, optimizer: str) -> DerivedValue:
    """Peak for a model that is trained already; other optimizers than AdamW lower theirs by the same factor."""
    formula = f"min(1e-4 · √(B/{CONTINUED_BATCH}), 6e-4), continuing: BERT's own peak"
    rate = min(CONTINUED_RATE * math.sqrt(batch_size / CONTINUED_BATCH), LARGEST_CONTINUED_RATE)
    if optimizer == "adamw":
        return DerivedValue(rate, formula, "published" if batch_size == CONTINUED_BATCH else "extrapolated")
    own, adamw = (peak_learning_rate(samples, batch_size, name, "extrapolated") for name in (optimizer, "adamw"))
    factor = min(1.0, rate / adamw.value)
    return DerivedValue(factor * own.value, f"{factor:.3g} · ({own.formula}), as AdamW continuing", "extrapolated")


def continued_warmup_steps(steps: int) -> DerivedValue:
    """Warm-up of a phase of `steps` for a model that is trained already."""
    formula = f"{CONTINUED_WARMUP_SHARE:g} · steps, continuing: Gururangan et al. 2020"
    return DerivedValue(round(CONTINUED_WARMUP_SHARE * steps), formula, "unconfirmed")


def rate_cap(batch_size: int, over_root: float, least: float, largest: float) -> float:
    """Largest stable learning rate at this batch size; grows with √B."""
    return max(least, min(over_root * math.sqrt(batch_size), largest))


def warmup_steps(samples: int, batch_size: int, steps: int, provenance: Provenance) -> DerivedValue:
    """3,125 steps in total as published, as a fraction of each phase; limited to the largest fraction in the paper."""
    share = PAPER_WARMUP_STEPS * batch_size / samples
    paper_share = PAPER_WARMUP_STEPS * batch_size / PAPER_SAMPLES
    limit = min(LARGEST_WARMUP_SHARE, max(LARGEST_PAPER_WARMUP_SHARE, paper_share))
    if share > limit:
        return DerivedValue(round(limit * steps), f"{limit:g} · steps, the largest fraction used", "extrapolated")
    formula = "steps · B/163,840" if samples == PAPER_SAMPLES else f"steps · {PAPER_WARMUP_STEPS:,} · B/S"
    return DerivedValue(round(share * steps), formula, provenance)


def beyond_the_published(phases: Sequence[PhaseConfig], hidden_size: int) -> list[str]:
    """Warnings for runs outside the rule's published range, one sentence each."""
    warnings = []
    largest, steps = max(phase.batch_size for phase in phases), sum(phase.step_count for phase in phases)
    if largest > PAPER_MIXED_BATCH[0]:
        warnings.append(
            f"batch {largest:,} is beyond {PAPER_MIXED_BATCH[0]:,}, the largest that was published: the rate continues "
            "with the square root, the warm-up grows to at most half of each phase, and the quality is not known"
        )
    if any(phase.peak_learning_rate.provenance == "fitted here" for phase in phases):
        warnings.append(
            f"rates for {steps:,} steps are fitted to trials of tiny models (docs/recipes.md): the LAMB "
            "paper's shortest run with one batch has 15,625"
        )
    if hidden_size < SMALLEST_PUBLISHED_HIDDEN_SIZE:
        warnings.append("the rule was published for BERT-Large; for models below base only our trials support it")
    return warnings


def round_half_up(value: Fraction | float) -> int:
    """Round to the nearest integer, halves up."""
    return math.floor(value + Fraction(1, 2))
