"""Sweep files: their trials, and invalid contents."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambert.errors import UserError
from lambert.experiments.grid import Sweep, Trial, read_sweep

LONG_AXES = ("batch_sizes", "seeds", "learning_rate_multipliers")
RUN_OPTIONS = ("model", "samples", "pack", "sequence_lengths")


def read(folder: Path, text: str) -> Sweep:
    file = folder / "sweep.toml"
    file.write_text(text)
    return read_sweep(file, run_options=RUN_OPTIONS, squad_options=("train", "dev"))


def test_every_combination_is_a_trial_and_seeds_come_last(tmp_path: Path) -> None:
    sweep = read(
        tmp_path,
        "[run]\nmodel = '2x64'\nsamples = 100\npack = true\nsequence_lengths = [16, 32]\n"
        "[grid]\noptimizers = ['lamb', 'adamw']\nbatch_sizes = [8, [16, 8]]\nlearning_rate_multipliers = [0.5, 1]\n"
        "seeds = [3, 4]\n",
    )
    assert len(sweep.trials) == len(set(sweep.trials)) == 16
    assert [trial.seed for trial in sweep.trials] == 8 * [3] + 8 * [4]
    assert sweep.trials[0] == Trial("lamb", (8,), "sqrt", 0.5, 3)
    assert sweep.trials[0].arguments() == (
        [
            "--optimizer",
            "lamb",
            "--batch-size",
            "8",
            "--recipe",
            "sqrt",
            "--learning-rate-multiplier",
            "0.5",
            "--seed",
            "3",
        ]
    )
    assert sweep.trials[2].name == "lamb_b16-8_x0.5_s3" and sweep.trials[2].batch == "16/8"
    assert sweep.shared_arguments() == [
        "--model",
        "2x64",
        "--samples",
        "100",
        "--pack",
        "--sequence-lengths",
        "16",
        "32",
    ]


def test_what_grids_have_in_common_is_run_once(tmp_path: Path) -> None:
    sweep = read(
        tmp_path,
        "[[grid]]\nbatch_sizes = 8\nseeds = [0, 1, 2]\n"
        "[[grid]]\nbatch_sizes = [8, 16]\nlearning_rate_multipliers = [1, 2]\n",
    )
    assert [trial.name for trial in sweep.trials] == [
        "lamb_b8_x1_s0", "lamb_b8_x1_s1", "lamb_b8_x1_s2", "lamb_b16_x1_s0", "lamb_b8_x2_s0", "lamb_b16_x2_s0"
    ]  # fmt: skip


def test_recipes_of_files_lie_beside_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "growing.toml").write_text("")
    sweep = read(tmp_path, "[grid]\nrecipes = ['growing.toml', 'nvidia']\n")
    growing, nvidia = sweep.trials
    assert growing.recipe == str(tmp_path / "growing.toml") and growing.batch == "growing"
    assert growing.name == "lamb_growing_x1_s0" and "--batch-size" not in growing.arguments()
    assert nvidia.recipe == "nvidia"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no \\[grid\\]"),
        ("grid = 3\n", "has no \\[grid\\]"),
        ("[[grid]]\nbatch_size = 8\n", "Did you mean 'batch_sizes'"),
        ("[grid]\nbatch_sizes = []\n", "batch_sizes = \\[\\]"),
        ("[grid]\nbatch_sizes = ['8']\n", "whole numbers, or lists"),
        ("[grid]\nbatch_sizes = [0]\n", "whole numbers from 1"),
        ("[grid]\nbatch_sizes = [[8, true]]\n", "whole numbers from 1"),
        ("[grid]\nbatch_sizes = [true]\n", "batch_sizes = \\[True\\]"),
        ("[grid]\nbatch_sizes = 8\nseeds = 1.5\n", "seeds = \\[1.5\\]"),
        ("[run]\nmodl = 'tiny'\n[grid]\nbatch_sizes = 8\n", "Did you mean 'model'"),
        ("run = 3\n[grid]\nbatch_sizes = 8\n", "run is no table"),
        ("[squat]\n[grid]\nbatch_sizes = 8\n", "Did you mean 'squad'"),
        ("[squad]\nteach = 'x'\n[grid]\nbatch_sizes = 8\n", "unknown option in \\[squad\\]"),
        ("budget_hours = 0\n[grid]\nbatch_sizes = 8\n", "budget_hours = 0"),
        ("[grid]\nbatch_sizes = 8\nlearning_rate_multipliers = [1, nan]\n", "multipliers = \\[1, nan\\]"),
        ("[grid]\nbatch_sizes = 8\nlearning_rate_multipliers = [1, 0]\n", "numbers above 0"),
        ("[grid]\nbatch_sizes = 8\nseeds = [0, -1]\n", "seeds = \\[0, -1\\]"),
        ("[grid]\nbatch_sizes = 8\noptimizers = ['lamb', 'lam']\n", "Did you mean 'lamb'"),
        ("budget_hours = nan\n[grid]\nbatch_sizes = 8\n", "budget_hours = nan"),
        ("budget_hours = inf\n[grid]\nbatch_sizes = 8\n", "budget_hours = inf"),
        ("budget_hours = true\n[grid]\nbatch_sizes = 8\n", "budget_hours"),
        (f"[grid]\nbatch_sizes = 8\nseeds = {list(range(2_001))}\n", "2,001 trials"),
        (
            "[grid]\n" + "".join(f"{axis} = {list(range(1, 10_001))}\n" for axis in LONG_AXES),
            "1,000,000,000,000 trials",
        ),
        ("[grid\n", "cannot be read"),
    ],
)
def test_wrong_files_are_refused(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected):
        read(tmp_path, text)
