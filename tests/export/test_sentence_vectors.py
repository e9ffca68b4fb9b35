"""`export --sentence-transformers`: that library opens the folder and gives the vectors of `transformers`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tests.embeddings.models import TEXTS, write_model

import lambert
from lambert.cli.main import main
from lambert.errors import UserError

sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")


@torch.no_grad()
@pytest.mark.parametrize(("architecture", "pooling"), [("bert", "mean"), ("modernbert", "cls")])
def test_the_library_gives_the_pooled_outputs_of_transformers(architecture: str, pooling: str, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    source = write_model(tmp_path / "model", architecture)
    exported = lambert.export_model(source, tmp_path / "out", sentence_transformers=True, pooling=pooling)
    assert exported.pooling == pooling and exported.checked_with_transformers
    found = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(TEXTS)
    tokens = AutoTokenizer.from_pretrained(source)(TEXTS, return_tensors="pt", padding=True)
    hidden = AutoModel.from_pretrained(source).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    expected = hidden[:, 0] if pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    copied = lambert.export_model(tmp_path / "out", tmp_path / "copy")  # keeps its layout
    assert copied.pooling is None
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "copy"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_the_card_of_a_run_is_one_of_that_library(tiny_places: dict[str, str], tmp_path: Path) -> None:
    assert main(["export", tiny_places["run"], str(tmp_path / "out"), "--sentence-transformers"]) == 0
    metadata, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)[1:]
    assert yaml.safe_load(metadata)["library_name"] == "sentence-transformers"
    assert "SentenceTransformer(" in text and "fill-mask" not in metadata
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out"]


def test_options_of_sentence_vectors_are_refused_without_them(tiny_places: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="for sentence vectors"):
        lambert.export_model(tiny_places["run"], tmp_path / "out", pooling="cls")
    with pytest.raises(UserError, match="unknown pooling 'max'"):
        lambert.export_model(tiny_places["run"], tmp_path / "out", pooling="max", sentence_transformers=True)


def test_a_vocabulary_alone_is_read_as_cased_when_asked(tiny_places: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`cased=True`"):
        lambert.export_model(tiny_places["cased"], tmp_path / "out", sentence_transformers=True)
    lambert.export_model(tiny_places["cased"], tmp_path / "out", sentence_transformers=True, cased=True)
    found = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(found, lambert.embed(tiny_places["cased"], TEXTS, cased=True), atol=1e-5)
