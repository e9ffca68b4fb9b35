"""The card of a run says what its journal and recipe say, and the Hub can read its metadata."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lambert.cli.main import main
from lambert.report.model_card import render
from lambert.runlog.reader import read_run


def test_the_card_of_an_export(tiny_places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, folder = Path(tiny_places["run"]), tmp_path / "model"
    assert main(["export", str(run), str(folder), "--watts", "60"]) == 0
    assert "Model card" in capsys.readouterr().out
    card = (folder / "README.md").read_text()
    metadata, text = card.split("---\n", 2)[1:]
    assert yaml.safe_load(metadata)["pipeline_tag"] == "fill-mask"
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    last = [event for event in events if event["event"] == "evaluation"][-1]
    assert f"{last['mlm_loss']:.3f} | {last['unigram_loss']:.3f}" in text
    seconds = sum(event["seconds"] for event in events if event["event"] == "step")
    assert f"At 60 watts: {seconds / 3_600 * 60 / 1_000:.3g} kWh" in text
    assert "lambert pretrain" in text and "BertForPreTraining" in text
    assert (run / "huggingface" / "README.md").is_file()


def test_an_early_checkpoint_says_so_and_has_its_own_evaluation(tiny_places: dict[str, str]) -> None:
    run = read_run(Path(tiny_places["run"]))
    first = run.evaluations[0]
    card = render(run, name="mine", step=first.step)
    assert f"the run has {run.steps[-1]} steps so far" in card and f"at step {first.step}," in card
    assert "kWh" not in card


def test_watts_are_a_number(tiny_places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", tiny_places["run"], str(tmp_path / "model"), "--watts", "0"]) == 2
    assert "--watts = 0" in capsys.readouterr().err and not (tmp_path / "model").exists()


def test_the_card_has_the_losses_along_the_run(tiny_places: dict[str, str]) -> None:
    run = read_run(Path(tiny_places["run"]))
    assert len(run.evaluations) > 1
    curve = render(run, name="mine").partition("Along the run")[2].partition("##")[0]
    rows = [line.strip("| ").split(" | ") for line in curve.splitlines() if line.startswith("| ")][2:]
    assert [(row[0], row[1]) for row in rows] == [(f"{one.step}", f"{one.mlm_loss:.3f}") for one in run.evaluations]
    first = render(run, name="mine", step=run.evaluations[0].step)
    assert "Along the run" not in first
