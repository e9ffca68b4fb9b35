"""`plan` and `pretrain` say what a run will take, and `pretrain` what it took; no bit of the run depends on that."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from lambert.cli.main import main
from lambert.corpus.store import Corpus

SIZES = "--model 1x32 --batch-size 8 --samples 160 --sequence-lengths 16 32 --micro-batch-size 4"
RUN = [*SIZES.split(), "--precision", "float32"]


def events(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


def test_what_was_predicted_stands_beside_what_it_was(
    small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums = []
    for name, seconds in (("with", "5"), ("without", "0")):
        words = ["pretrain", "--corpus", str(small_corpus.path), "--out", str(tmp_path / name), *RUN]
        assert main([*words, "--probe-seconds", seconds]) == 0
        model = tmp_path / name / "huggingface" / "model.safetensors"
        sums.append(hashlib.sha256(model.read_bytes()).hexdigest())
    assert sums[0] == sums[1]
    told = capsys.readouterr().out
    assert "GB in its first steps" in told and "predicted" in told
    (took,) = [event for event in events(tmp_path / "with") if event["event"] == "outcome"]
    (end,) = [event for event in events(tmp_path / "with") if event["event"] == "end"]
    assert took["seconds"] == end["seconds"] and took["memory_bytes"]
    predicted = took["predicted"]
    assert isinstance(predicted, dict) and len(predicted["phase_seconds"]) == 2
    assert predicted["seconds"] == pytest.approx(sum(predicted["phase_seconds"]))
    (plain,) = [event for event in events(tmp_path / "without") if event["event"] == "outcome"]
    assert plain["predicted"] is None


def test_a_run_that_is_gone_on_with_is_not_predicted_again(small_corpus: Corpus, tmp_path: Path) -> None:
    words = ["pretrain", "--corpus", str(small_corpus.path), "--out", str(tmp_path / "run"), *RUN]
    assert main(words) == main(words) == 0
    assert len([event for event in events(tmp_path / "run") if event["event"] == "outcome"]) == 1


def test_plan_predicts_on_several_processes(small_corpus: Corpus, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--corpus", str(small_corpus.path), *RUN, "--processes", "2", "--probe-seconds", "0", "--json"]
    assert main(words) == 0
    told = capfd.readouterr().out
    assert told.count("GB in each process in its first steps") == 1
    results = json.loads(told.splitlines()[-1])
    assert results["seconds"] == results["forecast"]["seconds"] > 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--probe-seconds", "-1"], "a probe of -1.0 seconds"),
        (["--processes", "-2"], "-2 processes"),
        (["--samples", "many"], "--samples many: not a "),
        (["--epochs", "None"], "--epochs None: not a number. "),
        (["--processes", "4000"], "4,000 processes on this machine. Give at most"),
    ],
)
def test_wrong_numbers_get_one_line(
    more: list[str], told: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambert.cli.plan.start_processes", lambda *_, **__: pytest.fail("processes were started"))
    assert main(["plan", *RUN, *more]) == 2
    assert told in capfd.readouterr().err
