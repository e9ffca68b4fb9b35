"""The picture of a sweep: which arms its lines go through."""

from __future__ import annotations

from typing import Any

from matplotlib.container import ErrorbarContainer

from lambert.report.sweep_plots import _figure


def arm(batch: int, times: float, loss: float | None, *, diverged: int = 0) -> dict[str, Any]:
    return {
        "optimizer": "lamb", "batch": f"{batch:,}", "batch_size": batch, "recipe": "sqrt", "multiplier": times,
        "loss": {"mean": loss, "half_interval": None}, "diverged": diverged,
    }  # fmt: skip


def lines(table: dict[str, Any]) -> tuple[list[list[float]], list[list[float]], list[str]]:
    """Losses along the line of the best rates, along each other line, and the legend."""
    figure = _figure(table)
    (axes,) = figure.axes
    bars = [one.lines for one in axes.containers if isinstance(one, ErrorbarContainer)]
    best, caps = [line for line, _, _ in bars], [cap for _, own, _ in bars for cap in own]
    others = [line for line in axes.lines if line not in best and line not in caps]
    (legend,) = figure.legends
    return (
        [[*map(float, line.get_ydata())] for line in best],
        [[*map(float, line.get_ydata())] for line in others],
        [text.get_text() for text in legend.get_texts()],
    )


def test_the_line_goes_through_the_best_rates_and_the_rules_beside_it() -> None:
    arms = [arm(8, 1, 5.0), arm(32, 0.5, 5.6), arm(32, 1, 5.5), arm(32, 2, 5.2), arm(32, 4, None, diverged=1)]
    tuned = [{"optimizer": "lamb", "batch": "32", "recipe": "sqrt", "multiplier": 2}]
    best, others, legend = lines({"arms": arms, "tuned": tuned})
    assert best == [[5.0, 5.2]]
    assert sorted(others) == [[1.0], [5.0, 5.5], [5.6]]  # the cross at the edge, the rule's, another rate
    assert legend == ["lamb", "at the rule's rate", "at other rates"]


def test_without_other_rates_there_is_one_line() -> None:
    best, others, legend = lines({"arms": [arm(8, 1, 5.0), arm(32, 1, 5.5)], "tuned": []})
    assert (best, others, legend) == ([[5.0, 5.5]], [], ["lamb"])
