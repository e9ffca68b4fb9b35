"""`plan --cluster`: a line for each number of chips, and what cannot be is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lambert.cli.main import main

PAPER = [
    *("plan", "--model", "large", "--batch-size", "32768", "--samples", "512000000"),
    *("--recipe", "paper", "--precision", "bfloat16-autocast"),
]


def test_the_papers_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PAPER, "--cluster", "tpu-v3", "--chips", "16", "1024", "4096", "--json"]) == 0
    output = capsys.readouterr().out
    rows = json.loads(output.splitlines()[-1])["cluster"]
    assert [row["chips"] for row in rows] == [16, 1_024, 4_096]
    assert rows[1]["hours"] == pytest.approx(101.2 / 60, rel=0.1)  # the paper's own time
    assert rows[0]["strong_scaling"] == rows[0]["weak_scaling"] == 1
    assert rows[1]["strong_scaling"] < rows[1]["weak_scaling"] < 1
    assert sum(rows[1]["shares"].values()) == pytest.approx(1)
    assert "median error" in output and "4,096 chips are a guess: no more than 1,024 were measured" in output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cluster", "tpu-v3"], "--cluster without --chips"),
        (["--cluster", "tpu3", "--chips", "16"], "Did you mean 'tpu-v3'"),
        (["--cluster", "tpu-v3", "--chips", "0"], "0 chips for a batch of 32,768"),
        (["--cluster", "tpu-v3", "--chips", "40000"], "40,000 chips for a batch of 32,768"),
        (["--chips", "16"], "--chips without --cluster"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PAPER, "--no-probe", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_chip_that_holds_no_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.toml"
    file.write_text(
        'name = "small"\nmost_chips = 4\nchip_memory_bytes = 4e9\nflops_per_second = 1e12\nfixed_seconds = 0.1\n'
        'topology = "torus"\nlink_bytes_per_second = 1e9\nlatency_seconds = 1e-5\nprice_per_chip_hour = 2.0\n'
    )
    assert main([*PAPER, "--cluster", str(file), "--chips", "4"]) == 2
    assert "one sequence of 128 tokens needs" in capsys.readouterr().err
    file.write_text(file.read_text().replace("4e9", "64e9"))
    assert main([*PAPER, "--cluster", str(file), "--chips", "4", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["cluster"]
    assert row["cost"] == pytest.approx(row["hours"] * 4 * 2)
