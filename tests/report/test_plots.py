"""Pictures: what is in them, and that they do not depend on anything but the run."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lambert.errors import UserError
from lambert.report import write_loss_curve
from lambert.report.charts import loss_chart, phase_marks
from lambert.report.palette import PALETTE
from lambert.report.plots import NARROW, STANDING, draw
from lambert.report.svg import page_svg
from lambert.report.trust import group_names, heat_map, short_names
from lambert.runlog.reader import TrustRatios, read_run

MakeRun = Callable[..., Path]


def texts(svg: str) -> list[str]:
    return [
        "".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    ]


def with_namespaces(svg: str) -> str:
    return svg.replace(
        "<svg ", '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ', 1
    )


def test_the_loss_chart_holds_every_step_evaluation_and_reference(make_run: MakeRun) -> None:
    run = read_run(make_run(steps=50))
    chart = loss_chart(run)
    assert chart is not None
    by_kind = {trace.kind: trace for trace in chart.traces}
    np.testing.assert_array_equal(by_kind["line"].y, run.series["masked_word_loss"])
    assert by_kind["points"].x.tolist() == [e.step for e in run.evaluations]
    assert by_kind["reference"].y.tolist() == [6.99] and by_kind["reference"].dashed
    assert [trace.kind for trace in loss_chart(read_run(make_run("long", steps=400))).traces][:2] == [
        "raw",
        "line",
    ]


def test_axes_units_and_phases_are_written_on_the_picture(make_run: MakeRun) -> None:
    run = read_run(make_run(steps=100))
    chart = loss_chart(run)
    found = texts(with_namespaces(page_svg(draw(chart, STANDING), "loss", "loss")))
    assert {
        "optimizer step",
        "nats per masked word",
        "length 128 × batch 256",
        "length 512 × batch 128",
    } <= set(found)
    assert phase_marks(run)[1].start == 91


def test_the_phase_line_stands_before_its_first_step(make_run: MakeRun) -> None:
    axes = draw(loss_chart(read_run(make_run(steps=100))), NARROW).axes[0]
    upright = [line for line in axes.get_lines() if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2]
    assert [line.get_xdata()[0] for line in upright] == [90.5]


def test_colours_follow_the_page_and_ids_are_unique(make_run: MakeRun) -> None:
    run = read_run(make_run(steps=100))
    pictures = [page_svg(draw(loss_chart(run), size), name, "") for size, name in ((STANDING, "a"), (NARROW, "b"))]
    for svg in pictures:
        assert not re.search("|".join(light for light, _ in PALETTE.values()), svg)
        assert "fill: var(--ink)" in svg and "stroke: var(--series-1)" in svg
    ids = [re.findall(r' id="([^"]+)"', svg) for svg in pictures]
    assert ids[0] and not set(ids[0]) & set(ids[1])
    for svg, own in zip(pictures, ids, strict=True):
        assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)) and len(own) == len(set(own))
        assert {a or b for a, b in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)} == set(own)


def test_names_are_grouped_at_the_deepest_level_that_fits() -> None:
    names = [f"bert.encoder.{layer}.{part}.weight" for layer in range(24) for part in ("q.in", "q.out", "ffn.a")]
    assert group_names(names, 72) == names
    assert group_names(names, 48)[:3] == ["bert.encoder.0.q", "bert.encoder.0.q", "bert.encoder.0.ffn"]
    assert len(set(group_names(names, 24))) == 24
    assert set(group_names(["a", "b", "c"], 2)) == {"all layers"}
    assert short_names(("bert.a.weight", "bert.b.weight")) == ("a", "b")
    assert short_names(("a.weight", "a")) == ("a.weight", "a")
    assert short_names(("b.qkv.weight[0]", "b.out.weight")) == ("qkv[0]", "out")


def test_heat_map_rows_are_geometric_means_without_the_layers_not_adapted() -> None:
    names = (*(f"layer.{number}.{part}" for number in range(30) for part in ("a", "b")), "bias")
    values = np.concatenate([np.tile([0.1, 0.4], 30), [1.0]])[None, :].repeat(3, axis=0)
    shown = heat_map(TrustRatios(np.array([1, 50, 100]), names, values))
    assert shown is not None and len(shown.rows) == 30 and shown.left_out == 1 and shown.layers == 60
    np.testing.assert_allclose(shown.values, 0.2)
    assert heat_map(TrustRatios(np.array([1]), ("a",), np.ones((1, 1)))) is None
    assert heat_map(TrustRatios(np.array([], dtype=np.int64), (), np.zeros((0, 0)))) is None


def test_the_loss_curve_alone_as_svg_and_png(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("a $1$ & <b>", steps=100)
    svg = write_loss_curve(run, tmp_path / "deep" / "loss.svg").read_text("utf-8")
    found = texts(svg)
    assert "Masked-word loss, a $1$ & <b>" in found and "held-out evaluation" in found
    assert "prefers-color-scheme:dark" in svg and "<script" not in svg
    assert write_loss_curve(run, tmp_path / "loss.PNG").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "loss.PNG", "runs"]


def test_the_same_run_gives_the_same_bytes(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(steps=100)
    for ending in ("svg", "png"):
        first = write_loss_curve(run, tmp_path / f"1.{ending}").read_bytes()
        assert write_loss_curve(run, tmp_path / f"2.{ending}").read_bytes() == first


def test_loss_curves_that_cannot_be_drawn(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither an SVG nor a PNG"):
        write_loss_curve(make_run(steps=3), tmp_path / "loss.gif")
    lost = [{"event": "step", "step": 1, "masked_word_loss": None}]
    with pytest.raises(UserError, match="no finite loss"):
        write_loss_curve(make_run("lost", lost), tmp_path / "loss.svg")
