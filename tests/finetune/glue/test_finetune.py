"""Sequences as BERT makes them, learning, repeating, and the files of a task."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from finetune.squad.articles import CAFE, HARBOUR
from lambert.cli.main import main
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.corpus.vocabulary import train_vocabulary
from lambert.errors import UserError
from lambert.finetune import job
from lambert.finetune.glue.api import finetune_glue
from lambert.finetune.glue.tasks import find_task
from lambert.finetune.inputs import make_batch
from lambert.finetune.labelled.results import LabelledResult
from lambert.finetune.labelled.runner import preset_of
from lambert.finetune.labelled.sequences import LabelledSettings, encode_examples, truncated_lengths
from lambert.finetune.labelled.task import Example
from lambert.finetune.loop import fine_tune, predict
from lambert.finetune.model import load_with_head
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining, BertForSequenceClassification
from lambert.model.huggingface import save_model

WORDS = HARBOUR.split()
GOOD, BAD = "harbour pier boats", "storm broke the lamp"
EXAMPLES = [Example(f"{GOOD if n % 2 else BAD} {WORDS[n]}", None, n % 2) for n in range(12)]
SETTINGS = LabelledSettings(learning_rate=5e-3, epochs=40, batch_size=6, micro_batch_size=4, sequence_length=24)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_vocabulary([HARBOUR, CAFE] * 3, 400, cased=False)


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("glue") / "model"
    config = BertConfig(
        vocabulary_size=tokenizer.get_vocab_size(), layers=1, hidden_size=32, attention_heads=2, feed_forward_size=64,
        maximum_positions=32, dropout=0.0,
    )  # fmt: skip
    save_model(BertForPreTraining(config), path)
    save_tokenizer(tokenizer, path)
    return path


def _load(folder: Path, task: str, **options: Any) -> BertForSequenceClassification:
    return load_with_head(
        folder, partial(BertForSequenceClassification, classes=find_task(task).task.classes), **options
    )[0]


def test_sequences_equal_those_of_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_tokenizer(tokenizer, tmp_path)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    examples = [Example(HARBOUR, None, 0), Example("Edna", CAFE, 0), Example(HARBOUR, "1843", 0)]
    for example, ours in zip(
        examples, encode_examples(examples, tokenizer, dataclasses.replace(SETTINGS, sequence_length=20)), strict=True
    ):
        theirs = oracle(example.first, example.second, max_length=20, truncation="longest_first")
        assert ours.token_ids.tolist() == theirs["input_ids"]
        assert (np.arange(len(ours.token_ids)) >= ours.second_start).tolist() == theirs["token_type_ids"]


def test_the_longer_text_is_truncated() -> None:
    assert [
        truncated_lengths(10, 3, 8),
        truncated_lengths(3, 10, 8),
        truncated_lengths(10, 10, 7),
        truncated_lengths(2, 3, 8),
    ] == [(5, 3), (3, 5), (4, 3), (2, 3)]


def test_the_loss_whatever_the_padding(folder: Path, tokenizer: Tokenizer) -> None:
    for name, label in (("sst-2", 1.0), ("sts-b", 3.5)):
        model, preset = _load(folder, name, seed=1), preset_of(find_task(name).task)
        model.eval()
        sequences = encode_examples([Example("Edna", None, label), Example(HARBOUR, None, label)], tokenizer, SETTINGS)
        batch = make_batch(sequences, pad_id=0)
        scores = [
            model(one.token_ids, one.segment_ids, None)[0]
            for one in (make_batch([sequence], pad_id=0) for sequence in sequences[1:])
        ]
        together = preset.task(model, batch).loss_sums["sequence"].item()
        first = preset.task(model, make_batch(sequences[:1], pad_id=0)).loss_sums["sequence"].item()
        by_hand = (scores[0][0] - label) ** 2 if name == "sts-b" else -scores[0].log_softmax(0)[int(label)]
        assert together - first == pytest.approx(by_hand.item(), rel=1e-4)


def test_learns_and_repeats_itself(folder: Path, tokenizer: Tokenizer) -> None:
    task, preset = "sst-2", preset_of(find_task("sst-2").task)
    ends = []
    for seed in (1, 1, 2):
        torch.rand(seed)
        model = _load(folder, task, seed=seed)
        ends.append(fine_tune(model, tokenizer, preset, EXAMPLES, SETTINGS, seed=seed).train_loss)
        labels = predict(model, tokenizer, preset, EXAMPLES, SETTINGS).values["labels"]
        assert labels == [example.label for example in EXAMPLES]
    assert ends[0] == ends[1] != ends[2] and max(ends) < 0.4
    one_by_one = dataclasses.replace(SETTINGS, batch_size=1)
    assert predict(model, tokenizer, preset, EXAMPLES, one_by_one).values["labels"] == labels


def test_the_pretrained_pooler_is_taken(folder: Path) -> None:
    task = "mrpc"
    one, other = (_load(folder, task, seed=seed) for seed in (1, 2))
    fresh = _load(folder, task, seed=1, random_weights=True)
    assert torch.equal(one.pooler.dense.weight, other.pooler.dense.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert not torch.equal(one.pooler.dense.weight, fresh.pooler.dense.weight)


def test_a_regression_over_seeds(folder: Path) -> None:
    examples = [Example(GOOD if n % 2 else BAD, WORDS[n], 5.0 * (n % 2)) for n in range(8)]
    result = finetune_glue(folder, "sts-b", data=(examples, examples), settings=SETTINGS, seeds=2)
    assert result.metrics["pearson"] > 90 and set(result.metrics) == {"pearson", "spearman"}
    assert result.score == pytest.approx(np.mean([seed.score for seed in result.seeds]))
    assert result.score_interval is not None and result.majority_baseline == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize(("task", "label"), [("cola", 1), ("sts-b", 2.5)])
def test_examples_of_one_label_are_told(
    folder: Path, caplog: pytest.LogCaptureFixture, task: str, label: float
) -> None:
    """As of a file in order of its labels, of which the first few are taken."""
    one, other = Example(GOOD, None, label), Example(BAD, None, 0)
    settings = dataclasses.replace(SETTINGS, epochs=1)
    finetune_glue(folder, task, data=([one, one, other], [one, other]), settings=settings)
    assert "the same label" not in caplog.text
    finetune_glue(folder, task, data=([one, one, other], [one]), settings=settings, train_examples=2)
    assert f"all 2 training examples of {task} have the same label" in caplog.text
    assert f"all 1 dev examples of {task} have the same label" in caplog.text


def test_finished_seeds_are_not_repeated(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(seeds: int, **options: Any) -> LabelledResult:
        data = (EXAMPLES, EXAMPLES)
        return finetune_glue(folder, "sst-2", data=data, settings=SETTINGS, seeds=seeds, out=tmp_path, **options)

    first = run(1, epochs=1)
    monkeypatch.setattr(job, "fine_tune", lambda *args, **options: pytest.fail("trained again"))
    again = run(1, epochs=1)
    assert again.seeds == (dataclasses.replace(first.seeds[0], reused=True),) and not first.seeds[0].reused
    with pytest.raises(UserError, match=r"seed-0.json was made from .*\(settings.epochs: 1 there, 40 now\)"):
        run(2)


def test_from_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["sentence\tlabel", *(f"{example.first}\t{example.label:.0f}" for example in EXAMPLES)]
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    command = ["glue", str(folder), "sst-2", "--data", str(tmp_path), "--out", str(out), "--sequence-length", "24"]
    assert main([*command, "--seeds", "2", "--epochs", "1", "--precision", "float32", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    results = json.loads(lines[-1])
    assert results == json.loads((out / "glue.json").read_text())
    assert results["majority_baseline"] == {"accuracy": 50.0} and "over 2 seeds" in "\n".join(lines)
    assert set(json.loads((out / "predictions-seed-1.json").read_text())) <= {"0", "1"}
    low, high = results["metric_intervals"]["accuracy"]
    mean = f"{results['metrics']['accuracy']:.2f} ({low:.2f} to {high:.2f})"
    own = next(line for line in lines if line.startswith("this model"))
    assert mean in own and "mean of 2 seeds" in own
    text, page = "\n".join(lines), (out / "report.html").read_text()
    dev, test = text.index("sst-2, development set"), text.index("sst-2, test set")
    assert "[1] Clark et al. 2020" in text and "Table 6" in text[test:]
    assert dev < text.index("majority class  ") < text.index("BERT-Base, 110M") < test < text.index("BERT-Tiny")
    base = next(one for one in results["published"] if one["model"] == "BERT-Base, 110M")
    assert base["split"] == "dev" and base["metrics"] == {"accuracy": 92.9} and "Table 6" in base["source"]
    assert all(one["model"] in page and one["source"] in page for one in results["published"]) and mean in page
    assert main([*command[:2], "sst2", *command[3:]]) == 2
    assert "Did you mean 'sst-2'" in capsys.readouterr().err
    assert main([*command, "--sequence-length", "64", "--fresh"]) == 2
    assert "do not fit a model of 32 positions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"epochs": 0}, "`epochs` = 0"), ({"learning_rate": 0.0}, "learning_rate"), ({"optimizer": "adam"}, "'adamw'")],
)
def test_impossible_settings(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        dataclasses.replace(SETTINGS, **changes)  # type: ignore[arg-type]
