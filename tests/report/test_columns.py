"""The tables that charts are drawn from, against numbers by hand and against training's own schedule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lambert.report.columns import (
    baseline_rows,
    evaluations_table,
    incident_rows,
    noise_table,
    packed,
    phase_rows,
    progress,
    recipe_rates,
    sequences_seen,
    steps_table,
    windows,
)
from lambert.runlog.reader import Run, read_run
from lambert.utils.lr_schedule import LRSchedule

MakeRun = Callable[..., Path]


def steps(losses: list[float | None], **more: Any) -> list[dict[str, Any]]:
    return [
        {"event": "step", "step": place, "phase": 1, "mlm_loss": loss, "seconds": 36.0, **more}
        for place, loss in enumerate(losses, start=1)
    ]


def test_what_an_axis_counts(make_run_folder: MakeRun) -> None:
    run = read_run(make_run_folder(steps=20))
    assert sequences_seen(run)[[0, 17, 18, 19]].tolist() == [256, 18 * 256, 18 * 256 + 128, 18 * 256 + 256]
    counted = progress(run)
    assert counted["step"].tolist() == list(range(1, 21))
    assert counted["hours"][-1] == pytest.approx(run.training_seconds / 3600)
    tokens = run.series["tokens_per_second"] * run.series["seconds"]
    assert counted["tokens"][1] == pytest.approx(tokens[0] + tokens[1])


def test_an_axis_that_the_journal_does_not_tell_is_none(make_run_folder: MakeRun) -> None:
    records = steps([7.0, 6.0, 5.0])
    records[1]["seconds"] = None  # the mean of the others
    counted = progress(read_run(make_run_folder(records=records)))
    np.testing.assert_allclose(counted["hours"], [0.01, 0.02, 0.03])
    assert np.isnan(counted["samples"]).all() and np.isnan(counted["tokens"]).all()
    table = steps_table([read_run(make_run_folder("again", records))])
    assert "tokens" not in table and table["hours"] == [0.01, 0.02, 0.03]


def test_a_row_is_the_mean_of_its_steps_with_the_lowest_and_the_highest(make_run_folder: MakeRun) -> None:
    losses: list[float | None] = [6.0, 8.0] * 600
    losses[7] = 50.0
    losses[40:42] = [None, None]
    table = steps_table([read_run(make_run_folder(records=steps(losses)))])
    assert len(table["step"]) == 600 and table["step"][:2] == [2, 4] and table["step"][-1] == 1_200
    assert table["mlm_loss_0"][:4] == [7.0, 7.0, 7.0, 28.0]
    assert table["mlm_loss_low"][3] == 6.0 and table["mlm_loss_high"][3] == 50.0
    assert table["mlm_loss_0"][20] is None and table["mlm_loss_high"][20] is None


def test_smoothing_has_levels_where_there_is_something_to_smooth(make_run_folder: MakeRun) -> None:
    assert windows(59) == (1, 1, 1) and windows(1_200) == (1, 31, 101)
    random = np.random.default_rng(0).normal(7, 0.1, 590)
    table = steps_table([read_run(make_run_folder(records=steps(random.tolist())))])
    spread = [np.std(np.array(table[f"mlm_loss_{level}"], dtype=float)) for level in range(3)]
    assert spread[0] > 2 * spread[1] > 2 * spread[2] > 0
    np.testing.assert_allclose(table["mlm_loss_0"], random, atol=5e-4)


def test_many_runs_share_a_bounded_number_of_rows(make_run_folder: MakeRun) -> None:
    run = read_run(make_run_folder(records=steps([7.0] * 300)))
    assert len(steps_table([run] * 3)["run"]) == 900
    table = steps_table([run] * 50)
    assert len(table["run"]) == 2_400 and table["run"][-1] == 49
    assert "mlm_loss_high" not in table and "recipe_rate" not in table
    assert "mlm_loss_high" in steps_table([run] * 2)


SHAPES = [
    {},
    {"stable_steps": 20, "decay_power": 0.5},
    {"decays_from_start": True, "min_lr_ratio": 0.1},
    {"decay": "cosine", "min_lr_ratio": 0.1, "cooldown_steps": 15},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("continues", [False, True])
def test_the_recipe_s_rate_is_that_of_training(
    make_run_folder: MakeRun, shape: dict[str, Any], continues: bool
) -> None:
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in shape.items())
    toml = f"[[phases]]\n{lines}[[phases]]\ncontinues = {json.dumps(continues)}\n"
    run = read_run(make_run_folder(steps=200, recipe=toml))
    first, second = run.phases
    total = 200 if continues else first.steps
    schedule = LRSchedule(first.peak_learning_rate, first.warmup_steps, total, **shape)
    expected = [schedule.rate(step) for step in range(1, total + 1)]
    if not continues:
        again = LRSchedule(second.peak_learning_rate, second.warmup_steps, second.steps)
        expected += [again.rate(step) for step in range(1, second.steps + 1)]
    np.testing.assert_allclose(recipe_rates(run), expected)


@pytest.mark.parametrize("toml", ["", "phases = 3", "[[phases]]\n[[phases]]\nmin_lr_ratio = 'x'\n", "phases = [1, 2]"])
def test_a_recipe_without_a_schedule_has_no_rate(make_run_folder: MakeRun, toml: str) -> None:
    run = read_run(make_run_folder(steps=200, recipe=toml))
    assert np.isnan(recipe_rates(run)[run.steps > 180]).all()


def test_noise_comes_with_two_standard_errors_and_stays_above_zero(make_run_folder: MakeRun) -> None:
    sizes = {"event": "noise", "small_batch": 8, "large_batch": 64, "phase": 1, "steps": 3}
    noise = [
        {**sizes, "step": 1, "noise_scale": None, "standard_error": None},
        {**sizes, "step": 2, "noise_scale": 100.0, "standard_error": 20.0},
        {**sizes, "step": 3, "noise_scale": 100.0, "standard_error": 60.0},
    ]
    table = noise_table(read_run(make_run_folder(records=[*steps([7.0] * 3), *noise])))
    assert table["step"] == [2, 3] and table["low"] == [60, 1] and table["high"] == [140, 220]
    assert table["batch"] == [64, 64]


def test_incidents_and_phases_lie_where_they_happened(make_run_folder: MakeRun, make_journal: Any) -> None:
    records = [*make_journal(steps=100), {"event": "skipped", "step": 40, "reason": "</script>"}]
    run = read_run(make_run_folder(records=records))
    (incident,) = incident_rows([run])
    assert incident["step"] == 40 and incident["samples"] == 40 * 256 and incident["kind"] == "skipped"
    assert incident["what"] == "step 40 skipped: </script>"
    first, second = phase_rows([run, run])
    assert first["label"] == "length 128, batch 256" and second["step"] == 90.5 and second["last"] and not first["last"]
    assert phase_rows([run, read_run(make_run_folder("other", steps=50))]) == []
    assert evaluations_table([run, run])["run"][-1] == 1 and evaluations_table([run])["step"][-1] == 100


def test_baselines_are_those_of_each_phase_of_each_run(make_run_folder: MakeRun, make_journal: Any) -> None:
    def run(name: str, levels: tuple[float, float], steps: int = 100) -> Run:
        records = make_journal(steps=steps)
        for record in records:
            if record["event"] == "evaluation":
                record["unigram_loss"] = levels[record["step"] > 0.9 * steps]
        return read_run(make_run_folder(name, records))

    first, second = baseline_rows([run("a", (6.5, 6.25))])
    assert (first["step"], first["step_stop"], first["unigram_loss"]) == (1, 90, 6.5)
    assert (second["step"], second["step_stop"], second["unigram_loss"]) == (90.5, 100, 6.25)
    assert first["samples_stop"] == 90 * 256 and second["nsp_majority_accuracy"] == 0.52
    assert (first["phase"], second["phase"]) == ("1 (length 128)", "2 (length 512)")
    rows = baseline_rows([run("b", (6.5, 6.25)), run("c", (6.5, 7.0)), run("d", (6.5, 6.25), steps=200)])
    spans = [(row["run"], row["step"], row["step_stop"], row["unigram_loss"]) for row in rows]
    assert spans == [
        (0, 1, 90, 6.5), (0, 90.5, 100, 6.25), (1, 1, 90, 6.5), (1, 90.5, 100, 7.0),
        (2, 1, 180, 6.5), (2, 180.5, 200, 6.25),
    ]  # fmt: skip
    assert [row["line"] for row in rows] == [0, 1, 0, 2, 3, 4]  # only the same phase at the same level is one line
    assert baseline_rows([read_run(make_run_folder("e", steps=9, evaluate=False))]) == []


def test_numbers_are_short_and_missing_ones_are_none() -> None:
    table = packed({"step": np.array([1_234_567.0]), "hours": np.array([1.2345678]), "x": np.array([1.2345678])})
    assert table == {"step": [1_234_567], "hours": [1.23457], "x": [1.235]}
    assert packed({"x": np.array([np.nan, np.inf])}) == {"x": [None, None]}
