"""What the picture of a loss curve shows, as plain data: run -> Chart. `plots` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lambert.report.curves import Floats, pick, smooth, thin, window_steps
from lambert.runlog.reader import Run
from lambert.utils import formatting

Kind = Literal["raw", "line", "points", "reference"]
_MOST_POINTS = 1_500
SERIES_COLOURS = 6


@dataclass(frozen=True)
class Trace:
    """One line or set of points. `colour` names a role of the palette ("series-1", "muted", ...)."""

    kind: Kind
    colour: str
    x: Floats
    y: Floats
    label: str  # "" = not in the legend
    dashed: bool = False


@dataclass(frozen=True)
class PhaseMark:
    """Where a phase begins and ends on the x axis; `long` and `short` say what it is."""

    start: float
    stop: float
    long: str
    short: str


@dataclass(frozen=True)
class Chart:
    """A picture: its traces and the words around it."""

    title: str
    y_label: str
    traces: tuple[Trace, ...]
    phases: tuple[PhaseMark, ...]
    x_label: str = "optimizer step"


def colour_of(place: int) -> str:
    """The palette role of the run at this place in the list."""
    return f"series-{place % SERIES_COLOURS + 1}"


def loss_chart(run: Run) -> Chart | None:
    """Masked-word loss, held-out evaluations and the unigram loss; None where no loss is a number."""
    x, y = run.steps.astype(np.float64), run.series["masked_word_loss"]
    if not np.isfinite(y).any():
        return None
    window = window_steps(len(x))
    if window == 1:
        traces = [Trace("line", "series-1", *thin(x, y, _MOST_POINTS), "training")]
    else:
        smoothed = smooth(y, window, run.series["phase"])
        traces = [
            Trace("raw", "series-1", *thin(x, y, _MOST_POINTS), ""),
            Trace("line", "series-1", *pick(x, smoothed, _MOST_POINTS // 2), "training"),
        ]
    figures = np.array([(e.step, e.masked_word_loss, e.unigram_loss) for e in run.evaluations]).reshape(-1, 3)
    at, measured, unigram = figures.T
    if np.isfinite(unigram).any():  # it hardly varies between evaluations: the last one stands for all
        level = unigram[np.isfinite(unigram)][-1:]
        traces.append(Trace("reference", "muted", at[-1:], level, "guessing from word frequencies", dashed=True))
    if np.isfinite(measured).any():
        traces.append(Trace("points", "series-2", *thin(at, measured, 400), "held-out evaluation"))
    return Chart("Masked-word loss", "nats per masked word", tuple(traces), phase_marks(run))


def phase_marks(run: Run) -> tuple[PhaseMark, ...]:
    """The phases as far as the run has come."""
    reached = int(run.steps[-1])
    return tuple(
        PhaseMark(
            start=phase.first_step,
            stop=min(phase.last_step, reached),
            long=f"length {formatting.count(phase.sequence_length)} × batch {formatting.count(phase.batch_size)}",
            short=f"{formatting.count(phase.sequence_length)} × {formatting.count(phase.batch_size)}",
        )
        for phase in run.phases
        if phase.first_step <= reached
    )
