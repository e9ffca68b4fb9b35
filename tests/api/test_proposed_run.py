"""A run of which nothing was said but the corpus: it trains as proposed, and the same call resumes it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

import lambert
from lambert.cli.main import main
from lambert.corpus.store import Corpus
from lambert.planning import proposal
from lambert.training.config.recipe_io import load_recipe
from lambert.utils.io import file_sha256


@pytest.fixture(autouse=True)
def one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time would suffice for many more."""
    monkeypatch.setattr(proposal, "MOST_EPOCHS", 1)


OPTIONS: dict[str, Any] = {"model": "1x16", "probe_seconds": 0, "progress": False}


class StopsAt(lambert.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Any, record: Any) -> None:
        if record["step"] == self.step:
            trainer.request_stop()


def test_the_same_call_resumes_what_was_proposed(
    small_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the rule would propose something else by then. The weights are those of a run that was not stopped."""
    whole = lambert.pretrain(small_corpus, out=tmp_path / "whole", **OPTIONS)
    stopped = lambert.pretrain(small_corpus, out=tmp_path / "stopped", callbacks=[StopsAt(7)], **OPTIONS)
    assert whole.finished and not stopped.finished
    monkeypatch.setattr(proposal, "SMALLEST_BATCH", 8)
    monkeypatch.setattr(proposal, "SHORT_LENGTHS", (16, 32))
    resumed = lambert.pretrain(small_corpus, out=tmp_path / "stopped", **OPTIONS)
    assert resumed.resumed_from_step == 7 and resumed.finished
    weights = [file_sha256(tmp_path / name / "huggingface" / "model.safetensors") for name in ("whole", "stopped")]
    assert weights[0] == weights[1]


def test_the_command_written_down_says_every_number(small_corpus: Corpus, tmp_path: Path) -> None:
    lambert.pretrain(small_corpus, out=tmp_path / "run", **OPTIONS)
    command = tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())["command"]
    recipe = load_recipe(str(tmp_path / "run"))
    assert f"--batch-size {recipe.batch_sizes[0]}" in command and "--optimizer muon" in command
    assert "--samples" in command and "--hours" not in command


def test_a_plan_proposes_what_the_run_does(small_corpus: Corpus, tmp_path: Path) -> None:
    planned = lambert.plan(small_corpus, model="1x16", probe_seconds=None)
    lambert.pretrain(small_corpus, out=tmp_path / "run", **OPTIONS)
    recipe = load_recipe(str(tmp_path / "run"))
    assert [phase.steps for phase in recipe.phases] == [phase.step_count for phase in planned.config.phases]


def test_the_command_line_says_what_to_type_next(small_corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan of nothing but a corpus ends with the command that trains it, with what was given and no more."""
    words = ["plan", "--corpus", str(small_corpus.path), "--model", "1x16", "--hours", "0.5", "--no-probe"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    out = Path("runs") / small_corpus.path.name
    assert f"Next: lambert pretrain --model 1x16 --hours 0.5 --corpus {small_corpus.path} --out {out}" in lines
    assert main([*words[:3], "--model", "1x16", "--batch-size", "8", "--epochs", "1", "--no-probe"]) == 0
    assert "Next:" not in capsys.readouterr().out
