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
    assert sum(rows[1]["time_fractions"].values()) == pytest.approx(1)
    assert "median error" in output and "4,096 chips are a guess: no more than 1,024 were measured" in output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cluster", "tpu-v3"], "--cluster without --chips"),
        (["--cluster", "tpu3", "--chips", "16"], "Did you mean 'tpu-v3'"),
        (["--cluster", "tpu-v3", "--chips", "16", "0"], "--chips 0"),
        (["--cluster", "tpu-v3", "--chips", "-3", "16"], "--chips -3"),
        (["--cluster", "tpu-v3", "--chips", "16", "--try-batch-sizes", "0", "512"], "--try-batch-sizes 0"),
        (["--cluster", "tpu-v3", "--chips", "40000"], "40,000 chips for a batch of 32,768"),
        (["--chips", "16"], "--chips without --cluster"),
        (["--budget", "100"], "--budget without --cluster"),
        (["--try-batch-sizes", "512"], "--try-batch-sizes without --cluster"),
        (["--cluster", "dgx-h1000", "--chips", "8"], "Did you mean 'dgx-h100'"),
        (["--cluster", "dgx-h100", "--chips", "8", "--budget", "9"], "--budget without a price"),
        (["--cluster", "dgx-h100", "--chips", "8", "--price-per-chip-hour", "-1"], "--price-per-chip-hour -1.0"),
        (["--cluster", "dgx-h100", "--chips", "8", "--hours", "0"], "--hours = 0"),
        (["--cluster", "dgx-h100", "--chips", "8", "--plot", "a.pdf"], "ends in .svg or .png"),
        (["--cluster", "dgx-h100", "--chips", "8", "--text-gigabytes", "2"], "--text-gigabytes needs --epochs"),
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


OWN = ["plan", "--text-gigabytes", "2", "--epochs", "3", "--model", "base", "--cluster", "dgx-h100"]


def test_a_budget_for_text_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "steps.svg"
    words = ["--chips", "8", "16", "--batch-size", "1024", "--try-batch-sizes", "256", "65536", "--plot", str(picture)]
    assert main([*OWN, *words, "--price-per-chip-hour", "2.5", "--budget", "6", "--json"]) == 0
    output = capsys.readouterr().out
    results = json.loads(output.splitlines()[-1])
    choices = results["choices"]
    assert [(o["batch_sizes"][0], o["chips"]) for o in choices["options"]] == [
        (batch, chips) for batch in (256, 1_024, 65_536) for chips in (8, 16)
    ]
    for option in choices["options"]:  # the same samples, a recipe for each
        samples = option["batch_sizes"][0] * option["steps"]
        assert samples == pytest.approx(sum(p["samples"] for p in results["phases"]), rel=0.01)
        assert option["cost"] == pytest.approx(2.5 * option["chips"] * option["hours"])
        assert option["hours_range"][0] < option["hours"] < option["hours_range"][1]
    within = choices["options"][choices["within"]]
    assert within["cost"] <= 6 and choices["options"][choices["cheapest"]]["batch_sizes"] == [1_024, 1_024]
    assert "too few steps to learn much" in output and "2 GB are about 0.425 billion tokens" in output
    assert "nothing published checks it" in output and "2 times as long" in output
    assert picture.read_text().startswith("<svg")


def test_what_some_chips_cannot_do_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--batch-size", "64", "--chips", "8", "128", "--try-batch-sizes", "256", "900000000", "--hours", "100"]
    assert main([*OWN, *words, "--json"]) == 0
    output = capsys.readouterr().out
    results = json.loads(output.splitlines()[-1])
    assert [row["chips"] for row in results["cluster"]] == [8]
    assert [(o["batch_sizes"][0], o["chips"]) for o in results["choices"]["options"]] == [(64, 8), (256, 8), (256, 128)]
    assert "left out  128 chips for a batch of 64" in output and "left out  batch 900,000,000" in output
    assert results["choices"]["within"] is not None and results["cluster"][0]["cost"] is None
