"""How models start: as published from hidden size 768 on, with more gain and sinusoidal positions below."""

from __future__ import annotations

import math

import pytest
import torch

from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config


@pytest.mark.parametrize(("name", "deviation"), [("1x768", 0.02), ("1x128", 1 / math.sqrt(128))])
def test_matrices_start_from_the_deviation_of_their_width(name: str, deviation: float) -> None:
    torch.manual_seed(0)
    model = BertForPreTraining(model_config(name, vocabulary_size=2_000))
    # A normal cut at two deviations keeps 0.8796 of its deviation.
    for weight in (model.encoder.embeddings.word.weight, model.encoder.blocks[0].feed_forward.expand.weight):
        assert weight.std().item() == pytest.approx(0.8796 * deviation, rel=0.02)
        assert weight.abs().max().item() <= 2 * deviation
    assert model.encoder.blocks[0].attention.query.bias.eq(0).all()
    assert model.encoder.embeddings.layer_norm.weight.eq(1).all()


def test_narrow_models_know_neighbours_by_one_rotation() -> None:
    """In sinusoidal positions the product of two places depends on their distance alone."""
    model = BertForPreTraining(model_config("1x128", vocabulary_size=100))
    positions = model.encoder.embeddings.position.weight.detach()
    products = positions @ positions.T
    for distance in (0, 1, 7, 100):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-3, atol=1e-4)
    assert positions.pow(2).mean().sqrt().item() == pytest.approx(1 / math.sqrt(128), rel=1e-4)
    assert positions.requires_grad is False and model.encoder.embeddings.position.weight.requires_grad


def test_published_widths_start_from_random_positions() -> None:
    torch.manual_seed(0)
    positions = BertForPreTraining(model_config("1x768", vocabulary_size=100)).encoder.embeddings.position.weight
    assert positions.std().item() == pytest.approx(0.8796 * 0.02, rel=0.02)
