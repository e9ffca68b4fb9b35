"""The validation set: a model that only copies its input must not look as if it had learned something."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lambert.corpus.store import Corpus
from lambert.corpus.vocabulary import special_tokens
from lambert.data.dataloader import SampleStream, example_source
from lambert.data.objective import BERT_OBJECTIVE
from lambert.model.heads import BertForPreTraining
from lambert.training.config.precision import Precision
from lambert.training.step.evaluation import Validator
from lambert.training.step.pretraining_loss import pretraining_task


class Copier(nn.Module):
    """Predicts the token at the masked position; counts how often that is not [MASK]."""

    def __init__(self, vocabulary_size: int, mask_id: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.vocabulary_size = vocabulary_size
        self.mask_id = mask_id
        self.given_away = 0

    def forward(
        self,
        ids: Tensor,
        segments: Tensor,
        mask: Tensor | None,
        places: Tensor,
        *,
        masked_labels: Tensor,
        **packing: Tensor,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        seen = ids.flatten()[places]
        self.given_away += int((seen != self.mask_id).sum())
        scores = 10 * self.scale * functional.one_hot(seen, self.vocabulary_size)
        losses = functional.cross_entropy(scores, masked_labels, reduction="none")
        return (losses.sum(), losses.detach(), scores.argmax(-1) == masked_labels), torch.zeros(
            len(packing.get("first_positions", ids)), 2
        )


def test_a_copier_scores_nothing(small_corpus: Corpus) -> None:
    special = special_tokens(small_corpus.tokenizer())
    copier = Copier(small_corpus.vocabulary_size, special.mask)
    held_out = Validator(small_corpus, BERT_OBJECTIVE, samples=64)
    model = cast(BertForPreTraining, copier)
    for length in (32, 64):
        figures = held_out.measure(model, length, Precision.FLOAT32)
        assert figures is not None and figures.masked_tokens > 50
        assert figures.mlm_accuracy == 0.0 < figures.unigram_accuracy
    assert copier.given_away == 0


@pytest.mark.parametrize("packs", [False, True])
def test_a_copier_scores_nothing_at_mask_tokens_in_training_either(small_corpus: Corpus, packs: bool) -> None:
    special = special_tokens(small_corpus.tokenizer())
    copier = Copier(small_corpus.vocabulary_size, special.mask)
    source = example_source(small_corpus, "train", sequence_length=64, seed=0, phase=1)
    batch = SampleStream(source, packs=packs).batch(0, 64)
    output, counts = pretraining_task(copier, batch), batch.counts()
    assert 0.7 < counts["mask"] / counts["mlm"] < 0.9 and 0.05 < output.correct["mlm"] / counts["mlm"] < 0.15
    assert output.correct["mask"] == 0
    assert output.loss_sums["mask"] / counts["mask"] == pytest.approx(10, abs=0.1)  # of the logit of [MASK]


def test_the_yardstick_is_the_same_every_time_and_can_be_left_out(small_corpus: Corpus) -> None:
    special = special_tokens(small_corpus.tokenizer())
    model = cast(BertForPreTraining, Copier(small_corpus.vocabulary_size, special.mask))
    measured = [
        Validator(small_corpus, BERT_OBJECTIVE, samples=16).measure(model, 32, Precision.FLOAT32) for _ in range(2)
    ]
    assert measured[0] == measured[1]
    assert Validator(small_corpus, BERT_OBJECTIVE, samples=0).measure(model, 32, Precision.FLOAT32) is None
