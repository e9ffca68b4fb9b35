"""Folders of `transformers` that lack a head, or hold more: the run says what is newly initialised, and records it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import lambert
from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.training.config.unigram import UnigramBaseline

MLM = [f"mlm_head.{name}" for name in ("bias", "transform.weight", "transform.bias")]
MLM += ["mlm_head.layer_norm.weight", "mlm_head.layer_norm.bias"]
POOLER, NSP = ["pooler.dense.weight", "pooler.dense.bias"], ["nsp_head.weight", "nsp_head.bias"]
OPTIONS: dict[str, Any] = {
    "batch_size": 8, "samples": 16, "sequence_lengths": 16, "learning_rate": 1e-9, "probe_seconds": 0,
    "evaluation_samples": 8, "optimizer": "adamw",
}  # fmt: skip


def published(folder: Path, corpus: Corpus, architecture: str) -> Path:
    """A folder as `transformers` writes it."""
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=corpus.vocabulary_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=32, max_position_embeddings=32, num_labels=3,
    )  # fmt: skip
    getattr(transformers, architecture)(config).save_pretrained(folder)
    save_tokenizer(corpus.tokenizer(), folder, longest_sequence=32)
    return folder


@pytest.mark.parametrize(
    ("architecture", "fresh", "unused"),
    [
        ("BertForPreTraining", [], []),
        ("BertForMaskedLM", POOLER + NSP, []),
        ("BertModel", MLM + NSP, []),
        ("BertForSequenceClassification", MLM + NSP, ["classifier.bias", "classifier.weight"]),
    ],
)
def test_a_run_says_which_weights_it_lacks_and_which_it_leaves(
    small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    architecture: str, fresh: list[str], unused: list[str],
) -> None:  # fmt: skip
    folder = published(tmp_path / "model", small_corpus, architecture)
    lambert.pretrain(small_corpus, out=tmp_path / "run", init_from=folder, **OPTIONS)
    said = capsys.readouterr().out
    recorded = json.loads((tmp_path / "run" / "journal.jsonl").read_text().splitlines()[0])["initial_weights"]
    assert sorted(recorded["freshly_initialised"]) == sorted(fresh) and recorded["unused"] == unused
    assert all(name in said for name in fresh + unused)
    assert ("newly initialised" in said) == bool(fresh) and ("not used" in said) == bool(unused)
    bias = load_file(tmp_path / "run" / "huggingface" / "model.safetensors")["cls.predictions.bias"]
    if "mlm_head.bias" in fresh:
        frequencies = UnigramBaseline(small_corpus.split("train").token_counts()).log_probabilities
        torch.testing.assert_close(bias, torch.from_numpy(frequencies).float(), rtol=0, atol=1e-6)
    first = json.loads((tmp_path / "run" / "journal.jsonl").read_text().splitlines()[1])
    assert first["step"] == 0 and math.isfinite(first["mlm_loss"])


def test_the_bias_of_the_decoder_is_that_of_the_head(small_corpus: Corpus, tmp_path: Path) -> None:
    """Some folders hold it under this name alone, and `transformers` reads it."""
    folder = published(tmp_path / "model", small_corpus, "BertForPreTraining")
    weights = load_file(folder / "model.safetensors")
    weights["cls.predictions.decoder.bias"] = weights.pop("cls.predictions.bias") + 3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = lambert.BertForPreTraining.from_pretrained(folder)
    theirs = transformers.BertForPreTraining.from_pretrained(folder)
    torch.testing.assert_close(model.mlm_head.bias, theirs.cls.predictions.decoder.bias)
    assert torch.all(model.mlm_head.bias == 3)
