"""One self-contained HTML page that compares models after the same fine-tunings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lambert.report.document import document, writable, write
from lambert.report.fine_tuning import METRIC_NAMES, TWO_SEEDS
from lambert.report.published import published_tables
from lambert.report.tables import grid
from lambert.utils import formatting

Facts = Mapping[str, Any]


def write_model_comparison(facts: Facts, out: Path) -> Path:
    """Writes the page and returns its path.

    Args:
        facts: the contents of `comparison.json`.

    Raises:
        UserError: `out` cannot be written.
    """
    return write(writable(Path(out)), render(facts).encode("utf-8", errors="replace"))


def render(facts: Facts) -> str:
    """The page as a string."""
    facts = _without_two(facts)
    seeds, models = len(facts["seeds"]), facts["models"]
    title = f"{len(models)} models compared"
    times = f"{seeds} time{'s' * (seeds > 1)} on each task, with the same seeds"
    lead = f"Every model was fine-tuned in the same way, {times}."
    body = (
        f'<header><p class="eyebrow">lambert comparison</p><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>'
        f"</header><h2>Scores</h2>{_scores(facts)}"
    )
    for task in facts["tasks"]:
        entries = [entry for entry in facts["entries"] if entry["task"] == task]
        body += f"<h2>{escape(task)}</h2>{_task(entries)}"
        body += published_tables(facts["published"][task], [*entries[0]["metrics"]], [])
    return document(title, body)


def _without_two(facts: Facts) -> Facts:
    """Without intervals where there are two seeds."""
    if len(facts["seeds"]) != 2:
        return facts
    none = {"score_interval": None, "difference_interval": None}
    return {**facts, "entries": [{**entry, **none} for entry in facts["entries"]]}


def _scores(facts: Facts) -> str:
    """Models by tasks, and the mean over the tasks; the best of each column is bold."""
    cells = {(entry["model"], entry["task"]): entry for entry in facts["entries"]}
    rows, numbers = [], []
    several = len(facts["tasks"]) > 1
    for model in facts["models"]:
        found = [cells.get((model, task)) for task in facts["tasks"]]
        scores = [None if entry is None else entry["score"] for entry in found]
        known = [score for score in scores if score is not None]
        numbers.append([*scores, sum(known) / len(known) if len(known) == len(scores) else None])
        mean = "–" if numbers[-1][-1] is None else f"{numbers[-1][-1]:.2f}"
        rows.append([model, *map(_score, found), *[mean] * several])
    best = set()
    for column in range(len(facts["tasks"]) + 1):
        column_scores = [(row[column], index) for index, row in enumerate(numbers) if row[column] is not None]
        if column_scores:
            best.add((max(column_scores)[1], column + 1))
    table = grid(["Model", *facts["tasks"], *["Mean"] * several], rows, texts={0}, best=best)
    if len(facts["seeds"]) == 2:
        return f'{table}<p class="note">{TWO_SEEDS}</p>'
    note = f"± half of the {100 * facts['confidence']:.0f} % confidence interval of the mean over the seeds."
    return f'{table}<p class="note">{note if len(facts["seeds"]) > 1 else "One seed: no interval."}</p>'


def _score(entry: Facts | None) -> str:
    return "–" if entry is None else _with_interval(entry["score"], entry["score_interval"])


def _with_interval(value: float | None, interval: Sequence[float] | None, *, sign: str = "") -> str:
    if value is None:
        return "–"
    half = "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.2f}"
    return f"{value:{sign}.2f}{half}"


def _task(entries: Sequence[Facts]) -> str:
    first = entries[0]
    names = [METRIC_NAMES.get(name, name) for name in first["metrics"]]
    head = ["Model", "Score", f"Minus {first['model']}", *names, "Time"]
    rows = [
        [
            entry["model"],
            _score(entry),
            _with_interval(entry["difference"], entry["difference_interval"], sign="+"),
            *(f"{value:.2f}" for value in entry["metrics"].values()),
            formatting.duration(entry["seconds"]),
        ]
        for entry in entries
    ]
    train, dev = formatting.count(first["train_examples"]), formatting.count(first["dev_examples"])
    scored = " and ".join(METRIC_NAMES.get(name, name) for name in first["scored"])
    note = (
        f"Score: {scored}. {train} training and {dev} development examples. A constant answer, the most "
        f"frequent label or the mean, scores {first['majority_baseline']:.2f}. A difference whose interval covers 0 "
        "may be chance."
    )
    return f'{grid(head, rows, texts={0})}<p class="note">{escape(note)}</p>'
