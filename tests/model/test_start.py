"""How models start: BERT's truncated normal, wider below hidden size 625."""

from __future__ import annotations

import pytest
import torch

from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config


@pytest.mark.parametrize(
    ("name", "deviation"), [("1x1024", 0.02), ("1x768", 0.02), ("1x256", 0.03125), ("1x64", 0.0625)]
)
def test_matrices_start_from_the_deviation_of_their_width(name: str, deviation: float) -> None:
    torch.manual_seed(0)
    model = BertForPreTraining(model_config(name, vocabulary_size=2_000))
    embeddings = model.encoder.embeddings
    # A normal cut at two deviations keeps 0.8796 of its deviation.
    for weight in (
        embeddings.word.weight,
        embeddings.position.weight,
        model.encoder.blocks[0].feed_forward.expand.weight,
    ):
        assert weight.std().item() == pytest.approx(0.8796 * deviation, rel=0.02)
        assert weight.abs().max().item() <= 2 * deviation
    assert model.encoder.blocks[0].attention.query_key_value.bias.eq(0).all()
    assert embeddings.layer_norm.weight.eq(1).all()
