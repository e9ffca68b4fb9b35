"""Everything about a run from a corpus, a machine and a time: model, optimizer, batch, lengths, samples.

The rule is fitted to runs on four corpora and tested on a fifth (docs/first_hour.md). What the user gave stays.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from lambert.corpus.store import Corpus
from lambert.errors import UserError
from lambert.model.config_file import read_config
from lambert.planning.plan_text import TOKENS_PER_ENTRY
from lambert.planning.probe import RunForecast
from lambert.training.config.arguments import RecipeArguments
from lambert.training.config.recipe import recipe_by_rule
from lambert.training.config.resolve import DEFAULT_LENGTHS, examples_per_epoch, resolve_config
from lambert.training.config.unigram import UnigramBaseline
from lambert.utils.formatting import duration

DEFAULT_HOURS = 1.0
MODELS = (
    ("tiny", 0),
    ("mini", 100_000_000),
    ("small", 400_000_000),
    ("medium", 1_500_000_000),
    ("base", 4_000_000_000),
)
"""Models, and the tokens that one must see in the time to end better than the one before it."""
LONG_RUN_TOKENS = 200_000_000
"""From so many tokens on, sequences of 128 and 512 tokens, as published; below, of 32 and 128."""
SHORT_LENGTHS = (32, 128)
CONTINUED_BATCH, CONTINUED_LENGTHS = 32, (128,)
"""Where a trained model is continued, in place of `SMALLEST_BATCH`, which then does not double, and `SHORT_LENGTHS`."""
SMALLEST_BATCH, LARGEST_BATCH = 128, 4_096
MOST_STEPS = 40_000
"""The batch doubles until a run has fewer."""
MOST_EPOCHS = 40
"""Beyond, time is better spent on more text."""
LEAST_STEPS = 20
"""Fewer are no run."""
REASONS = {
    "optimizer": "ended lowest of LAMB, AdamW and Muon in short runs",
    "batch_size": "of 64, 128, 256 and 512 the best on Wikipedia",
    "sequence_lengths": "most samples are short: they take less time, and the model learns from them first",
    "dropout": "the text is read too few times to be learned by heart",
}
CONTINUED_REASONS = {
    "optimizer": "as trained models are continued in the literature",
    "batch_size": "as BERT's authors continue it",
    "sequence_lengths": "the model has positions for them",
    "dropout": "the model's own",
}
EXPECTED = ((390, 0.84), (1_000, 0.76), (4_000, 0.61), (8_000, 0.55), (15_000, 0.53))
"""Tokens seen for each vocabulary entry → held-out MLM loss at the end over the unigram baseline's, on prose."""
EXPECTED_ERROR = (0.07, 0.15)
"""How far below and above runs on prose ended, at most; above by more than .07 only where the text is a few novels, of
which one is held out. Source code ended lower, by up to .18."""
_NOMINAL_STEPS = 4_000
"""Steps of the runs whose time is asked for while the number of steps is not known."""

Forecaster = Callable[[RecipeArguments], RunForecast]
"""The time of a run on this machine, from steps that it measures or remembers."""


@dataclass(frozen=True)
class Choice:
    """One line of a proposal."""

    name: str
    value: str
    reason: str


Arguments = TypeVar("Arguments", bound=RecipeArguments)


@dataclass(frozen=True)
class Proposal(Generic[Arguments]):
    """A run that fits corpus, machine and time."""

    arguments: Arguments
    """Complete: no number is left to the machine."""
    choices: tuple[Choice, ...]
    """What the rule chose, with reasons."""
    expected_loss: tuple[float, float] | None
    """Range of the held-out MLM loss at the end, nats; None where no such run was measured."""
    unigram_loss: float
    """Of the unigram baseline, for comparison."""
    least_hours: float | None
    """Where the run is too short to beat the unigram baseline: hours that would do. Else None."""


def propose(arguments: Arguments, corpus: Corpus, forecast: Forecaster) -> Proposal[Arguments]:
    """Fill what `arguments` leave open, so that the run takes `hours` (default one) on this machine.

    Raises:
        UserError: the time is too short for a step of each phase, or the corpus has too little text.
    """
    hours = DEFAULT_HOURS if arguments.hours is None else arguments.hours
    known = replace(arguments, hours=None, **_fixed(arguments))
    models = ((arguments.model, 0),) if arguments.model or arguments.init_from else MODELS
    best: Arguments | None = None
    for model, least_tokens in models:
        try:
            tried = _sized(replace(known, model=model), corpus, 3_600 * hours, forecast)
        except UserError:  # too slow for the time
            if best is None:
                raise
            break
        if best is not None and resolve_config(tried, corpus).tokens < least_tokens:
            break
        best = tried
    assert best is not None
    config = resolve_config(best, corpus)
    seen = config.tokens / corpus.vocabulary_size
    is_short = seen < TOKENS_PER_ENTRY and not best.init_from
    train, held_out = (corpus.split(name).token_counts() for name in ("train", "held_out"))
    baseline = UnigramBaseline(train).loss_on(held_out if held_out.any() else train)
    fraction = None if is_short or best.init_from else _expected_fraction(seen)
    loss = (
        None
        if fraction is None
        else (baseline * (fraction - EXPECTED_ERROR[0]), baseline * (fraction + EXPECTED_ERROR[1]))
    )
    least_hours = hours * TOKENS_PER_ENTRY / seen if is_short else None
    return Proposal(best, _choices(arguments, best, corpus, hours), loss, baseline, least_hours)


def _expected_fraction(tokens_per_entry: float) -> float | None:
    """Interpolated along the logarithm of the tokens; None outside of what was measured."""
    counts, fractions = zip(*EXPECTED, strict=True)
    if not counts[0] <= tokens_per_entry <= 1.5 * counts[-1]:
        return None
    return float(np.interp(math.log(tokens_per_entry), np.log(counts), fractions))


def _fixed(arguments: RecipeArguments) -> dict[str, Any]:
    """Optimizer and dropout, which no measurement decides."""
    folder = arguments.initial_model_folder
    found = ("muon", 0.0) if folder is None else ("adamw", read_config(folder).dropout)
    given = {"optimizer": arguments.optimizer, "dropout": arguments.dropout}
    return {name: own if given[name] is None else given[name] for name, own in zip(given, found, strict=True)}


def _lengths(known: RecipeArguments, *, is_long: bool) -> tuple[int, ...]:
    """Sequence lengths; a model that is continued has positions for them."""
    folder = known.initial_model_folder
    if folder is None:
        return DEFAULT_LENGTHS if is_long else SHORT_LENGTHS
    most = read_config(folder).maximum_positions
    lengths = DEFAULT_LENGTHS if is_long else CONTINUED_LENGTHS
    return tuple(length for length in lengths if length <= most) or (most,)


def _sized(known: Arguments, corpus: Corpus, seconds: float, forecast: Forecaster) -> Arguments:
    """With lengths, batch size and samples for a run of `seconds`."""
    if known.sequence_lengths:
        return _with_samples(known, corpus, seconds, forecast)
    short = _with_samples(replace(known, sequence_lengths=_lengths(known, is_long=False)), corpus, seconds, forecast)
    if resolve_config(short, corpus).tokens < LONG_RUN_TOKENS:
        return short
    return _with_samples(replace(known, sequence_lengths=_lengths(known, is_long=True)), corpus, seconds, forecast)


def _with_samples(known: Arguments, corpus: Corpus, seconds: float, forecast: Forecaster) -> Arguments:
    """With as many samples as fit into the time, and a batch size for so many."""
    examples = min(examples_per_epoch(corpus, known.sequence_lengths, seed=known.seed, kind=known.examples))
    largest = min(LARGEST_BATCH, 1 << max(0, examples.bit_length() - 1))
    smallest = SMALLEST_BATCH if known.init_from is None else CONTINUED_BATCH
    sizes = known.batch_size or (min(smallest, largest),)
    is_fixed = bool(known.batch_size) or known.init_from is not None
    while True:
        count = _NOMINAL_STEPS * max(sizes)
        whole = forecast(replace(known, batch_size=sizes, samples=count))
        of_steps = sum(phase.steps * phase.step_seconds for phase in whole.phases)
        start_up, per_sample = whole.seconds - of_steps, of_steps / count
        samples = (seconds - start_up) / per_sample
        if is_fixed or samples <= MOST_STEPS * max(sizes) or 2 * max(sizes) > largest:
            break
        sizes = (2 * max(sizes),)
    least = LEAST_STEPS * max(sizes)
    if samples < least:
        needed = (start_up + 1.1 * least * per_sample) / 3_600
        raise UserError(
            f"{seconds / 3_600:g} hours are too short for {LEAST_STEPS} steps on this machine",
            remedy=f"Give at least {needed:.2g} `hours`, or choose a smaller `model` or batch",
        )
    found = replace(known, batch_size=sizes)
    return replace(found, samples=max(least, _two_digits(min(samples, MOST_EPOCHS * _epoch(found, corpus)))))


def _epoch(arguments: RecipeArguments, corpus: Corpus) -> float:
    """Samples of an epoch, all phases together."""
    recipe = recipe_by_rule(arguments.batch_size, arguments.sequence_lengths, arguments.phase_fractions)
    counts = examples_per_epoch(corpus, recipe.sequence_lengths, seed=arguments.seed, kind=arguments.examples)
    return 1 / sum(share / count for share, count in zip(recipe.shares, counts, strict=True))


def _two_digits(value: float) -> int:
    """Rounded down to two significant digits, so that the noise of a measurement seldom shows."""
    unit = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return int(value // unit * unit)


def _choices(asked: RecipeArguments, chosen: RecipeArguments, corpus: Corpus, hours: float) -> tuple[Choice, ...]:
    """What was chosen and why; what the user gave is not listed."""
    config = resolve_config(chosen, corpus)
    time = duration(3_600 * hours)
    larger = next((one for one in itertools.pairwise(MODELS) if one[0][0] == chosen.model), None)
    needs = f"{larger[1][0]} needs {larger[1][1]:,} tokens to do better" if larger else "the largest proposed"
    epochs = config.samples / _epoch(chosen, corpus)
    lengths = " ".join(map(str, chosen.sequence_lengths))
    reasons = dict(REASONS if asked.init_from is None else CONTINUED_REASONS)
    if asked.init_from is None and max(chosen.batch_size) > SMALLEST_BATCH:
        reasons["batch_size"] = f"doubled from {SMALLEST_BATCH} to stay near {MOST_STEPS:,}"
    elif asked.init_from is None and max(chosen.batch_size) < SMALLEST_BATCH:
        reasons["batch_size"] = "the text has too few examples for a larger batch"
    rows = {
        "model": Choice(
            "model", chosen.model or config.model_name, f"sees {config.tokens:,} tokens in {time}; {needs}"
        ),
        "optimizer": Choice("optimizer", str(chosen.optimizer), reasons["optimizer"]),
        "batch_size": Choice(
            "batch size", f"{max(chosen.batch_size)}", f"{config.total_steps:,} steps; {reasons['batch_size']}"
        ),
        "sequence_lengths": Choice("lengths", lengths, reasons["sequence_lengths"]),
        "dropout": Choice("dropout", f"{chosen.dropout:g}", reasons["dropout"]),
        "samples": Choice("samples", f"{chosen.samples:,}", f"{epochs:.1f} epochs, as many as fit into {time}"),
    }
    if asked.init_from is not None:
        del rows["model"]
    return tuple(row for name, row in rows.items() if getattr(asked, name) in (None, ()))
