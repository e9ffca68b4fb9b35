"""Pictures of predicted runs: what stands in them, and where they are written."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from lambert.errors import UserError
from lambert.report.forecast_plots import BatchPoint, StackedStep, batch_picture, step_picture, write_picture

STEPS = [
    StackedStep("16", {"compute": 0.2, "waiting": 0.0, "latency": 0.1}, "0.3 s", published=0.35),
    StackedStep("64", {"compute": 0.2, "waiting": 0.0, "latency": 0.2}, "0.4 s"),
]


def test_bars_stand_on_one_another() -> None:
    figure = step_picture(STEPS, title="A step", caption="fitted, 3.4 % off")
    axes = figure.axes[0]
    boxes = [(patch.get_x() + patch.get_width() / 2, patch.get_y(), patch.get_height()) for patch in axes.patches]
    expected = [(0, 0, 0.2), (1, 0, 0.2), (0, 0.2, 0.1), (1, 0.2, 0.2)]  # what is 0 everywhere is not drawn
    assert len(boxes) == len(expected)
    for box, wanted in zip(boxes, expected, strict=True):
        assert box == pytest.approx(wanted)
    assert [line.get_ydata()[0] for line in axes.lines] == [0.35]
    assert axes.get_ylim()[1] > 0.4
    told = {text.get_text() for text in (*figure.texts, *axes.texts)}
    assert {"A step", "fitted, 3.4\N{NO-BREAK SPACE}% off", "0.3 s", "0.4 s"} <= told
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["published", "compute", "latency"]


def test_seven_kinds_of_time_have_seven_colours() -> None:
    figure = step_picture([StackedStep("8", dict.fromkeys("abcdefg", 1.0), "7")], title="", caption="")
    assert len({patch.get_facecolor() for patch in figure.axes[0].patches}) == 7


def test_hours_and_chip_hours_side_by_side() -> None:
    lines = {"4 chips": [BatchPoint(256, 8.0, 32.0), BatchPoint(1_024, 6.0, 24.0)], "8 chips": [BatchPoint(256, 5, 40)]}
    figure = batch_picture(lines, title="Batches", caption="")
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines] == [[8, 6], [5]]
    assert [list(line.get_ydata()) for line in right.lines] == [[32, 24], [40]]
    assert left.get_position().x1 < right.get_position().x0 and right.get_position().x1 < 1


def test_files(tmp_path: Path) -> None:
    figure = step_picture(STEPS, title="A <step>", caption="")
    write_picture(figure, tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root[0].text == "A <step>" and "prefers-color-scheme:dark" in (tmp_path / "a.svg").read_text()
    write_picture(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="ends in .svg or .png"):
        write_picture(figure, tmp_path / "a.pdf")
    with pytest.raises(UserError, match="cannot be written"):
        write_picture(figure, tmp_path / "nowhere" / "a.svg")
