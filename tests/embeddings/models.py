"""Folders of models with random weights, of both architectures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lambert.corpus.vocabulary import train_vocabulary
from lambert.model.bert import BertConfig
from lambert.model.heads import pretraining_model
from lambert.model.modernbert import ModernBertConfig
from lambert.training.checkpoint.export import write_model as export

TEXTS = [
    "the old clerk opened the garden in june",
    "the clerk",
    "in june the old garden opened , and the clerk closed the garden again in july",
    "july",
    "an old garden",
]


def write_model(folder: Path, architecture: str, *, seed: int = 0, dropout: float = 0.0) -> Path:
    """Two layers of 32 with 64 positions, whose vectors of different texts differ clearly."""
    tokenizer = train_vocabulary(TEXTS * 3, 120, cased=False)
    kind = ModernBertConfig if architecture == "modernbert" else BertConfig
    sizes = {"layers": 2, "hidden_size": 32, "attention_heads": 2, "feed_forward_size": 64, "maximum_positions": 64}
    torch.manual_seed(seed)
    config = kind(vocabulary_size=tokenizer.get_vocab_size(), dropout=dropout, initializer_range=0.2, **sizes)
    export(pretraining_model(config), tokenizer, folder)
    return folder


@pytest.fixture(scope="session", params=["bert", "modernbert"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each architecture."""
    return write_model(tmp_path_factory.mktemp(request.param) / "model", request.param)
