"""From arguments to initial weights."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lambert.corpus.store import Corpus
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import save_model
from lambert.model.parameter_count import parameter_count
from lambert.model.presets import model_config
from lambert.training.config import precision
from lambert.training.config.arguments import RecipeArguments
from lambert.training.config.recipe_io import load_recipe
from lambert.training.config.resolve import resolve_config
from lambert.training.config.starting_model import starting_model
from lambert.training.config.training_config import TrainingConfig, write_recipe


def test_a_model_starts_by_guessing_from_word_frequencies(small_corpus: Corpus, settings: TrainingConfig) -> None:
    split = small_corpus.split("train")
    counts = Counter(split.tokens(0, split.token_count).tolist())
    total = sum(counts.values()) + small_corpus.vocabulary_size
    expected = [math.log((counts[word] + 1) / total) for word in range(small_corpus.vocabulary_size)]
    bias = starting_model(settings, None, small_corpus).mlm_head.bias
    torch.testing.assert_close(bias.detach(), torch.tensor(expected))
    assert bias.requires_grad


@pytest.mark.parametrize("size", ["1x16", "2x128", "3x96"])
def test_parameters_are_counted_as_pytorch_counts_them(size: str) -> None:
    config = replace(model_config(size, vocabulary_size=77), maximum_positions=40)
    assert parameter_count(config) == sum(parameter.numel() for parameter in BertForPreTraining(config).parameters())


def test_parameters_of_the_published_sizes() -> None:
    """110,106,428 and 336,226,108: what `transformers` counts of BertForPreTraining, base and large, uncased."""
    sizes = {name: parameter_count(model_config(name, vocabulary_size=30_522)) for name in ("base", "large")}
    assert sizes == {"base": 110_106_428, "large": 336_226_108}


@pytest.mark.parametrize(
    ("gains", "device", "numba", "expected"),
    [
        (True, "cuda", False, "bfloat16-master"),
        (True, "cpu", True, "bfloat16-master"),
        (True, "cpu", False, "bfloat16-autocast"),
        (True, "", True, "bfloat16-autocast"),
        (False, "cuda", True, "float32"),
        (False, "cpu", True, "float32"),
    ],
)
def test_the_precision_that_auto_takes(
    monkeypatch: pytest.MonkeyPatch, gains: bool, device: str, numba: bool, expected: str
) -> None:
    monkeypatch.setattr(precision, "has_numba", lambda: numba)
    assert precision.resolve_precision("auto", bfloat16_gains=gains, pretrains_on=device).value == expected
    assert precision.resolve_precision("float32", bfloat16_gains=gains, pretrains_on=device).value == "float32"


DROPOUTS = [  # given → dropout, attention dropout of a new model, and of one that has .3 and 0
    ({}, (0.1, None), (0.3, 0.0)),
    ({"attention_dropout": 0.2}, (0.1, 0.2), (0.3, 0.2)),
    ({"dropout": 0.2}, (0.2, None), (0.2, None)),
    ({"dropout": 0.3}, (0.3, None), (0.3, 0.0)),
    ({"dropout": 0.2, "attention_dropout": 0.0}, (0.2, 0.0), (0.2, 0.0)),
    ({"attention_dropout": 0.1}, (0.1, None), (0.3, 0.1)),
]


@pytest.mark.parametrize(("given", "new", "continued"), DROPOUTS)
def test_attention_weights_may_have_a_dropout_of_their_own(
    tmp_path: Path, given: dict[str, Any], new: tuple[float, Any], continued: tuple[float, Any]
) -> None:
    run = {"batch_size": 4, "samples": 80, "sequence_lengths": 16, **given}
    config = resolve_config(RecipeArguments.of(model="1x16", **run), None)
    assert (config.model.dropout, config.model.attention_dropout) == new
    write_recipe(tmp_path, config)
    again = load_recipe(str(tmp_path))
    assert (again.dropout, again.attention_dropout) == new
    folder = tmp_path / "model"
    own = BertConfig(100, 1, 16, 1, 32, maximum_positions=16, dropout=0.3, attention_dropout=0.0)
    save_model(BertForPreTraining(own), folder)
    config = resolve_config(RecipeArguments.of(init_from=folder, **run), None)
    assert (config.model.dropout, config.model.attention_dropout) == continued


@pytest.mark.parametrize(
    ("optimizer", "ratio", "decay"),
    [
        ("lamb", 1.0, 0.01),
        ("muon", 1.0, 0.01),
        ("lars", 1.0, 0.0),
        # rates by hand: LAMB .24/√750, Hyperball 2e-2 and 4e-2 (of .55 and 1.1/√750); AdamW beside them 2e-3
        ("lamb+adamw", 2e-3 / (0.24 / math.sqrt(750)), 0.01),
        ("lars+adamw", 2e-3 / (0.24 / math.sqrt(750)), 0.0),
        ("adam-hyperball", 2e-3 / 2e-2, 0.01),
        ("muon-hyperball", 2e-3 / 4e-2, 0.01),
    ],
)
def test_adamw_beside_another_optimizer_keeps_its_own_rate(optimizer: str, ratio: float, decay: float) -> None:
    request = RecipeArguments(batch_size=(256,), samples=192_000, sequence_lengths=(16,), optimizer=optimizer)
    config = resolve_config(request, None)
    assert config.adamw_lr_ratio == pytest.approx(ratio) and config.weight_decay == decay
    adamw = config.adamw_lr_ratio * config.phases[0].peak_learning_rate.value
    given = resolve_config(replace(request, learning_rate=0.004), None)
    doubled = resolve_config(replace(request, learning_rate_multiplier=2.0), None)
    if "+" in optimizer or "hyperball" in optimizer:
        assert given.adamw_lr_ratio * 0.004 == pytest.approx(adamw)
        assert doubled.adamw_lr_ratio == pytest.approx(ratio)


@pytest.mark.parametrize(("optimizer", "factor"), [("lamb", 4), ("stableadamw", 2), ("muon", 2), ("lamb+adamw", 2)])
def test_modernbert_gets_its_multiple_of_the_rate_of_bert(optimizer: str, factor: int) -> None:
    """Also of AdamW beside another optimizer; a rate that is given stays."""
    asked = {"model": "tiny", "optimizer": optimizer, "batch_size": (64,), "samples": 100_000}
    bert, modern = (
        resolve_config(RecipeArguments(architecture=name, **asked), None)  # type: ignore[arg-type]
        for name in ("bert", "modernbert")
    )
    for one, other in zip(bert.phases, modern.phases, strict=True):
        assert other.peak_learning_rate.value == factor * one.peak_learning_rate.value
        assert other.peak_learning_rate.formula == f"{factor} · ({one.peak_learning_rate.formula}), modernbert"
    assert modern.adamw_lr_ratio == bert.adamw_lr_ratio
    given = RecipeArguments(architecture="modernbert", learning_rate=1e-3, **asked)  # type: ignore[arg-type]
    assert resolve_config(given, None).phases[0].peak_learning_rate.value == 1e-3
