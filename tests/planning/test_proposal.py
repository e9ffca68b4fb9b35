"""What is proposed for a corpus, a machine of a given speed, and a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.errors import UserError
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import save_model
from lambert.planning import proposal
from lambert.planning.probe import PhaseCost, RunForecast
from lambert.planning.proposal import Proposal, propose
from lambert.training.config.arguments import RecipeArguments, is_open
from lambert.training.config.resolve import examples_per_epoch, resolve_config

START_UP = 3.0


class Machine:
    """Takes the same time for every multiply-add of a model's blocks, and `START_UP` once."""

    def __init__(self, corpus: Corpus, multiply_adds_per_second: float) -> None:
        self.corpus, self.rate = corpus, multiply_adds_per_second

    def __call__(self, arguments: RecipeArguments) -> RunForecast:
        config = resolve_config(arguments, self.corpus)
        per_token = 12 * config.model.layers * config.model.hidden_size**2 / self.rate
        phases = tuple(
            PhaseCost(per_token * phase.batch_size * phase.sequence_length, 0.0, 1, phase.step_count, START_UP / 2)
            for phase in config.phases
        )
        return RunForecast(phases, 1, 0)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small corpus that may be read as often as the time allows."""
    monkeypatch.setattr(proposal, "MOST_EPOCHS", 10**9)


def proposed(corpus: Corpus, rate: float, **given: Any) -> Proposal[RecipeArguments]:
    return propose(RecipeArguments(**given), corpus, Machine(corpus, rate))


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("hours", [0.01, 0.5, 8.0])
@pytest.mark.parametrize("rate", [1e9, 1e11])
def test_the_run_takes_the_time_given(small_corpus: Corpus, rate: float, hours: float) -> None:
    """Rounded down to two digits: at most a tenth less."""
    found = proposed(small_corpus, rate, hours=hours, batch_size=(8,), sequence_lengths=(16, 32)).arguments
    assert 0.88 * 3_600 * hours <= Machine(small_corpus, rate)(found).seconds <= 3_600 * hours + 0.01
    assert found.hours is None and not is_open(found)


@pytest.mark.usefixtures("endless")
def test_more_time_makes_larger_models_and_longer_sequences(small_corpus: Corpus) -> None:
    found = [proposed(small_corpus, 1e10, hours=hours).arguments for hours in (0.01, 1, 10, 1_000, 50_000)]
    models = [name for name, _ in proposal.MODELS]
    sizes = [models.index(str(one.model)) for one in found]
    assert sizes == sorted(sizes) and sizes[0] == 0 and len(set(sizes)) >= 3
    assert found[0].sequence_lengths == (32, 128) and found[-1].sequence_lengths == (128, 512)


@pytest.mark.usefixtures("endless")
def test_the_batch_doubles_with_the_steps_but_stays_within_the_text(
    small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal, "SMALLEST_BATCH", 2)
    monkeypatch.setattr(proposal, "MOST_STEPS", 1_000)
    given: dict[str, Any] = {"model": "1x16", "sequence_lengths": (16, 32)}
    batches = []
    for hours in (0.0005, 0.001, 0.004, 1.0):
        found = proposed(small_corpus, 1e8, hours=hours + START_UP / 3_600, **given).arguments
        batches.append(found.batch_size[0])
    steps = [3_600 * hours * 1e8 / (12 * 16**2 * (0.9 * 16 + 0.1 * 32)) / 1_000 for hours in (0.0005, 0.001, 0.004)]
    assert batches[:3] == [2 ** max(1, math.ceil(math.log2(count))) for count in steps]
    for hours, smallest, told in (
        (0.0001, 2, "the best"),
        (0.004, 2, "doubled from 2"),
        (1.0, 4_096, "too few examples"),
    ):
        monkeypatch.setattr(proposal, "SMALLEST_BATCH", smallest)
        choices = proposed(small_corpus, 1e8, hours=hours + START_UP / 3_600, **given).choices
        assert told in next(one.reason for one in choices if one.name == "batch size")
    examples = min(examples_per_epoch(small_corpus, (16, 32), seed=0, kind=RecipeArguments().examples))
    assert examples / 2 < batches[3] <= examples


def test_a_small_text_is_not_read_forever(small_corpus: Corpus) -> None:
    found = proposed(small_corpus, 1e12, batch_size=(4,), sequence_lengths=(16, 32)).arguments
    most = resolve_config(
        RecipeArguments(model="tiny", batch_size=(4,), sequence_lengths=(16, 32), epochs=proposal.MOST_EPOCHS),
        small_corpus,
    )
    assert 0.9 * most.samples <= (found.samples or 0) <= most.samples


@pytest.mark.usefixtures("endless")
def test_what_is_given_stays_and_is_not_explained(small_corpus: Corpus) -> None:
    given: dict[str, Any] = {
        "model": "1x16", "optimizer": "lamb", "batch_size": (8,), "sequence_lengths": (16, 32), "dropout": 0.2
    }  # fmt: skip
    found = proposed(small_corpus, 1e10, hours=0.01, **given)
    assert {name: getattr(found.arguments, name) for name in given} == given
    assert [one.name for one in found.choices] == ["samples"]
    everything = proposed(small_corpus, 1e10, hours=0.01)
    assert {one.name for one in everything.choices} >= {"model", "optimizer", "batch size", "lengths", "samples"}


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize(("positions", "short", "long"), [(512, (128,), (128, 512)), (200, (128,), (128,)), (64,) * 3])
def test_a_trained_model_is_continued_in_small_batches_at_lengths_it_has(
    small_corpus: Corpus, tmp_path: Path, positions: int, short: Any, long: Any
) -> None:
    config = BertConfig(small_corpus.vocabulary_size, 1, 16, 1, 32, maximum_positions=positions, dropout=0.3)
    save_model(BertForPreTraining(config), tmp_path)
    save_tokenizer(small_corpus.tokenizer(), tmp_path)
    for hours, lengths in ((0.01, short), (100, long)):
        found = proposed(small_corpus, 1e9, hours=hours, init_from=tmp_path)
        made = found.arguments
        assert (made.batch_size, made.optimizer, made.dropout) == ((32,), "adamw", 0.3)
        assert made.sequence_lengths == (lengths if isinstance(lengths, tuple) else (lengths,))
        assert [one.name for one in found.choices] == ["optimizer", "batch size", "lengths", "dropout", "samples"]
        peak = resolve_config(made, small_corpus).phases[0].peak_learning_rate
        assert peak.value == pytest.approx(1e-4 / math.sqrt(8)) and "continuing" in peak.formula


def test_a_time_that_is_none_is_refused(small_corpus: Corpus) -> None:
    for hours in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="hours"):
            proposed(small_corpus, 1e9, hours=hours)
    with pytest.raises(UserError, match="too short"):
        proposed(small_corpus, 1e3, hours=0.001)


def test_only_what_says_no_length_is_open() -> None:
    assert is_open(RecipeArguments()) and is_open(RecipeArguments(model="mini", batch_size=(64,)))
    assert not is_open(RecipeArguments(epochs=1.0)) and not is_open(RecipeArguments(samples=1))
    assert not is_open(RecipeArguments(recipe="nvidia")) and not is_open(RecipeArguments(recipe="paper"))


@pytest.mark.usefixtures("endless")
def test_a_run_too_short_to_beat_the_unigram_baseline_says_how_long_would_do(small_corpus: Corpus) -> None:
    """400 tokens for each of the 200 entries; the baseline's loss is that of the held-out tokens."""
    counts, held_out = (small_corpus.split(name).token_counts() for name in ("train", "held_out"))
    smoothed = (counts + 1) / (counts + 1).sum()
    entropy = -sum(float(n) / held_out.sum() * math.log(p) for n, p in zip(held_out, smoothed, strict=True))
    given: dict[str, Any] = {"model": "1x16", "batch_size": (8,), "sequence_lengths": (16, 32)}
    seconds = 400 * small_corpus.vocabulary_size * 12 * 16**2 / 1e8
    hours = (START_UP + 0.5 * seconds) / 3_600
    short = proposed(small_corpus, 1e8, hours=hours, **given)
    tokens = resolve_config(short.arguments, small_corpus).tokens
    assert short.unigram_loss == pytest.approx(entropy) and short.expected_loss is None
    assert short.least_hours == pytest.approx(hours * 400 * small_corpus.vocabulary_size / tokens)
    enough = proposed(small_corpus, 1e8, hours=(START_UP + 2 * seconds) / 3_600, **given)
    assert enough.least_hours is None and enough.expected_loss is not None
    assert 0.5 * entropy < enough.expected_loss[0] < enough.expected_loss[1] < entropy


def test_the_loss_of_runs_longer_than_any_measured_is_not_told(small_corpus: Corpus) -> None:
    longest = proposal.EXPECTED[-1][0]
    assert proposal._expected_fraction(longest) == pytest.approx(proposal.EXPECTED[-1][1])
    assert proposal._expected_fraction(2 * longest) is None
