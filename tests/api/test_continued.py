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
from lambert.cli.main import main
from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.training.config.arguments import RecipeArguments
from lambert.training.config.resolve import resolve_config
from lambert.training.config.starting_model import load_starting_model
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
    assert ("newly initialised, as" in said) == bool(fresh) != ("none newly initialised" in said) and (
        "not used" in said
    ) == bool(unused)
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


def changed(folder: Path, *, more: tuple[str, ...] = (), **settings: Any) -> Path:
    """A vocabulary like that of a model's folder, with further entries or other settings."""
    entries = (folder / "vocab.txt").read_text() + "".join(f"{entry}\n" for entry in more)
    other = folder.with_name("vocabulary")
    other.mkdir()
    (other / "vocab.txt").write_text(entries)
    (other / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, **settings}))
    return other


def asked(folder: Path) -> RecipeArguments:
    """A run that continues a model."""
    return RecipeArguments.of(init_from=folder, batch_size=8, samples=16, sequence_lengths=16)


def corpus_with(vocabulary: Path, text: str = "bada fefi kudu lupo\nbada lupo\n\n") -> Corpus:
    """A small text prepared with it."""
    file = vocabulary.with_name("text.txt")
    file.write_text(text * 40)
    return lambert.build_corpus([file], vocabulary.with_name("prepared"), vocab=vocabulary, validation_fraction=0)


@pytest.mark.parametrize("rows", [0, 7])  # of the model, beyond its vocabulary: 3 of them are used, 4 stay padding
def test_entries_that_were_added_start_from_the_mean(
    small_corpus: Corpus, tmp_path: Path, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = published(tmp_path / "model", small_corpus, "BertForPreTraining")
    if rows:
        theirs = transformers.BertForPreTraining.from_pretrained(folder)
        theirs.resize_token_embeddings(small_corpus.vocabulary_size + rows, mean_resizing=False)
        theirs.save_pretrained(folder)
    corpus = corpus_with(changed(folder, more=("kudu", "zupo", "##xyz")), "bada fefi kudu zupo\nbada zupo\n\n")
    known, wanted = small_corpus.vocabulary_size, corpus.vocabulary_size
    assert wanted == known + 3
    settings = resolve_config(asked(folder), corpus)
    model, report = load_starting_model(settings, folder, corpus)
    published_words = load_file(folder / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    words = model.encoder.embeddings.word.weight
    assert len(words) == max(wanted, known + rows) == settings.model.vocabulary_size and report.grown == 3
    torch.testing.assert_close(words[:known], published_words[:known])
    torch.testing.assert_close(words[known:wanted], published_words[:known].mean(0).expand(3, -1))
    torch.testing.assert_close(words[wanted:], published_words[wanted:])
    said = f"weights   3 new entries of the vocabulary start from the mean of {folder}'s"
    plan = ["plan", "--corpus", str(corpus.path), "--init-from", str(folder), "--batch-size", "8", "--samples", "16"]
    for more in (
        ["--no-probe"],
        ["--dry-run", "2", "--micro-batch-size", "4"],
        ["--cluster", "dgx-a100", "--chips", "8"],
    ):
        capsys.readouterr()
        assert main([*plan, "--sequence-lengths", "16", *more]) == 0
        assert capsys.readouterr().out.count(said) == 1, more
    out = lambert.pretrain(corpus, out=tmp_path / "run", init_from=folder, **OPTIONS).out
    assert capsys.readouterr().out.count(said) == 1
    assert main([*plan[:2], str(small_corpus.path), *plan[3:], "--sequence-lengths", "16", "--no-probe"]) == 0
    assert "new entries" not in capsys.readouterr().out
    again = lambert.BertForPreTraining.from_pretrained(out)
    assert again.config.vocabulary_size == len(words) and lambert.fill_mask(out, "bada [MASK]", top_k=1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"strip_accents": False}, "strip_accents is True, not False"),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars is True, not False"),
        ({"additional_special_tokens": ["ba"]}, "'ba' is not the same added token"),
    ],
)
def test_a_corpus_of_the_same_entries_but_other_rules_is_refused(
    small_corpus: Corpus, tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    folder = published(tmp_path / "model", small_corpus, "BertForPreTraining")
    corpus = corpus_with(changed(folder, **settings))
    with pytest.raises(lambert.UserError, match=named):
        resolve_config(asked(folder), corpus)


def test_other_entries_are_refused(small_corpus: Corpus, tmp_path: Path) -> None:
    folder = published(tmp_path / "model", small_corpus, "BertForPreTraining")
    other = changed(folder)
    entries = (other / "vocab.txt").read_text().splitlines()
    entries[-1], entries[-2] = entries[-2:]
    (other / "vocab.txt").write_text("".join(f"{entry}\n" for entry in entries))
    with pytest.raises(lambert.UserError, match=f"has the id {len(entries) - 2}, not {len(entries) - 1}"):
        resolve_config(asked(folder), corpus_with(other))


def test_a_folder_that_does_not_say_its_case_is_read_as_the_corpus(small_corpus: Corpus, tmp_path: Path) -> None:
    """And with `cased` by the commands that have no corpus."""
    folder = published(tmp_path / "model", small_corpus, "BertForMaskedLM")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    kept = (folder / "vocab.txt").read_text().splitlines()[:-26]
    (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in [*kept, *(chr(65 + n) for n in range(26))]))
    (tmp_path / "text.txt").write_text("Bada Fefi kudu lupo\nBada lupo\n\n" * 40)
    options: dict[str, Any] = {"vocab": folder, "cased": True, "validation_fraction": 0}
    corpus = lambert.build_corpus([tmp_path / "text.txt"], tmp_path / "cased", **options)
    assert resolve_config(asked(folder), corpus)
    assert lambert.fill_mask(folder, "Bada [MASK]", cased=True)
    with pytest.raises(lambert.UserError, match="Add `cased=True`"):
        lambert.fill_mask(folder, "Bada [MASK]")
    with pytest.raises(lambert.UserError, match="again with `lambert prepare --vocab .*model --cased`"):
        resolve_config(asked(folder), small_corpus)
