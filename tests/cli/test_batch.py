"""`plan --noise-from`: the trade for each phase, and what a run without usable measurements says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lambert.cli.main import main

PLAN = [
    *("plan", "--model", "tiny", "--batch-size", "256", "--samples", "256000", "--sequence-lengths", "16", "32"),
    *("--precision", "float32", "--micro-batch-size", "64", "--no-probe", "--noise-from"),
]


def noise(step: int, scale: float | None, *, phase: int = 1, error: float | None = 100.0, steps: int = 100) -> Any:
    return {
        "event": "noise",
        "step": step,
        "phase": phase,
        "small_batch": 64,
        "large_batch": 256,
        "noise": 1.0,
        "signal": 1.0,
        "noise_scale": scale,
        "standard_error": error,
        "steps": steps,
    }


def write(run: Path, *records: Any) -> str:
    run.mkdir()
    phases = [
        {
            "event": "phase",
            "phase": number,
            "sequence_length": length,
            "batch_size": 256,
            "first_step": first,
            "steps": 100,
            "peak_learning_rate": 0.01,
            "warmup_steps": 1,
        }
        for number, length, first in ((1, 16, 1), (2, 64, 101))
    ]
    lines = [
        {"event": "run", "format_version": 2, "model": "mini"},
        *phases,
        {"event": "step", "step": 1, "phase": 1, "loss": 7.0},
        *records,
    ]
    (run / "journal.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return str(run)


def test_the_trade_beside_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Noise scale 1,000: twice the batch is 1,512 / 1,256 times the samples. The last record of a phase counts."""
    run = write(tmp_path / "run", *(noise(step, 10.0 * step) for step in (25, 50, 75, 100)), noise(200, 256.0, phase=2))
    assert main([*PLAN, run, "--json"]) == 0
    output = capsys.readouterr().out
    first, second = json.loads(output.splitlines()[-1])["batch_sizes"]
    assert (first["phase"], first["noise_scale"]["value"], first["standard_error"]) == (1, 1_000, 100)
    assert first["largest_that_pays"] == {"value": 1_024, "low": 1_024, "high": 2_048}
    rows = {row["batch_size"]: row for row in first["batches"]}
    assert rows[256]["samples"] == 900 * 256 and rows[256]["steps"] == 900
    assert rows[512]["samples_factor"]["value"] == pytest.approx(1_512 / 1_256)
    assert rows[512]["steps"] == pytest.approx(900 * 1_512 / 1_256 / 2)
    assert second["noise_scale"]["value"] == 256 and second["largest_that_pays"]["value"] == 512
    assert "noise scale 1,000 sequences (833 to 1,250, two standard errors)" in output
    assert "a quarter, a half and three quarters into that phase it was 500, 750, 1,000" in output
    assert "measured with the model 'mini', and the plan is for 'tiny'" in output
    assert "measured at 64 tokens, and this phase has 32" in output and "at 16 tokens" not in output


def test_a_phase_that_was_not_measured_takes_the_last_one_that_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PLAN, write(tmp_path / "run", noise(100, 1_000.0)), "--json"]) == 0
    phases = json.loads(capsys.readouterr().out.splitlines()[-1])["batch_sizes"]
    assert [phase["measured_in_phase"] for phase in phases] == [1, 1]


def test_a_noise_scale_without_an_upper_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two standard errors down, the signal is zero; there is no infinity in JSON."""
    assert main([*PLAN, write(tmp_path / "run", noise(100, 1_000.0, error=500.0)), "--json"]) == 0
    output = capsys.readouterr().out
    first = json.loads(output.splitlines()[-1], parse_constant=pytest.fail)["batch_sizes"][0]
    assert (first["noise_scale"]["high"], first["largest_that_pays"]["high"]) == (None, None)
    assert "(500 to any number, two" in output and "512 to any" in output


def test_a_phase_that_is_not_known_well_enough_says_so_and_the_other_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write(tmp_path / "run", noise(100, 1_000.0), noise(200, None, phase=2, error=None))
    assert main([*PLAN, run, "--json"]) == 0
    output = capsys.readouterr().out
    first, second = json.loads(output.splitlines()[-1])["batch_sizes"]
    assert first["noise_scale"]["value"] == 1_000 and "four times as many, 400" in second["problem"]
    assert "phase 2: after 100 measured steps the gradient's signal has not come out above its noise" in output


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([], "has measured no gradient noise. Give one with some hundred steps, each of several micro-batches"),
        ([noise(1, 1_000.0, steps=20)], "rests on 20 measured steps, and 30 are the least"),
        ([noise(1, 1_000.0, error=800.0)], "rests on some 1,600 steps (20 %)"),
        ([{**noise(1, 1_000.0), "small_batch": None}], "has measured no gradient noise"),
    ],
)
def test_runs_that_say_nothing_are_refused(
    records: list[Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PLAN, write(tmp_path / "run", *records)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_a_folder_that_is_not_there_is_refused_before_anything_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PLAN, str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr()
    assert "there is no run folder" in said.err and not said.out
