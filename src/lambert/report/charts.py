"""What each picture shows, as plain data: runs -> Chart. `plots` draws it, `page` writes its legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lambert.report import words
from lambert.report.curves import Floats, pick, smooth, thin, window_steps
from lambert.report.read import Run

Kind = Literal["raw", "line", "points", "reference"]
_POINTS_PER_CHART = 1_500  # shared by its lines, so that a page stays small however long the runs
_MOST_RUNS_WITH_RAW = 2
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

    name: str  # unique on the page
    title: str
    caption: str
    y_label: str
    traces: tuple[Trace, ...]
    phases: tuple[PhaseMark, ...]
    x_label: str = "optimizer step"
    as_percent: bool = False
    from_zero: bool = False


def colour_of(place: int) -> str:
    """The palette role of the run at this place in the list."""
    return f"series-{place % SERIES_COLOURS + 1}"


def loss_chart(runs: Sequence[Run], name: str = "loss") -> Chart | None:
    """Masked-word loss, held-out evaluations and the unigram loss."""
    return _chart(
        runs, name, "masked_word_loss", "Masked-word loss", "nats per masked word",
        "Lower is better.",
        " Dots: held-out text, all hidden words masked (training leaves a tenth of them in place, which is easier);"
        " dashed: what guessing from word frequencies alone reaches.",
        evaluated=lambda e: (e.masked_word_loss, e.unigram_loss), reference="guessing from word frequencies",
    )  # fmt: skip


def loss_over_sequences_chart(runs: Sequence[Run]) -> Chart | None:
    """The same loss over sequences seen: the fair axis where batch sizes differ. None where they do not."""
    if len({tuple(phase.batch_size for phase in run.phases) for run in runs}) < 2:
        return None
    if not all(run.phases for run in runs):
        return None
    traces: list[Trace] = []
    for place, run in enumerate(runs):
        x, y = sequences_seen(run), _smoothed(run, "masked_word_loss")
        traces += [_line(run, place, *pick(x, y, _budget(runs)), len(runs))]
    return Chart(
        "loss-over-sequences", "Masked-word loss by sequences seen",
        "The same lines with sequences instead of steps: runs with different batch sizes side by side.",
        "nats per masked word", tuple(traces), (), x_label="sequences seen",
    )  # fmt: skip


def accuracy_chart(runs: Sequence[Run]) -> Chart | None:
    """Masked-word accuracy with that of always guessing the commonest word."""
    return _chart(
        runs, "accuracy", "masked_word_accuracy", "Masked-word accuracy", "masked words guessed right",
        "Higher is better.", " Dots: held-out text, all masked; dashed: always guessing the commonest word.",
        evaluated=lambda e: (e.masked_word_accuracy, e.unigram_accuracy),
        reference="commonest word", as_percent=True, from_zero=True,
    )  # fmt: skip


def small_charts(runs: Sequence[Run]) -> list[Chart]:
    """The charts below the loss, in reading order; one without data is left out."""
    charts = [
        accuracy_chart(runs),
        _chart(
            runs, "next-sentence", "next_sentence_accuracy", "Next-sentence accuracy", "pairs judged right",
            "Does the second sentence follow the first?",
            " Dots: held-out text; dashed: always giving the commoner answer, which short sequences make easy.",
            evaluated=lambda e: (e.next_sentence_accuracy, e.next_sentence_commonest),
            reference="commoner answer", as_percent=True,
        ),
        _chart(
            runs, "learning-rate", "learning_rate", "Learning rate", "learning rate, no unit",
            "As scheduled: a linear warm-up and decay in every phase.", exact=True, from_zero=True,
        ),
        _chart(
            runs, "gradient-norm", "gradient_norm", "Gradient norm", "L2 norm, before clipping",
            "Of the whole gradient of the global batch, at each step.", from_zero=True,
        ),
        _chart(
            runs, "sequences-per-second", "sequences_per_second", "Sequences per second", "sequences / s",
            "Throughput of the whole run, all processes together.", from_zero=True,
        ),
        _chart(
            runs, "tokens-per-second", "tokens_per_second", "Tokens per second", "tokens / s",
            "Real tokens only; padding is not counted.", from_zero=True,
        ),
    ]  # fmt: skip
    return [chart for chart in charts if chart is not None]


def phase_marks(run: Run) -> tuple[PhaseMark, ...]:
    """The phases as far as the run has come."""
    reached = int(run.steps[-1])
    return tuple(
        PhaseMark(
            start=phase.first_step,
            stop=min(phase.last_step, reached),
            long=f"length {words.count(phase.sequence_length)} × batch {words.count(phase.batch_size)}",
            short=f"{words.count(phase.sequence_length)} × {words.count(phase.batch_size)}",
        )
        for phase in run.phases
        if phase.first_step <= reached
    )


def sequences_seen(run: Run) -> Floats:
    """Sequences seen after each recorded step, float64 [steps]."""
    seen = np.zeros(len(run.steps))
    for phase in run.phases:
        seen += np.clip(run.steps - phase.first_step + 1, 0, phase.steps) * phase.batch_size
    return seen


def _chart(
    runs: Sequence[Run], name: str, column: str, title: str, y_label: str, caption: str,
    held_out_caption: str = "", *,
    evaluated: Callable[..., tuple[float, float]] | None = None, reference: str = "", exact: bool = False,
    as_percent: bool = False, from_zero: bool = False,
) -> Chart | None:  # fmt: skip
    if not any(np.isfinite(run.series[column]).any() for run in runs):
        return None
    traces: list[Trace] = []
    for place, run in enumerate(runs):
        traces += _step_traces(run, place, column, exact, runs)
    if evaluated is not None:
        traces += _evaluation_traces(runs, evaluated, reference)
    window = window_steps(len(runs[0].steps))
    if column == "masked_word_loss" and window > 1 and len(runs) == 1:
        caption += f" The line averages {window} steps, the faint one is every step."
    if any(trace.kind == "points" for trace in traces):
        caption += held_out_caption
    marks = {phase_marks(run) for run in runs}
    return Chart(
        name, title, caption, y_label, tuple(traces), marks.pop() if len(marks) == 1 else (),
        as_percent=as_percent, from_zero=from_zero,
    )  # fmt: skip


def _step_traces(run: Run, place: int, column: str, exact: bool, runs: Sequence[Run]) -> list[Trace]:
    x, y = run.steps.astype(np.float64), run.series[column]
    if exact or window_steps(len(x)) == 1:
        return [_line(run, place, *thin(x, y, _budget(runs)), len(runs))]
    line = _line(run, place, *pick(x, _smoothed(run, column), _budget(runs) // 2), len(runs))
    if len(runs) > _MOST_RUNS_WITH_RAW:
        return [line]
    return [Trace("raw", colour_of(place), *thin(x, y, _budget(runs)), label=""), line]


def _line(run: Run, place: int, x: Floats, y: Floats, runs: int) -> Trace:
    label = run.name if runs > 1 else "training"
    return Trace("line", colour_of(place), x, y, label, dashed=place // SERIES_COLOURS % 2 == 1)


def _evaluation_traces(
    runs: Sequence[Run], evaluated: Callable[..., tuple[float, float]], reference: str
) -> list[Trace]:
    traces: list[Trace] = []
    for place, run in enumerate(runs):
        figures = np.array([(e.step, *evaluated(e)) for e in run.evaluations]).reshape(-1, 3)
        if not np.isfinite(figures[:, 1:]).any():
            continue
        x, measured, unigram = figures.T
        single = len(runs) == 1
        last = bool(np.isfinite(unigram).any()) and reference
        if last:  # it hardly varies between evaluations: the last one stands for all
            level = unigram[np.isfinite(unigram)][-1:]
            label = reference if place == 0 else ""
            traces.append(Trace("reference", "muted", x[-1:], level, label, dashed=True))
        colour = "series-2" if single else colour_of(place)
        label = "held-out evaluation" if single else ""  # many colours: there the caption names the dots
        traces.append(Trace("points", colour, *thin(x, measured, 400), label))
    return traces


def _smoothed(run: Run, column: str) -> Floats:
    return smooth(run.series[column], window_steps(len(run.steps)), run.series["phase"])


def _budget(runs: Sequence[Run]) -> int:
    return max(_POINTS_PER_CHART // len(runs), 60)
