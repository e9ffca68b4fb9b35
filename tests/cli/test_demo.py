"""The demo from end to end, on little text and few samples."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import write_small_text
from lambert.cli import demo
from lambert.cli.main import main
from lambert.corpus.sources import TextReader

Run = Callable[[], tuple[int, dict[str, object], str]]


@pytest.fixture
def run_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    texts = TextReader([write_small_text(tmp_path / "text.txt", documents=400)])
    documents = [replace(text, source=("torch.a", "numpy.b", "ast")[n % 3]) for n, text in enumerate(texts)]
    monkeypatch.setattr("lambert.corpus.python_docs.python_documents", lambda processes: iter(documents))
    monkeypatch.setattr(demo, "VOCABULARY_SIZE", 200)
    monkeypatch.setattr(demo, "SAMPLES", 2_560)

    def run() -> tuple[int, dict[str, object], str]:
        code = main(["demo", "--out", str(tmp_path / "runs" / "demo"), "--json"])
        printed = capsys.readouterr().out
        return code, json.loads(printed.splitlines()[-1]), printed

    return run


def labels(run: Path) -> str:
    return run.with_name("demo-labels.csv").read_text()


def test_without_the_metrics_the_demo_says_how_to_go_on(run_demo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lambert.cli.demo_classifier.find_spec", lambda name: None)
    _, results, printed = run_demo()
    assert results["classifier"] is None and "pip install 'lambert-bert[finetune]' && lambert finetune" in printed


def test_the_demo_goes_all_the_way_and_says_when_it_has_not_learned(run_demo: Run, tmp_path: Path) -> None:
    code, results, printed = run_demo()
    run = tmp_path / "runs" / "demo"
    assert code == 1, "made-up words in random order cannot be learned"
    assert "rarely beats it" in printed
    assert "<svg" in (run / "report.html").read_text()
    assert (run / "huggingface" / "model.safetensors").is_file()
    assert "lambert prepare FOLDER" in printed and "lambert squad" in printed
    filled = results["filled"]
    assert isinstance(filled, list) and [one["text"] for one in filled] == list(demo.SENTENCES)
    assert all(one["candidates"] for one in filled)
    classifier = results["classifier"]
    assert isinstance(classifier, dict) and (Path(classifier["model"]) / "model.safetensors").is_file()
    assert {"torch", "numpy", "python"} == {line.rsplit(",", 1)[1] for line in labels(run).splitlines()[1:]}
    said = [line.partition("made by: lambert ")[2] for line in printed.splitlines() if "made by: " in line]
    assert [command.split()[0] for command in said] == ["finetune", "embed"]
    vectors = run.with_name("demo-vectors.npy")
    before = np.load(vectors)
    for command in said:
        assert main(shlex.split(command)) == 0  # the classifier from the cache: the same settings
    np.testing.assert_allclose(np.load(vectors), before, atol=1e-5)
    texts = [line.rsplit(",", 1)[1] for line in labels(run).splitlines()[1:]]
    cosines = before @ before.T - 9 * np.eye(len(before))
    same = np.mean([texts[row.argmax()] == text for row, text in zip(cosines, texts, strict=True)])
    embeddings, exported = results["embeddings"], results["export"]
    assert isinstance(embeddings, dict) and isinstance(exported, dict)
    assert embeddings["same_label"] == pytest.approx(same, abs=0.02) and 0.2 < embeddings["by_chance"] < 0.6
    assert (Path(exported["folder"]) / "config.json").is_file()
    weights = Path(exported["folder"]) / "model.safetensors"
    assert weights.read_bytes() == (Path(classifier["model"]) / "model.safetensors").read_bytes()
    again_code, again, printed = run_demo()
    journal = (run / "journal.jsonl").read_text().splitlines()
    assert sum('"event": "run"' in line for line in journal) == 1, "a finished run is shown, not started again"
    assert "Export: " in printed and again["export"] == exported | {"onnx": None}
    weights.write_bytes(b"another")
    assert run_demo()[1]["export"] is None and weights.read_bytes() == b"another"
    assert again_code == code and again["evaluation"] == results["evaluation"] is not None


def test_a_demo_twice_as_good_as_the_guesser_succeeds(run_demo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LEARNED_RATIO", 0.0)
    # Made-up words: a model of a few steps is near the unigram baseline, sometimes just above, sometimes just below.
    monkeypatch.setattr(
        "lambert.training.config.unigram.UnigramBaseline.loss_sum", lambda unigram, labels: 100.0 * len(labels)
    )
    code, _, printed = run_demo()
    assert code == 0 and "times the accuracy of the unigram baseline." in printed
