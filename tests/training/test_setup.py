"""From a request to starting weights."""

from __future__ import annotations

import math
from collections import Counter

import torch

from lambert.corpus.store import Corpus
from lambert.training.settings import RunSettings
from lambert.training.setup import starting_model


def test_a_model_starts_by_guessing_from_word_frequencies(small_corpus: Corpus, settings: RunSettings) -> None:
    split = small_corpus.split("train")
    counts = Counter(split.tokens(0, split.token_count).tolist())
    total = sum(counts.values()) + small_corpus.vocabulary_size
    expected = [math.log((counts[word] + 1) / total) for word in range(small_corpus.vocabulary_size)]
    bias = starting_model(settings, None, small_corpus).masked_word_head.bias
    torch.testing.assert_close(bias.detach(), torch.tensor(expected))
    assert bias.requires_grad
