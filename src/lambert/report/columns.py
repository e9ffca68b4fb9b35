"""Runs -> the tables that the page's charts are drawn from: few rows however long the run, numbers as"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambert.report.curves import Floats, smooth, window_steps
from lambert.runlog.reader import Run
from lambert.runlog.records import STEP_PARTS, Phase

Table = dict[str, list[float | None]]
AXES = ("step", "samples", "tokens", "hours")
"""What a chart's x axis can count; every table has a column of each name."""
SMOOTHED = (
    "masked_word_loss", "masked_word_accuracy", "next_sentence_accuracy", "gradient_norm", "tokens_per_second",
    "utilisation",
)  # fmt: skip
BANDS = ("masked_word_loss", "gradient_norm")
"""Columns whose lowest and highest value in each row's steps are kept too, so that no peak is lost."""
LEVELS = ("none", "medium", "strong")
"""Of smoothing; a column has one for each, called `name_0`, `name_1`, and so on."""
_SHARES_OF_RUN = (0, 40, 12)  # a level averages one such part of the run
_ROWS_OF_ONE_RUN, _ROWS_IN_ALL, _FEWEST_ROWS = 600, 2_400, 40
_MOST_POINTS = 2_000  # of evaluations and of marks, all runs together
MOST_WITH_BANDS = 2


def windows(steps: int) -> tuple[int, ...]:
    """Steps averaged at each level of smoothing: odd numbers; 1 is none, as for runs too short to smooth."""
    if window_steps(steps) == 1:
        return (1,) * len(LEVELS)
    return tuple(max(steps // share, 2) // 2 * 2 + 1 if share else 1 for share in _SHARES_OF_RUN)


def progress(run: Run) -> dict[str, Floats]:
    """How far the run was after each recorded step, float64 [steps] each; NaN where the journal does not tell.

    Samples are sequences; tokens are real ones, without padding; hours are of training, without pauses.
    """
    seconds = run.series["seconds"]
    return {
        "step": run.steps.astype(np.float64),
        "samples": sequences_seen(run) if run.phases else np.full(len(run.steps), np.nan),
        "tokens": _added_up(run.series["tokens_per_second"] * seconds),
        "hours": _added_up(seconds) / 3600,
    }


def sequences_seen(run: Run) -> Floats:
    """Sequences seen after each recorded step, float64 [steps]."""
    seen = np.zeros(len(run.steps))
    for phase in run.phases:
        seen += np.clip(run.steps - phase.first_step + 1, 0, phase.steps) * phase.batch_size
    return seen


def steps_table(runs: Sequence[Run]) -> Table:
    """One row for a stretch of steps of a run: means, some of them smoothed, lowest and highest."""
    most = min(_ROWS_OF_ONE_RUN, max(_ROWS_IN_ALL // len(runs), _FEWEST_ROWS))
    parts = []
    for place, run in enumerate(runs):
        starts = _starts(len(run.steps), most)
        lasts = np.append(starts[1:], len(run.steps)) - 1
        columns = {"run": np.full(len(starts), float(place))}
        columns |= {name: values[lasts] for name, values in progress(run).items()}
        for name in SMOOTHED:
            for level, window in enumerate(windows(len(run.steps))):
                smoothed = smooth(run.series[name], window, run.series["phase"])
                columns[f"{name}_{level}"] = _mean(smoothed, starts)
        if len(runs) <= MOST_WITH_BANDS:
            for name in BANDS:
                columns[f"{name}_low"] = np.fmin.reduceat(run.series[name], starts)
                columns[f"{name}_high"] = np.fmax.reduceat(run.series[name], starts)
            columns["recipe_rate"] = recipe_rates(run)[lasts]
        columns["learning_rate"] = run.series["learning_rate"][lasts]
        for name in STEP_PARTS:
            columns[f"seconds_of_{name}"] = _mean(run.series[f"seconds_of_{name}"], starts)
        parts.append(columns)
    names = [name for name in parts[0] if any(np.isfinite(columns[name]).any() for columns in parts)]
    return packed({name: np.concatenate([columns[name] for columns in parts]) for name in names})


def evaluations_table(runs: Sequence[Run]) -> Table:
    """One row for every held-out evaluation, thinned where there are very many."""
    most = max(_MOST_POINTS // len(runs), 4)
    rows = []
    for place, run in enumerate(runs):
        chosen = _some(run.evaluations, most)
        for x, e in zip(at(run, [e.step for e in chosen]), chosen, strict=True):
            rows.append([place, *x, e.masked_word_loss, e.masked_word_accuracy, e.next_sentence_accuracy])
    names = ("run", *AXES, "masked_word_loss", "masked_word_accuracy", "next_sentence_accuracy")
    return packed(dict(zip(names, np.array(rows, dtype=np.float64).reshape(-1, len(names)).T, strict=True)))


def noise_table(run: Run) -> Table:
    """The noise scale in sequences with two standard errors either way, beside the batch."""
    chosen = _some([noise for noise in run.noise if np.isfinite(noise.noise_scale)], _ROWS_OF_ONE_RUN)
    rows = []
    for x, noise in zip(at(run, [noise.step for noise in chosen]), chosen, strict=True):
        reach = 2 * noise.standard_error
        low = max(noise.noise_scale - reach, min(1.0, noise.noise_scale))  # a logarithmic axis has no place for less
        rows.append([*x, noise.noise_scale, low, noise.noise_scale + reach, noise.large_batch])
    names = (*AXES, "noise_scale", "low", "high", "batch")
    return packed(dict(zip(names, np.array(rows, dtype=np.float64).reshape(-1, len(names)).T, strict=True)))


def marks_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What befell the runs, one object each."""
    most = max(_MOST_POINTS // 10 // len(runs), 4)
    rows: list[dict[str, Any]] = []
    for place, run in enumerate(runs):
        chosen = _some(run.marks, most)
        for x, mark in zip(at(run, [mark.step for mark in chosen]), chosen, strict=True):
            rows.append({"run": place, "kind": mark.kind.replace("_", "-"), "what": mark.text, **_finite(x)})
    return rows


def phase_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Where phases begin, if it is the same for all runs; the label of the last one belongs to the right end."""
    spans = {tuple((p.first_step, p.steps, p.sequence_length, p.batch_size) for p in run.phases) for run in runs}
    run = runs[0]
    reached = [phase for phase in run.phases if phase.first_step <= run.steps[-1]]
    if len(spans) > 1 or len(reached) < 2:
        return []
    starts = at(run, [max(phase.first_step - 0.5, 1) for phase in reached])
    return [
        {"label": f"{phase.sequence_length:,} × {phase.batch_size:,}", "place": place, "last": phase is reached[-1],
         **_finite(x)}
        for place, (phase, x) in enumerate(zip(reached, starts, strict=True))
    ]  # fmt: skip


def at(run: Run, steps: Sequence[float]) -> list[list[float]]:
    """Each of these steps on each of the axes."""
    columns = [np.interp(steps, run.steps, values) for values in progress(run).values()]
    return np.stack(columns, axis=1).tolist() if len(steps) else []


def recipe_rates(run: Run) -> Floats:
    """The learning rate that the recipe gives for each recorded step, float64 [steps]; NaN where it has none.

    A linear warm-up to the peak, some steps there, then (share of the decay that is left) ^ power, as recipe.toml
    states them; phases that continue one before them lie on its schedule.
    """
    rates = np.full(len(run.steps), np.nan)
    stated = run.recipe.get("phases")
    tables = stated if isinstance(stated, list) and len(stated) == len(run.phases) else []
    for place, (phase, table) in enumerate(zip(run.phases, tables, strict=False)):
        if isinstance(table, dict) and not table.get("continues"):
            following = takewhile(lambda t: isinstance(t, dict) and bool(t.get("continues")), tables[place + 1 :])
            total = phase.steps + sum(run.phases[place + 1 + n].steps for n, _ in enumerate(following))
            inside = (run.steps >= phase.first_step) & (run.steps < phase.first_step + total)
            try:
                rates[inside] = _scheduled(run.steps[inside] - phase.first_step + 1, phase, table, total)
            except (TypeError, ValueError, ZeroDivisionError):
                continue  # a recipe changed by hand to something that is no schedule: no line
    return rates


def _scheduled(steps: NDArray[np.int64], phase: Phase, table: Mapping[str, Any], total: int) -> Floats:
    warmup, held = phase.warmup_steps, phase.warmup_steps + int(table.get("constant_steps", 0))
    began = 1 if table.get("decays_from_start") else max(held, 1)
    left = np.clip((total - steps + 1) / (total - began + 1), 0.0, 1.0)
    final = float(table.get("final_share", 0.0))
    decayed = final + (1 - final) * left ** float(table.get("decay_power", 1.0))
    shares = np.where(steps <= warmup, steps / max(warmup, 1), np.where(steps <= held, 1.0, decayed))
    return np.asarray(phase.peak_learning_rate * shares, dtype=np.float64)


def packed(columns: Mapping[str, Floats]) -> Table:
    """Numbers to four digits, those of the axes to six, whole ones in full; None where there is none."""
    return {
        name: [_short(value, 6 if name in AXES else 4) for value in values.tolist()] for name, values in columns.items()
    }


def _short(value: float, digits: int) -> float | None:
    if not np.isfinite(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.{digits}g}")


def _starts(steps: int, most: int) -> NDArray[np.int64]:
    """The first place of each of at most so many stretches."""
    return np.unique(np.linspace(0, steps, min(most, steps), endpoint=False).astype(np.int64))


def _mean(values: Floats, starts: NDArray[np.int64]) -> Floats:
    """Of the finite values of each stretch; NaN where there are none."""
    finite = np.isfinite(values)
    totals = np.add.reduceat(np.where(finite, values, 0.0), starts)
    counts = np.add.reduceat(finite.astype(np.int64), starts)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def _added_up(amounts: Floats) -> Floats:
    """Running total; a step that does not tell counts as their mean. NaN throughout where none tells."""
    finite = np.isfinite(amounts)
    if not finite.any():
        return np.full(len(amounts), np.nan)
    return np.cumsum(np.where(finite, amounts, amounts[finite].mean()))


def _some(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[place] for place in np.unique(np.linspace(0, len(items) - 1, most).round().astype(int))]


def _finite(values: Sequence[float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in zip(AXES, values, strict=True)}
