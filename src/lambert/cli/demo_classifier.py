"""The end of the demo: a classifier that tells from which package a paragraph of documentation comes."""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lambert.cli.finetune_progress import fine_tune_progress
from lambert.cli.subcommand import say
from lambert.corpus.python_docs import PACKAGES
from lambert.corpus.sources import Document
from lambert.utils.formatting import shell_command
from lambert.utils.io import write_text

OTHERS = "python"
"""Label of the language reference and the standard library."""
_MOST_OF_A_LABEL, _FEWEST_OF_A_LABEL = 600, 20
_CHARACTERS = range(60, 400)
_SETTINGS: dict[str, Any] = {"epochs": 3, "learning_rate": 1e-3, "sequence_length": 64}


def write_labels(documents: Iterable[Document], file: Path) -> None:
    """Paragraphs and the packages they come from, as CSV: at most 600 of a package. Nothing where there is only one."""
    by_label: defaultdict[str, list[str]] = defaultdict(list)
    for document in documents:
        package = document.source.partition(".")[0]
        label = package if package in PACKAGES else OTHERS
        by_label[label] += [text for text in document.paragraphs if len(text) in _CHARACTERS]
    usable = {label: texts for label, texts in sorted(by_label.items()) if len(texts) >= _FEWEST_OF_A_LABEL}
    if len(usable) < 2:
        return
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(("text", "label"))
    for label, texts in usable.items():
        chosen = random.Random(0).sample(texts, min(len(texts), _MOST_OF_A_LABEL))
        table.writerows((text, label) for text in chosen)
    write_text(file, rows.getvalue())


def classify(model: Path, file: Path, out: Path) -> dict[str, Any] | None:
    """Fine-tune the model on the file and say how well it does; None where the metrics' packages are missing.

    Returns:
        `accuracy`, `majority_accuracy`, `examples` and `model`, the folder of the classifier.
    """
    options = [word for name, value in _SETTINGS.items() for word in (f"--{name.replace('_', '-')}", f"{value:g}")]
    command = shell_command("lambert", "finetune", model, file, "--out", out, *options)
    if find_spec("sklearn") is None or find_spec("scipy") is None:
        say("A classifier of it needs two more packages:")
        say(f"  pip install 'lambert-bert[finetune]' && {command}")
        return None
    from lambert.finetune.labelled.api import fine_tune
    from lambert.report import write_finetune_page

    say("From which package is a paragraph? Fine-tuning a classifier …")
    with fine_tune_progress() as progress:
        result = fine_tune(model, file, out=out, progress=progress, **_SETTINGS)
    page = write_finetune_page(result.to_dict(), out / "report.html")
    accuracy, baseline = result.metrics["accuracy"], result.majority_baseline["accuracy"]
    held_out = f"{result.dev_examples:,} held-out paragraphs"
    say(f"Right for {accuracy:.0f} % of {held_out}; the most frequent package: {baseline:.0f} %")
    say(f"Errors: {page}; made by: {command}")
    return {
        "accuracy": accuracy,
        "majority_accuracy": baseline,
        "examples": result.dev_examples,
        "model": result.model,
    }
