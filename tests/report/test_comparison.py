"""Many runs on one page: sorted, coloured, switched on and off, lost ones told, and the page no larger for it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lambert.errors import UserError
from lambert.report import write_report
from lambert.report.comparison import Legend, diverged_at
from lambert.report.document import library
from lambert.report.spec import SERIES
from lambert.runlog.reader import Run, read_run

MakeRun = Callable[..., Path]


def rows_of(source: str) -> list[list[str]]:
    """The cells of the table of runs, tags taken out."""
    table = re.search(r'<div class="runs">.*?<tbody>(.*?)</tbody>', source, flags=re.DOTALL)
    assert table
    rows = re.findall(r"<tr>(.*?)</tr>", table[1])
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row)] for row in rows]


def data_of(source: str) -> dict[str, Any]:
    return json.loads(re.search(r'<script type="application/json" id="charts">(.*?)</script>', source)[1])


def lost(records: list[dict[str, Any]], at: int) -> list[dict[str, Any]]:
    """The journal of a run whose loss is no number from a step on."""
    for record in records:
        if record["event"] in ("step", "evaluation") and record["step"] >= at:
            record |= {"mlm_loss": None, "mask_token_loss": None}
    return records


def test_the_best_run_comes_first_and_the_lost_one_last(
    make_run_folder: MakeRun, make_journal: Any, tmp_path: Path
) -> None:
    runs = [
        make_run_folder("lost", lost(make_journal(steps=40, layers=1, floor=3.0), 31)),
        make_run_folder("worse", steps=40, layers=1, floor=6.6),
        make_run_folder("better", steps=40, layers=1, floor=5.9, optimizer="adamw"),
    ]
    source = write_report(runs, tmp_path / "r.html").read_text("utf-8")
    rows = rows_of(source)
    assert [row[0] for row in rows] == ["better", "worse", "lost"]
    assert rows[2][1] == "NaN" and rows[2][-1] == "diverged at step 31" and rows[0][-1] == "finished"
    assert (
        "The same in all runs: batch size 256, 128; model mini (4 layers, hidden size 256); unigram baseline 6.990."
        in source
    )
    data = data_of(source)
    assert [run["name"] for run in data["tables"]["runs"]["rows"]] == ["better", "worse", "lost"]
    assert [re.findall(r'data-run="(\d+)"', source), data["axis"]] == [["0", "1", "2"], "step"]
    last = [row for row in zip(*data["tables"]["steps"]["columns"].values(), strict=True) if row[0] == 2][-1]
    assert None in last  # the line of the lost run ends where its loss does


def test_when_a_run_was_lost(make_run_folder: MakeRun) -> None:
    def at(name: str, losses: list[float | None]) -> int | None:
        steps = [{"event": "step", "step": place, "mlm_loss": loss} for place, loss in enumerate(losses, start=1)]
        return diverged_at(read_run(make_run_folder(name, steps)))

    assert at("sound", [7.0, None, 6.0]) is None
    assert at("lost", [7.0, None, 6.0, None, None]) == 4
    assert at("never", [None, None]) == 1


def test_one_short_run_at_a_high_rate_is_not_cut_off(
    make_run_folder: MakeRun, make_journal: Any, tmp_path: Path
) -> None:
    """Its few steps are rare among those of all runs together, and no spike."""
    quick = make_journal(steps=40, layers=1)
    for record in quick:
        if record["event"] == "step":
            record["learning_rate"] = 10 * record["learning_rate"]
    runs = [
        make_run_folder("quick", quick),
        *(make_run_folder(f"slow-{seed}", steps=1_200, layers=1) for seed in range(2)),
    ]
    charts = data_of(write_report(runs, tmp_path / "r.html").read_text("utf-8"))["charts"]
    assert "domainMax" not in charts["learning-rate"]["scales"]["linear"]


def test_colours_by_run_by_optimizer_and_by_batch(make_run_folder: MakeRun) -> None:
    runs = [
        read_run(
            make_run_folder(f"{optimizer}-{batch}", steps=3, layers=1, optimizer=optimizer, batch_sizes=(batch, batch))
        )
        for optimizer in ("lamb", "adamw") for batch in (64, 128, 256, 512)
    ]  # fmt: skip
    few, many = Legend.of(runs[:4]), Legend.of(runs)
    assert few.chosen == "run" and list(few.choices) == ["run"] and len(set(few.colours()["run"]["of_run"])) == 4
    assert many.chosen == "optimizer" and list(many.choices) == ["run", "optimizer", "batch"]
    by_optimizer, by_batch, by_run = (many.colours()[name] for name in ("optimizer", "batch", "run"))
    assert by_optimizer["of_run"] == [SERIES[0]] * 4 + [SERIES[1]] * 4
    assert by_batch["domain"] == ["64", "128", "256", "512"] and by_batch["of_run"] == list(SERIES[:4]) * 2
    pairs = list(zip(by_run["range"], map(tuple, by_run["dashes"]), strict=True))
    assert len(set(pairs)) == 8  # a colour that comes again is dashed


def test_runs_of_the_same_name_are_told_apart(make_run_folder: MakeRun) -> None:
    first, second = make_run_folder("a/run", steps=2, layers=1), make_run_folder("b/run", steps=2, layers=1)
    names = Legend.of([read_run(first), read_run(second), read_run(first)]).names
    assert len(set(names)) == 3 and str(second) in names


def test_where_batches_differ_samples_are_counted(make_run_folder: MakeRun, tmp_path: Path) -> None:
    runs = [make_run_folder("a", steps=9, layers=1), make_run_folder("b", steps=9, layers=1, batch_sizes=(64, 32))]
    assert data_of(write_report(runs, tmp_path / "r.html").read_text("utf-8"))["axis"] == "samples"


@pytest.fixture
def sweep(make_run_folder: MakeRun, tmp_path: Path) -> Path:
    """An experiment's folder with 50 runs and one that has not begun."""
    first = make_run_folder("first", steps=250, layers=8)
    folder = tmp_path / "sweep"
    for place in range(50):
        trial = folder / "trials" / f"trial-{place}"
        trial.mkdir(parents=True)
        shutil.copy(first / "journal.jsonl", trial)
        recipe = (first / "recipe.toml").read_text("utf-8").replace("weight_decay = 0.01", f"weight_decay = 0.{place}")
        (trial / "recipe.toml").write_text(recipe.replace("epsilon = 1e-6", f"epsilon = {1 + place}e-6"), "utf-8")
    (folder / "trials" / "not-begun").mkdir()
    (folder / "table.json").write_text("{}")
    return folder


def test_an_experiment_is_its_runs_on_a_page_of_bounded_size(sweep: Path, tmp_path: Path) -> None:
    out = write_report([sweep], tmp_path / "r.html")
    source = out.read_text("utf-8")
    assert len(rows_of(source)) == 50 and "not-begun" not in source
    assert len(source) < len(library()) + 700_000
    data = data_of(source)
    assert not [name for name in data["charts"] if name.endswith("-0")]  # what belongs to one run alone
    differing = re.search(r"<h2>Settings that differ</h2>(.*?)</table>", source, flags=re.DOTALL)[1]
    assert re.findall(r'<th scope="col" class="">([^<]*)', differing) == [
        "Run",
        "optimizer.epsilon",
        "optimizer.weight_decay",
    ]
    shutil.rmtree(sweep / "trials")
    (sweep / "trials" / "empty").mkdir(parents=True)
    with pytest.raises(UserError, match="no run in .*trials has done a step yet"):
        write_report([sweep], out)


def test_a_few_runs_have_their_own_charts(make_run_folder: MakeRun, tmp_path: Path) -> None:
    runs = [make_run_folder(name, steps=9, layers=1) for name in "abcd"]
    data = data_of(write_report(runs, tmp_path / "r.html").read_text("utf-8"))
    assert [name for name in data["charts"] if "trust" in name] == ["trust-0", "trust-1", "trust-2", "trust-3"]


def test_every_control_has_a_name_and_a_key(make_run_folder: MakeRun, tmp_path: Path) -> None:
    """Native controls in labels: a keyboard reaches them, a screen reader says what they are."""
    runs: list[Run | Path] = [make_run_folder("a", steps=90, layers=1), make_run_folder("b", steps=90, layers=1)]
    source = re.sub(
        r"<script.*?</script>", "", write_report(runs, tmp_path / "r.html").read_text("utf-8"), flags=re.DOTALL
    )
    controls = re.findall(r"<(?:input|select)\b", source)
    labelled = re.findall(r"<label[^>]*>(?:(?!</label>).)*?<(?:input|select)\b", source, flags=re.DOTALL)
    assert len(controls) == len(labelled) >= 10 and "tabindex" not in source
