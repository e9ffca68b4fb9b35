"""Losses and evaluation metrics against their definitions, and the unigram baseline by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch, SampleStream, example_source
from lambert.data.objective import ObjectiveConfig
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.training.config.precision import Precision
from lambert.training.config.unigram import UnigramBaseline
from lambert.training.step.pretraining_loss import evaluate, pretraining_task


def losses(scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Output of an MLM head with labels."""
    each = functional.cross_entropy(scores, labels, reduction="none")
    return each.sum(), each.detach(), scores.argmax(-1) == labels


class Fixed(nn.Module):
    """A model with constant logits: `words` for tokens, `pairs` for NSP."""

    def __init__(self, words: list[float], pairs: list[float]) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.tensor(words))
        self.pairs = nn.Parameter(torch.tensor(pairs))
        self.was_training: list[bool] = []

    def forward(
        self,
        ids: torch.Tensor,
        segments: object,
        mask: object,
        positions: torch.Tensor,
        *,
        masked_labels: torch.Tensor,
        real_tokens: int,
    ) -> tuple:  # type: ignore[type-arg]
        self.was_training.append(self.training)
        scores = self.words.expand(len(positions), -1)
        return losses(scores, masked_labels), self.pairs.expand(len(ids), -1)


def batch(labels: list[int], next_labels: list[int]) -> PretrainingBatch:
    rows = len(next_labels)
    ids = torch.zeros(rows, 8, dtype=torch.int64)
    return PretrainingBatch(
        ids, ids, None, torch.arange(len(labels)), torch.tensor(labels), torch.tensor(next_labels), rows * 8
    )


def test_losses_are_sums_over_their_own_terms() -> None:
    model = Fixed([math.log(0.5), math.log(0.3), math.log(0.2)], [math.log(0.9), math.log(0.1)])
    output = pretraining_task(model, batch([0, 1, 1, 2], [0, 1]))
    assert output.loss_sums["mlm"].item() == pytest.approx(-math.log(0.5 * 0.3 * 0.3 * 0.2), rel=1e-6)
    assert output.loss_sums["nsp"].item() == pytest.approx(-math.log(0.9 * 0.1), rel=1e-6)
    assert {kind: int(count) for kind, count in output.correct.items()} == {"mlm": 1, "nsp": 1}


def test_the_loss_at_mask_tokens_is_measured_without_a_gradient() -> None:
    model = Fixed([math.log(0.5), math.log(0.3), math.log(0.2)], [0.0, 0.0])
    shown = replace(batch([0, 1, 1, 2], [0]), is_mask=torch.tensor([True, False, True, False]))
    output = pretraining_task(model, shown)
    assert output.loss_sums["mask"].item() == pytest.approx(-math.log(0.5 * 0.3), rel=1e-6)
    assert output.loss_sums["mlm"].requires_grad and not output.loss_sums["mask"].requires_grad
    assert int(output.correct["mask"]) == 1 and shown.counts() == {"mlm": 4, "mask": 2, "nsp": 1}


def test_evaluation_weighs_words_not_batches() -> None:
    model = Fixed([math.log(0.5), math.log(0.3), math.log(0.2)], [0.0, 0.0])
    model.train()
    counts = np.array([1, 6, 2])  # smoothed: 2, 7, 3 of 12
    figures = evaluate(
        model, [batch([0, 0, 0], [0]), batch([1], [1])], UnigramBaseline(counts), precision=Precision.FLOAT32
    )
    assert figures.masked_tokens == 4
    assert figures.mlm_loss == pytest.approx(-math.log(0.5**3 * 0.3) / 4, rel=1e-6)
    assert figures.mlm_accuracy == 0.75
    assert figures.unigram_accuracy == 0.25
    assert figures.unigram_loss == pytest.approx(-math.log((2 / 12) ** 3 * 7 / 12) / 4, rel=1e-6)
    assert figures.nsp_loss == pytest.approx(math.log(2), rel=1e-6)
    assert model.was_training == [False, False] and model.training


def test_an_untrained_model_is_worse_than_the_unigram_and_never_better_than_certain() -> None:
    uniform = Fixed([0.0, 0.0, 0.0], [0.0, 0.0])
    figures = evaluate(
        uniform, [batch([1, 1, 0], [0])], UnigramBaseline(np.array([5, 50, 5])), precision=Precision.FLOAT32
    )
    assert figures.unigram_loss < figures.mlm_loss == pytest.approx(math.log(3), rel=1e-6)


@pytest.mark.parametrize(("pairing", "length"), [("nsp", 64), ("none", 60)])
def test_batches_of_one_shape_have_the_losses_metrics_and_gradients_of_their_examples(
    small_corpus: Corpus, pairing: str, length: int
) -> None:
    source = example_source(
        small_corpus, "train", sequence_length=length, seed=0, phase=1, objective=ObjectiveConfig(pairing=pairing)
    )
    plain, fixed = SampleStream(source), SampleStream(source, fixed_shapes=True)
    config = BertConfig(small_corpus.vocabulary_size, 2, 64, 2, 128, maximum_positions=80, dropout=0.0)
    model = BertForPreTraining(config).double()
    shapes = set()
    for first in (0, 4, 8):
        results = []
        own = plain.batch(first, 4)
        for batch in (own, own.padded(80, 100), fixed.batch(first, 4)):
            model.zero_grad()
            output = pretraining_task(model, batch)
            sum(value for value in output.loss_sums.values() if value.requires_grad).backward()  # type: ignore[union-attr]
            gradients = [parameter.grad for parameter in model.parameters()]
            results.append((dict(output.loss_sums), dict(output.correct), batch.counts(), gradients, batch.real_tokens))
        for other in results[1:]:
            torch.testing.assert_close(other, results[0], rtol=1e-6, atol=1e-9)
        shapes.add((*batch.token_ids.shape, len(batch.masked_labels), batch.attention_mask is None))
        assert batch.masked_tokens == own.masked_tokens < len(batch.masked_labels)
    assert shapes == {(4, 64, 4 * max(1, round(length * 20 / 128)), False)}
    unigram = UnigramBaseline(np.ones(small_corpus.vocabulary_size, np.int64))
    evaluations = [evaluate(model, [each.batch(0, 4)], unigram, precision=Precision.FLOAT32) for each in (plain, fixed)]
    for name, value in vars(evaluations[0]).items():
        assert getattr(evaluations[1], name) == (value if value is None else pytest.approx(value, rel=1e-6))
