"""Sentence vectors beside `transformers` with pooling by hand, and sentence-transformers where it is installed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tests.embeddings.models import TEXTS, write_model

import lambert
from lambert.errors import UserError

LONG = " ".join(["the garden"] * 60)


def by_hand(folder: Path, texts: list[str], pooling: str, length: int = 64) -> np.ndarray:
    """A text at a time, in float64, without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).double().eval()
    rows = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=length)
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state[0]
        rows.append(hidden[0] if pooling == "cls" else hidden.mean(0))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_they_are_those_of_transformers(folder: Path, pooling: str) -> None:
    texts = [*TEXTS, LONG, "", "[SEP] the [MASK] garden"]
    found = lambert.embed(folder, texts, pooling=pooling, batch_size=3)
    wanted = by_hand(folder, texts, pooling)
    assert found.dtype == np.float32 and found.shape == (len(texts), 32)
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert np.abs(wanted[0] - wanted[1]).max() > 0.05  # the texts are told apart
    assert np.abs(by_hand(folder, texts, "mean") - by_hand(folder, texts, "cls")).max() > 0.05


def test_a_text_has_the_same_vector_in_any_batch(folder: Path) -> None:
    alone = np.concatenate([lambert.embed(folder, [text]) for text in TEXTS])
    for batch_size in (1, 2, 64):
        np.testing.assert_allclose(lambert.embed(folder, TEXTS, batch_size=batch_size), alone, atol=1e-5)


def test_normalized_vectors_have_length_one(folder: Path) -> None:
    plain, unit = lambert.embed(folder, TEXTS), lambert.embed(folder, TEXTS, normalize=True)
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)


def test_a_shorter_length_truncates_as_transformers_does(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = lambert.embed(folder, [LONG, "july"], sequence_length=10)
    np.testing.assert_allclose(found, by_hand(folder, [LONG, "july"], "mean", 10), atol=2e-5)
    assert "1 of 2 texts have more than 10 tokens" in caplog.text


def test_texts_without_tokens_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    lambert.embed(folder, ["", "july", "  "])
    assert "2 of 3 texts have no tokens" in caplog.text


@pytest.mark.parametrize(("texts", "options", "what"), [
    ([], {}, "no texts"),
    ("july", {}, "no texts"),
    (["july"], {"pooling": "max"}, "unknown pooling"),
    (["july"], {"sequence_length": 2}, "sequence_length"),
    (["july"], {"sequence_length": 65}, "64 positions"),
    (["july"], {"batch_size": 0}, "batch_size"),
])  # fmt: skip
def test_what_is_wrong_is_said(folder: Path, texts: list[str], options: dict, what: str) -> None:
    with pytest.raises(UserError, match=what):
        lambert.embed(folder, texts, **options)


def test_a_model_without_tokenizer_or_with_damaged_weights_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", "bert")
    weights = transformers.BertForPreTraining.from_pretrained(model)
    with torch.no_grad():
        weights.bert.embeddings.LayerNorm.bias.fill_(float("nan"))
    shutil.copytree(model, tmp_path / "nan")
    weights.save_pretrained(tmp_path / "nan")
    with pytest.raises(UserError, match="NaN or infinity of 2 texts"):
        lambert.embed(tmp_path / "nan", ["july", "june"])
    for name in ("tokenizer.json", "vocab.txt"):
        (model / name).unlink()
    with pytest.raises(UserError, match="no vocabulary"):
        lambert.embed(model, ["july"])


def described(folder: Path, to: Path, pooling: dict[str, object], *more: str) -> Path:
    """The model as a folder of sentence-transformers of an older form."""
    shutil.copytree(folder, to)
    kinds = ["Transformer", "Pooling", *more]
    modules = [
        {
            "idx": n,
            "name": str(n),
            "path": "" if n == 0 else f"{n}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for n, kind in enumerate(kinds)
    ]
    (to / "modules.json").write_text(json.dumps(modules))
    (to / "1_Pooling").mkdir()
    (to / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    (to / "sentence_bert_config.json").write_text('{"max_seq_length": 12, "do_lower_case": false}')
    return to


def test_a_folder_of_sentence_transformers_says_how(folder: Path, tmp_path: Path) -> None:
    old = described(
        folder, tmp_path / "old", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "Normalize"
    )
    wanted = by_hand(folder, [*TEXTS, LONG], "cls", 12)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(lambert.embed(old, [*TEXTS, LONG]), wanted, atol=2e-5)
    plain = lambert.embed(old, TEXTS, pooling="mean", normalize=False, sequence_length=64)
    np.testing.assert_allclose(plain, by_hand(folder, TEXTS, "mean"), atol=2e-5)


def test_what_lambert_does_not_compute_is_refused(folder: Path, tmp_path: Path) -> None:
    most = described(folder, tmp_path / "max", {"pooling_mode": "max"})
    with pytest.raises(UserError, match="pools by max"):
        lambert.embed(most, TEXTS)
    dense = described(folder, tmp_path / "dense", {"pooling_mode": "mean"}, "Dense")
    with pytest.raises(UserError, match="module Dense"):
        lambert.embed(dense, TEXTS)
    assert lambert.embed(dense, TEXTS, pooling="mean").shape == (5, 32)


def test_they_are_those_of_sentence_transformers(folder: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    old = described(folder, tmp_path / "old", {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True})
    texts = [*TEXTS, "", LONG, "the [MASK] , in [SEP] june"]
    wanted = library.SentenceTransformer(str(old), device="cpu").encode(texts)
    np.testing.assert_allclose(lambert.embed(old, texts), wanted, atol=2e-5)
