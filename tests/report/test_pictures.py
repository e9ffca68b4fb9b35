"""Pictures outside a page: their content, their files, and that they depend on nothing but their data."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from lambert.errors import UserError
from lambert.report import write_loss_curve, write_report
from lambert.report.picture import check_picture, write_picture
from lambert.report.pictures import (
    BatchPoint,
    StackedStep,
    batch_picture,
    histogram,
    loss_curve,
    step_picture,
    sweep_picture,
)
from lambert.report.style import PALETTE
from lambert.runlog.reader import read_run

ROOT = Path(__file__).resolve().parents[2]
MakeRun = Callable[..., Path]


def texts(svg: str) -> list[str]:
    """Every piece of text in a drawn picture."""
    return ["".join(item.itertext()) for item in ElementTree.fromstring(svg).iter() if item.tag.endswith("text")]


def drawn(spec: dict[str, Any], tmp_path: Path) -> str:
    return write_picture(spec, tmp_path / "drawn.svg").read_text("utf-8")


def layers_of(spec: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [layer for layer in spec["layer"] if layer["mark"]["type"] == kind]


def test_the_loss_curve_holds_every_step_and_evaluation(make_run_folder: MakeRun) -> None:
    run = read_run(make_run_folder(steps=50))
    spec = loss_curve(run)
    *_, line = layers_of(spec, "line")
    assert [row["mlm_loss_1"] for row in line["data"]["values"]] == pytest.approx(
        run.series["mask_token_loss"], rel=1e-3
    )
    dots = next(layer for layer in layers_of(spec, "point") if "mlm_loss" in str(layer["encoding"]["y"]))
    assert [row["step"] for row in dots["data"]["values"]] == [e.step for e in run.evaluations]
    assert "$" not in json.dumps(spec).replace("$schema", "")


def test_a_baseline_is_drawn_over_its_own_phase_only(
    make_run_folder: MakeRun, make_journal: Any, tmp_path: Path
) -> None:
    records = make_journal(steps=100)
    for record in records:
        if record["event"] == "evaluation":
            record["unigram_loss"] = 6.5 if record["step"] <= 90 else 6.25
    run = read_run(make_run_folder(records=records))
    line = r'<line [^>]*translate\(([\d.]+),([\d.]+)\)" x2="([\d.]+)"[^>]*stroke-dasharray="5,3"'
    found = re.findall(line, drawn(loss_curve(run), tmp_path))
    (x1, y1, width1), (x2, y2, width2) = (tuple(map(float, numbers)) for numbers in found)
    assert x1 + width1 <= x2 < x2 + width2 and y2 > y1  # side by side, the lower level of phase 2 further down
    assert width2 / width1 == pytest.approx(10 / 90, abs=0.02)


def test_axes_units_and_phases_are_written_on_the_picture(make_run_folder: MakeRun, tmp_path: Path) -> None:
    found = texts(drawn(loss_curve(read_run(make_run_folder(steps=100))), tmp_path))
    assert {
        "optimizer step", "nats per [MASK] token", "length 128, batch 256", "length 512, batch 128", "training",
        "held-out evaluation", "unigram baseline",
    } <= set(found)  # fmt: skip


def test_the_loss_curve_alone_as_svg_and_png(make_run_folder: MakeRun, tmp_path: Path) -> None:
    run = make_run_folder("a $1$ & <b>", steps=100)
    svg = write_loss_curve(run, tmp_path / "deep" / "loss.svg").read_text("utf-8")
    assert "MLM loss, a $1$ & <b>" in texts(svg) and ElementTree.fromstring(svg)[0].text == "MLM loss, a $1$ & <b>"
    assert "<script" not in svg and ElementTree.fromstring(svg).get("role") == "img"
    assert write_loss_curve(run, tmp_path / "loss.PNG").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "loss.PNG", "runs"]


def test_a_file_has_light_colours_and_rules_for_dark_ones(make_run_folder: MakeRun, tmp_path: Path) -> None:
    svg = write_loss_curve(make_run_folder(steps=100), tmp_path / "loss.svg").read_text("utf-8")
    style, body = re.search(r"<style>(.*?)</style>", svg)[1], svg[svg.index("</style>") :]
    assert "var(--" not in svg and "prefers-color-scheme:dark" in style
    for colour in {*re.findall(r' (?:fill|stroke)="(#[0-9a-f]{6})"', body)}:
        role = next(role for role, (light, _) in PALETTE.items() if light == colour)
        assert f'[fill="{colour}"]{{fill:{PALETTE[role][1]}}}' in style
    ids = re.findall(r' id="([^"]+)"', svg)
    assert ids and len(ids) == len(set(ids)) and set(re.findall(r"url\(#([^)]+)\)", svg)) == set(ids)


def test_the_same_run_gives_the_same_bytes(make_run_folder: MakeRun, tmp_path: Path) -> None:
    run = make_run_folder(steps=100)
    for ending in ("svg", "png"):
        first = write_loss_curve(run, tmp_path / f"1.{ending}").read_bytes()
        assert write_loss_curve(run, tmp_path / f"2.{ending}").read_bytes() == first


def test_loss_curves_that_cannot_be_drawn(make_run_folder: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither an SVG nor a PNG"):
        write_loss_curve(make_run_folder(steps=3), tmp_path / "loss.gif")
    lost = [{"event": "step", "step": 1, "mlm_loss": None}]
    with pytest.raises(UserError, match="no finite loss"):
        write_loss_curve(make_run_folder("lost", lost), tmp_path / "loss.svg")
    with pytest.raises(UserError, match="cannot be written"):
        (tmp_path / "file").touch()
        write_loss_curve(make_run_folder("good", steps=3), tmp_path / "file" / "loss.svg")


def test_short_and_bare_runs_have_a_picture(make_run_folder: MakeRun, tmp_path: Path) -> None:
    bare = [{"event": "step", "step": step, "mlm_loss": 8.0} for step in (1, 2, 3)]
    assert "unigram baseline" not in texts(drawn(loss_curve(read_run(make_run_folder(records=bare))), tmp_path))
    alone = make_run_folder("alone", steps=5, second_phase=False)
    assert "length 128, batch 256" in texts(drawn(loss_curve(read_run(alone)), tmp_path))


STEPS = [
    StackedStep("16\n2K", {"compute": 0.2, "waiting": 0.0, "latency": 0.1}, "0.3 s", published=0.35),
    StackedStep("64", {"compute": 0.2, "waiting": 0.0, "latency": 0.2}, "0.4 s"),
]


def test_bars_stand_on_one_another(tmp_path: Path) -> None:
    spec = step_picture(STEPS, title="A step", caption="fitted, 3.4 % off")
    (bars,), (published,) = layers_of(spec, "bar"), layers_of(spec, "tick")
    amounts = [(row["bar"], row["kind"], row["amount"]) for row in bars["data"]["values"]]
    assert amounts == [(0, "compute", 0.2), (0, "latency", 0.1), (1, "compute", 0.2), (1, "latency", 0.2)]
    assert bars["encoding"]["y"]["stack"] == "zero" and bars["encoding"]["y"]["scale"]["domain"][1] > 0.4
    assert published["data"]["values"] == [{"bar": 0, "amount": 0.35}]
    found = texts(drawn(spec, tmp_path))
    assert {"A step", "fitted, 3.4\N{NO-BREAK SPACE}% off", "0.3 s", "0.4 s", "64"} <= set(found)
    assert [text for text in found if text in ("published", "compute", "waiting", "latency")] == [
        "published", "compute", "latency",
    ]  # fmt: skip
    assert ("16" in found and "2K" in found) or "162K" in found  # a label of two lines


def test_seven_kinds_of_time_have_seven_colours() -> None:
    spec = step_picture([StackedStep("8", dict.fromkeys("abcdefg", 1.0), "7")], title="", caption="")
    assert len(set(layers_of(spec, "bar")[0]["encoding"]["color"]["scale"]["range"])) == 7


def test_hours_and_chip_hours_side_by_side(tmp_path: Path) -> None:
    lines = {"4 chips": [BatchPoint(256, 8.0, 32.0), BatchPoint(1_024, 6.0, 24.0)], "8 chips": [BatchPoint(256, 5, 40)]}
    spec = batch_picture(lines, title="Batches", caption="")
    rows = {(row["kind"], row["line"], row["batch"]): row["amount"] for row in spec["data"]["values"]}
    assert rows["hours", "4 chips", 256] == 8 and rows["chip-hours", "8 chips", 256] == 40 and len(rows) == 6
    assert {"hours", "chip-hours", "4 chips", "8 chips", "256", "1,024"} <= set(texts(drawn(spec, tmp_path)))


def test_bars_of_a_histogram(tmp_path: Path) -> None:
    spec = histogram([[1, 50], [2, 7], [1_024, 3]], x="tokens, from", y="sentences")
    sized = {**spec, "width": 440, "height": 300, "title": {"text": "Lengths"}}  # page.js fills them in
    assert {"sentences", "tokens, from", "1", "2", "1,024"} <= set(texts(drawn(sized, tmp_path)))


def test_without_vl_convert_a_picture_is_refused_before_any_work(
    make_run_folder: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    for ending in ("svg", "png"):
        with pytest.raises(UserError, match=r"pip install 'lambert-bert\[pictures\]'"):
            check_picture(tmp_path / f"loss.{ending}")
        with pytest.raises(UserError, match=r"lambert-bert\[pictures\]"):
            write_loss_curve(make_run_folder(ending, steps=3), tmp_path / f"loss.{ending}")
    write_report([make_run_folder(steps=3)], tmp_path / "report.html")  # a page needs nothing


def test_the_script_of_pages_is_that_of_the_pinned_vl_convert() -> None:
    """After a new version: write the bundle below the line of notices, and renew vega.LICENSE.txt."""
    notices, _, script = (ROOT / "src/lambert/report/vega.js").read_bytes().partition(b"\n")
    assert script.decode("utf-8") == vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    licences = (ROOT / "src/lambert/report/vega.LICENSE.txt").read_text(encoding="utf-8")
    for part in ("Vega 6.4.0", "Vega-Lite 6.4.3", "Vega-Embed 7.2.0", "D3"):
        assert part.encode() in notices and part in licences


def config(batch: int, times: float, loss: float | None, *, diverged: int = 0) -> dict[str, Any]:
    return {
        "optimizer": "lamb", "batch": f"{batch:,}", "batch_size": batch, "recipe": "sqrt", "multiplier": times,
        "loss": {"mean": loss, "half_interval": None}, "diverged": diverged,
    }  # fmt: skip


def losses(layer: dict[str, Any]) -> list[float]:
    return [row["loss"] for row in layer["data"]["values"]]


def test_a_sweep_s_line_goes_through_the_best_rates_and_the_rules_beside_it(tmp_path: Path) -> None:
    configurations = [
        config(8, 1, 5.0), config(32, 0.5, 5.6), config(32, 1, 5.5), config(32, 2, 5.2), config(32, 4, None, diverged=1)
    ]  # fmt: skip
    tuned = [{"optimizer": "lamb", "batch": "32", "recipe": "sqrt", "multiplier": 2}]
    spec = sweep_picture({"configurations": configurations, "tuned": tuned})
    rule, best = layers_of(spec, "line")
    others, _, crosses, _ = layers_of(spec, "point")
    assert losses(best) == [5.0, 5.2] and losses(rule) == [5.0, 5.5] and losses(others) == [5.6]
    assert [row["batch_size"] for row in crosses["data"]["values"]] == [32] and crosses["mark"]["shape"] == "cross"
    names = ("lamb", "at the rule's rate", "at other rates")
    assert tuple(text for text in texts(drawn(spec, tmp_path)) if text in names) == names


def test_a_sweep_without_other_rates_has_one_line(tmp_path: Path) -> None:
    spec = sweep_picture({"configurations": [config(8, 1, 5.0), config(32, 1, 5.5)], "tuned": []})
    rule, best = layers_of(spec, "line")
    assert losses(best) == [5.0, 5.5] and losses(rule) == []
    assert "at other rates" not in texts(drawn(spec, tmp_path))
