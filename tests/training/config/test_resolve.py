"""From arguments to initial weights."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from lambert.corpus.store import Corpus
from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.training.config import precision
from lambert.training.config.resolve import parameter_count
from lambert.training.config.starting_model import starting_model
from lambert.training.config.training_config import TrainingConfig


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
