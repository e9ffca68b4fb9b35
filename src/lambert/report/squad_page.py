"""One self-contained HTML page about a fine-tuning on SQuAD: scores, kinds of questions, the worst errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lambert.report.document import writable, write
from lambert.report.fine_tuning import OF_BEST_SEED, Tile, between, page, rates_table, seeds_table, value
from lambert.report.tables import grid
from lambert.utils import formatting

Facts = Mapping[str, Any]
_METRICS = ("exact_match", "f1")


def write_squad_page(facts: Facts, out: Path) -> Path:
    """Writes the page and returns its path.

    Args:
        facts: the contents of `squad.json`.

    Raises:
        UserError: `out` cannot be written.
    """
    return write(writable(Path(out)), render(facts).encode("utf-8", errors="replace"))


def render(facts: Facts) -> str:
    """The page as a string."""
    details = facts["details"]
    sections = {
        "Metrics": _metrics(facts),
        "By question word": _groups("Question word", details["by_question_word"]),
        "By length of the answer": _groups("First reference answer", details["by_answer_length"]),
    }
    if details["errors"]:
        sections["Worst errors"] = _errors(details["errors"])
    count, measured = formatting.count(facts["train_questions"]), formatting.count(facts["dev_questions"])
    lead = f"{count} training questions, measured on {measured} others"
    return page({**facts, "task": f"SQuAD v{facts['version']}"}, lead, _tiles(facts), sections)


def _tiles(facts: Facts) -> list[Tile]:
    entries = []
    for name, title in zip(_METRICS, ("Exact match", "F1"), strict=True):
        interval = between(facts[f"{name}_interval"])
        beside = f"95 % confidence interval {interval}" if interval else "one seed"
        entries.append((title, value(facts[name]), beside))
    for name, title in (("has_answer", "F1 with an answer"), ("no_answer", "F1 without an answer")):
        if facts[name] is not None:
            beside = f"{formatting.count(facts[name]['questions'])} questions"
            entries.append((title, value(facts[name]["f1"]), beside))
    return entries


def _metrics(facts: Facts) -> str:
    """Every seed's, and the learning rates that were tried."""
    mean = {name: facts[name] for name in _METRICS}
    intervals = {name: facts[f"{name}_interval"] for name in _METRICS}
    text = seeds_table(facts["seeds"], facts["seeds"], mean, intervals, {})
    if facts["best_f1"] is not None:
        best = f"exact match {value(facts['best_exact_match'])}, F1 {value(facts['best_f1'])}"
        text += f'<p class="note">With the best threshold of each seed, tuned on these very questions: {best}.</p>'
    tuning = facts["tuning"]
    return text if tuning is None else text + rates_table(tuning["trials"], _METRICS, tuning["held_out"])


def _groups(title: str, groups: Sequence[Facts]) -> str:
    rows = [
        [group["label"], formatting.count(group["questions"]), value(group["exact_match"]), value(group["f1"])]
        for group in groups
    ]
    return grid([title, "Questions", "Exact match", "F1"], rows, texts={0}) + OF_BEST_SEED


def _errors(errors: Sequence[Facts]) -> str:
    head = ["Question", "Passage", "Reference answers", "Predicted", "F1", "Probability"]
    rows = [
        [
            one["question"],
            one["passage"],
            "; ".join(one["given"]) or "no answer",
            one["predicted"] or "no answer",
            f"{one['f1']:.0f}",
            formatting.MISSING if one["probability"] is None else formatting.percent(one["probability"]),
        ]
        for one in errors
    ]
    note = (
        "Of the best seed: wrong answers of lowest F1, the most probable first. A probability is that of the best span "
        "among the best ones of its question."
    )
    return f'<p class="note">{note}</p>{grid(head, rows, texts={0, 1, 2, 3})}'
