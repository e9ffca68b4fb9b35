"""Runs → the tables that charts are drawn from: a bounded number of rows, however long the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambert.runlog.reader import Run
from lambert.runlog.records import Evaluation, Phase
from lambert.runlog.schema import BASELINES, STEP_PARTS
from lambert.utils.lr_schedule import LRSchedule

Floats = NDArray[np.float64]
Table = dict[str, list[float | None]]
AXES = ("step", "samples", "tokens", "hours")
"""What a chart's x axis can count; every table has a column of each name."""
SMOOTHED = ("mlm_loss", "mlm_accuracy", "nsp_accuracy", "gradient_norm", "tokens_per_second", "mfu")
BANDS = ("mlm_loss", "gradient_norm")
"""Columns whose lowest and highest value in each row's steps are kept too, so that no peak is lost."""
LEVELS = ("none", "medium", "strong")
"""Of smoothing; a smoothed column is there once for each, as `name_0`, `name_1` and so on."""
MOST_WITH_BANDS = 2
FEW_PHASES = 2
"""Their labels have words; those of more phases are "length × batch"."""
_WINDOWS_IN_RUN = (0, 40, 12)  # of each level; 0 is no smoothing
_LEAST_STEPS_TO_SMOOTH = 60
_ENOUGH_MASK_TOKENS = 0.75
_ROWS_OF_ONE_RUN, _ROWS_IN_ALL, _FEWEST_ROWS = 600, 2_400, 40
_MOST_POINTS = 2_000  # of evaluations and of incidents, all runs together


def at_mask_tokens(run: Run) -> Run | None:
    """The run with training loss and accuracy at [MASK] tokens alone, as evaluations have them; None without them.

    A batch may have no [MASK], but where many steps lack them, an older version has written a part of the journal.
    """
    known = np.isfinite(run.series["mask_token_loss"]) | ~np.isfinite(run.series["mlm_loss"])
    if known.mean() < _ENOUGH_MASK_TOKENS or not np.isfinite(run.series["mask_token_loss"]).any():
        return None
    renamed = {"mlm_loss": run.series["mask_token_loss"], "mlm_accuracy": run.series["mask_token_accuracy"]}
    return replace(run, series={**run.series, **renamed})


def windows(steps: int) -> tuple[int, ...]:
    """Steps averaged at each level of smoothing: odd numbers; 1 is none, as for runs too short to smooth."""
    if steps < _LEAST_STEPS_TO_SMOOTH:
        return (1,) * len(LEVELS)
    return tuple(max(steps // count, 2) // 2 * 2 + 1 if count else 1 for count in _WINDOWS_IN_RUN)


def smooth(values: Floats, window: int, groups: NDArray[np.generic]) -> Floats:
    """Centred moving average of values [n] that never reaches across groups [n] (phases).

    At the start of a group, where a loss falls fast, the window shrinks on both sides, so that the line starts where
    the data starts. At the end only the missing half is left out. NaNs are not averaged and stay NaN: a gap in the
    data is a gap in the line.
    """
    same = (groups[1:] == groups[:-1]) | ((groups[1:] != groups[1:]) & (groups[:-1] != groups[:-1]))
    edges = [0, *(np.flatnonzero(~same) + 1).tolist(), len(groups)]
    return np.concatenate([_smooth_group(values[start:stop], window) for start, stop in pairwise(edges)])


def _smooth_group(values: Floats, window: int) -> Floats:
    n = len(values)
    index = np.arange(n)
    reach = np.minimum(window // 2, index)
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    low, high = index - reach, np.minimum(index + reach + 1, n)
    return np.where(finite, (sums[high] - sums[low]) / np.maximum(counts[high] - counts[low], 1), np.nan)


def y_limits(series: Sequence[Floats], references: Sequence[float], *, from_zero: bool) -> tuple[float, float, bool]:
    """Lowest and highest y to show, and whether rare spikes reach beyond.

    A divergence of a thousandfold would flatten all that led to it, so the top is cut where the highest point is far
    above nearly all others. References and first points always fit.
    """
    finite = [values[np.isfinite(values)] for values in series]
    together = np.concatenate([*finite, np.array(references)]) if finite or references else np.array([])
    if not len(together):
        return 0.0, 1.0, False
    low, high = float(together.min()), float(together.max())
    wanted = max([*references, *(float(values[0]) for values in finite if len(values))])
    usual = max(float(np.quantile(together, 0.98)), wanted)
    spread = usual - (0.0 if from_zero else low)
    cut = high > usual + 1.5 * spread and spread > 0
    high = usual + 0.15 * spread if cut else high
    low = min(low, 0.0) if from_zero else low
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return (low if from_zero else low - margin), high + margin, cut


def progress(run: Run) -> dict[str, Floats]:
    """How far the run was after each recorded step, float64 [steps] for each axis; NaN where not recorded.

    Samples are sequences; tokens are real ones, without padding; hours are of training, without pauses.
    """
    seconds = run.series["seconds"]
    return {
        "step": run.steps.astype(np.float64),
        "samples": sequences_seen(run) if run.phases else np.full(len(run.steps), np.nan),
        "tokens": _running_total(run.series["tokens_per_second"] * seconds),
        "hours": _running_total(seconds) / 3600,
    }


def sequences_seen(run: Run) -> Floats:
    """Sequences seen after each recorded step, float64 [steps]."""
    seen = np.zeros(len(run.steps))
    for phase in run.phases:
        seen += np.clip(run.steps - phase.first_step + 1, 0, phase.steps) * phase.batch_size
    return seen


def steps_table(runs: Sequence[Run]) -> Table:
    """One row for a stretch of steps of a run: means (smoothed at each level), lowest and highest values."""
    most = min(_ROWS_OF_ONE_RUN, max(_ROWS_IN_ALL // len(runs), _FEWEST_ROWS))
    tables = []
    for index, run in enumerate(runs):
        starts = np.unique(np.linspace(0, len(run.steps), min(most, len(run.steps)), endpoint=False).astype(np.int64))
        lasts = np.append(starts[1:], len(run.steps)) - 1
        columns = {"run": np.full(len(starts), float(index))}
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
        for part in STEP_PARTS:
            columns[f"{part}_seconds"] = _mean(run.series[f"{part}_seconds"], starts)
        tables.append(columns)
    names = [name for name in tables[0] if any(np.isfinite(columns[name]).any() for columns in tables)]
    return packed({name: np.concatenate([columns[name] for columns in tables]) for name in names})


def evaluations_table(runs: Sequence[Run]) -> Table:
    """One row for each evaluation, thinned where there are very many."""
    rows = []
    for index, run in enumerate(runs):
        chosen = evenly_spaced(run.evaluations, max(_MOST_POINTS // len(runs), 4))
        for x, e in zip(at(run, [e.step for e in chosen]), chosen, strict=True):
            rows.append([index, *x, e.mlm_loss, e.mlm_accuracy, e.nsp_accuracy])
    return _packed_rows(("run", *AXES, "mlm_loss", "mlm_accuracy", "nsp_accuracy"), rows)


def noise_table(run: Run) -> Table:
    """The noise scale in sequences with two standard errors either way, and the batch size."""
    chosen = evenly_spaced([noise for noise in run.noise if np.isfinite(noise.noise_scale)], _ROWS_OF_ONE_RUN)
    rows = []
    for x, noise in zip(at(run, [noise.step for noise in chosen]), chosen, strict=True):
        reach = 2 * noise.standard_error
        low = max(noise.noise_scale - reach, min(1.0, noise.noise_scale))  # a logarithmic axis ends above zero
        rows.append([*x, noise.noise_scale, low, noise.noise_scale + reach, noise.large_batch])
    return _packed_rows((*AXES, "noise_scale", "low", "high", "batch"), rows)


def incident_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row for each incident of the runs."""
    rows: list[dict[str, Any]] = []
    for index, run in enumerate(runs):
        chosen = evenly_spaced(run.incidents, max(_MOST_POINTS // 10 // len(runs), 4))
        for x, incident in zip(at(run, [incident.step for incident in chosen]), chosen, strict=True):
            kind = incident.kind.replace("_", "-")
            rows.append({"run": index, "kind": kind, "what": incident.text, **_finite(AXES, x)})
    return rows


def phase_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Where phases begin, if it is the same for all runs; the label of the last one belongs to the right end."""
    spans = {tuple((p.first_step, p.steps, p.sequence_length, p.batch_size) for p in run.phases) for run in runs}
    run = runs[0]
    reached = [phase for phase in run.phases if phase.first_step <= run.steps[-1]]
    if len(spans) > 1:
        return []
    label = "length {:,}, batch {:,}" if len(reached) <= FEW_PHASES else "{:,} × {:,}"
    starts = at(run, [max(phase.first_step - 0.5, 1) for phase in reached])
    return [
        {"label": label.format(phase.sequence_length, phase.batch_size), "index": index,
         "last": 0 < index == len(reached) - 1, **_finite(AXES, x)}
        for index, (phase, x) in enumerate(zip(reached, starts, strict=True))
    ]  # fmt: skip


def baseline_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row for each evaluated phase of each run: its baselines, and where it begins and ends on each axis.

    The validation set of a phase has its own sequence length, so its baselines are its own too. A level is the last
    one measured in the phase, None where it was not. Rows with the same `line` are one line on the chart: the same
    phase of runs with the same steps and levels.
    """
    rows: list[dict[str, Any]] = []
    lines: dict[tuple[Any, ...], int] = {}
    for index, run in enumerate(runs):
        for phase in run.phases:
            within = [e for e in run.evaluations if e.step in phase]
            if within:
                levels = {name: _last_finite(within, name) for name in BASELINES}
                start, stop = at(run, [max(phase.first_step - 0.5, 1), min(phase.last_step, int(run.steps[-1]))])
                span = (phase.first_step, phase.steps, phase.batch_size, phase.sequence_length)
                line = lines.setdefault((*span, *levels.values()), len(lines))
                label = f"{phase.number} (length {phase.sequence_length:,})"
                ends = _finite(AXES, start) | _finite([f"{axis}_stop" for axis in AXES], stop)
                rows.append({"run": index, "line": line, "phase": label, **levels, **ends})
    return rows


def _last_finite(evaluations: Sequence[Evaluation], name: str) -> float | None:
    finite = [value for e in evaluations if np.isfinite(value := getattr(e, name))]
    return float(f"{finite[-1]:.6g}") if finite else None


def at(run: Run, steps: Sequence[float]) -> list[list[float]]:
    """Each of these steps on each of the axes."""
    columns = [np.interp(steps, run.steps, values) for values in progress(run).values()]
    return np.stack(columns, axis=1).tolist() if len(steps) else []


def recipe_rates(run: Run) -> Floats:
    """The learning rate that recipe.toml gives for each recorded step, float64 [steps]; NaN where it has none.

    Phases that continue one before them lie on its schedule.
    """
    rates = np.full(len(run.steps), np.nan)
    stated = run.recipe.get("phases")
    tables = stated if isinstance(stated, list) and len(stated) == len(run.phases) else []
    for index, (phase, table) in enumerate(zip(run.phases, tables, strict=False)):
        if isinstance(table, dict) and not table.get("continues"):
            following = takewhile(lambda t: isinstance(t, dict) and bool(t.get("continues")), tables[index + 1 :])
            total = phase.steps + sum(run.phases[index + 1 + n].steps for n, _ in enumerate(following))
            inside = (run.steps >= phase.first_step) & (run.steps < phase.first_step + total)
            try:
                schedule = _schedule(phase, table, total)
                rates[inside] = [schedule.rate(int(step) - phase.first_step + 1) for step in run.steps[inside]]
            except (TypeError, ValueError, ZeroDivisionError):
                continue  # a recipe changed by hand to something that is no schedule: no line
    return rates


def _schedule(phase: Phase, table: Mapping[str, Any], total: int) -> LRSchedule:
    return LRSchedule(
        phase.peak_learning_rate, phase.warmup_steps, total,
        stable_steps=int(table.get("stable_steps", 0)),
        decay=str(table.get("decay", "power")),
        decay_power=float(table.get("decay_power", 1.0)),
        decays_from_start=bool(table.get("decays_from_start")),
        min_lr_ratio=float(table.get("min_lr_ratio", 0.0)),
        cooldown_steps=int(table.get("cooldown_steps", 0)),
    )  # fmt: skip


def packed(columns: Mapping[str, Floats]) -> Table:
    """Numbers to four digits, those of the axes to six, whole ones in full; None where there is none."""
    return {
        name: [_short(value, 6 if name in AXES else 4) for value in values.tolist()] for name, values in columns.items()
    }


def rows_of(table: Table) -> list[dict[str, float | None]]:
    """The same table row by row."""
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def evenly_spaced(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[index] for index in np.unique(np.linspace(0, len(items) - 1, most).round().astype(int))]


def _packed_rows(names: Sequence[str], rows: Sequence[Sequence[float]]) -> Table:
    columns = np.array(rows, dtype=np.float64).reshape(-1, len(names)).T
    return packed(dict(zip(names, columns, strict=True)))


def _short(value: float, digits: int) -> float | None:
    if not np.isfinite(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.{digits}g}")


def _mean(values: Floats, starts: NDArray[np.int64]) -> Floats:
    """Of the finite values of each stretch; NaN where there are none."""
    finite = np.isfinite(values)
    totals = np.add.reduceat(np.where(finite, values, 0.0), starts)
    counts = np.add.reduceat(finite.astype(np.int64), starts)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def _running_total(amounts: Floats) -> Floats:
    """A missing amount counts as the mean of the others. NaN throughout where all are missing."""
    finite = np.isfinite(amounts)
    if not finite.any():
        return np.full(len(amounts), np.nan)
    return np.cumsum(np.where(finite, amounts, amounts[finite].mean()))


def _finite(names: Sequence[str], values: Sequence[float] | Floats) -> dict[str, float | None]:
    return {name: float(value) if np.isfinite(value) else None for name, value in zip(names, values, strict=True)}
