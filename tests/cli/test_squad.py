"""`lambert squad` from outside: seeds cached, rates tried, v2.0 files, predictions scored."""

from __future__ import annotations

import io
import json
import sys
from html import escape
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.squad.articles import CAFE, HARBOUR, squad_document
from lambert.cli.finetune_progress import fine_tune_progress
from lambert.cli.main import main
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.corpus.vocabulary import train_vocabulary
from lambert.finetune.settings import FineTuneProgress
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import save_model

FAST = ["--epochs", "1", "--sequence-length", "80", "--batch-size", "4", "--precision", "float32"]
ANSWERS = [(HARBOUR, "a", "Edna Marlowe"), (HARBOUR, "b", "1843"), (CAFE, "c", "1921")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("squad") / "model"
    tokenizer = train_vocabulary([HARBOUR, CAFE] * 3, 400, cased=False)
    config = BertConfig(
        vocabulary_size=tokenizer.get_vocab_size(), layers=1, hidden_size=32, attention_heads=2, feed_forward_size=64,
        maximum_positions=80,
    )  # fmt: skip
    save_model(BertForPreTraining(config), path)
    save_tokenizer(tokenizer, path)
    return str(path)


@pytest.fixture
def v1(tmp_path: Path) -> str:
    entries = [(context, [(name, "Which?", [(text, context.index(text))])]) for context, name, text in ANSWERS]
    path = tmp_path / "v1.json"
    path.write_text(json.dumps(squad_document(*entries)))
    return str(path)


@pytest.fixture
def v2(tmp_path: Path, v1: str) -> str:
    document = json.loads(Path(v1).read_text()) | {"version": "v2.0"}
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            name = f"no-{paragraph['qas'][0]['id']}"
            paragraph["qas"].append({"id": name, "question": "Why?", "answers": [], "is_impossible": True})
    path = tmp_path / "v2.json"
    path.write_text(json.dumps(document))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, dict[str, Any]]:
    """What a subcommand prints, and its results."""
    assert main([*arguments, "--json"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    return "\n".join(lines), json.loads(last)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_seeds_with_their_interval_are_not_repeated(
    model: str, v1: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["squad", model, "--train", v1, "--dev", v1, "--out", str(out), "--seeds", "2", *FAST]
    text, results = run(capsys, *command)
    assert "over 2 seeds" in text and "95 % confidence interval" in text and "cached" not in text
    assert f'AutoModelForQuestionAnswering.from_pretrained("{out / "model"}")' in text
    page = (out / "report.html").read_text()
    low, high = results["exact_match_interval"]
    assert f"{low:.2f} to {high:.2f}" in page and 'data-chart="loss"' in page
    assert all(f"<h2>{name}</h2>" in page for name in ("By question word", "By length of the answer", "Worst errors"))
    assert all(escape(one["passage"]) in page for one in results["details"]["errors"])
    low, high = results["f1_interval"]
    assert low <= results["f1"] <= high and results["confidence"] == 0.95 and results["version"] == "1.1"
    assert set(json.loads((out / "predictions-seed-1.json").read_text())) == {"a", "b", "c"}
    text, again = run(capsys, *command)
    assert text.count("(cached)") == 2
    assert again["f1"] == results["f1"]
    assert "train" in refused(capsys, *command, "--train-questions", "1") and (out / "squad.json").exists()
    text, _ = run(capsys, *command, "--train-questions", "1", "--fresh")
    assert "cached" not in text


def test_rates_and_version_2(model: str, v2: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    text, results = run(
        capsys, "squad", model, "--train", v2, "--dev", v2, "--out", str(out), "--learning-rates", "1e-5", "1e-3",
        "--null-threshold", "-0.5", *FAST,
    )  # fmt: skip
    assert "1 of 3 paragraphs" in text or "1 of 2 paragraphs" in text
    assert "chosen: " in text and "at an end of the list" in text and "without: exact match" in text
    assert results["version"] == "2.0" and results["no_answer"]["questions"] == 3
    page = (out / "report.html").read_text()
    assert "With the best threshold of each seed" in page and "Learning rates, on 1 of" in page
    assert "F1 without an answer" in page
    assert results["settings"]["null_threshold"] == -0.5 and len(results["tuning"]["trials"]) == 2
    odds = json.loads((out / "null_odds.json").read_text())
    predictions = json.loads((out / "predictions.json").read_text())
    spans = json.loads((out / "spans.json").read_text())
    assert predictions == {name: "" if odds[name] > -0.5 else spans[name] for name in spans}
    _, scored = run(
        capsys, "squad", "--score", str(out / "spans.json"), "--dev", v2, "--null-odds", str(out / "null_odds.json"),
        "--null-threshold", "-0.5",
    )  # fmt: skip
    assert scored["f1"] == results["f1"] and scored["no_answer"] == results["no_answer"]
    assert scored["best"] == results["seeds"][0]["best"] and scored["missing"] == 0
    text, scored = run(capsys, "squad", "--score", str(out / "predictions.json"), "--dev", v2)
    assert scored["f1"] == results["f1"] and scored["best"] is None
    assert "best with any threshold" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("squad MODEL --out OUT --null-odds V1", "--null-odds without --score"),
        ("squad --score V1 --dev V1 --null-threshold 1", "--null-threshold without --null-odds"),
        ("squad MODEL --score V1 --dev V1", "both a model and --score"),
        ("squad MODEL --train V1 --dev V2 --out OUT", "same version"),
        (
            "squad MODEL --train V1 --dev V1 --out OUT --learning-rate 1e-3 --learning-rates 1e-3 1e-4",
            "both --learning-rate and --learning-rates",
        ),
    ],
)
def test_what_does_not_go_together(
    words: str, said: str, model: str, v1: str, v2: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"MODEL": model, "V1": v1, "V2": v2, "OUT": str(tmp_path / "out")}
    assert said in refused(capsys, *(names.get(word, word) for word in words.split()))


def test_a_bar_on_a_terminal_leaves_a_piped_output_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with fine_tune_progress() as show:
        show(FineTuneProgress(1, "evaluating", 10, 40, 5.0, run="seed 1 (2 of 3)"))
        print("a result")
    assert capsys.readouterr().out == "a result\n"
    assert "seed 1 (2 of 3), evaluating" in terminal.getvalue() and "a result" not in terminal.getvalue()


def test_progress_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with fine_tune_progress(clock=lambda: now[0]) as show:
        for done, seconds in ((1, 5.0), (2, 40.0), (3, 41.0), (4, 42.0)):
            now[0] = seconds
            show(FineTuneProgress(1, "training", done, 4, seconds, 2.5, 1e-3, "seed 1 (2 of 3)"))
    assert capsys.readouterr().err.splitlines() == [
        "seed 1 (2 of 3), training: 2 of 4 steps, loss 2.500, 40 s left",
        "seed 1 (2 of 3), training: 4 of 4 steps, loss 2.500",
    ]
