"""Fine-tuning on a person's own labelled examples from Python."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lambert.errors import UserError
from lambert.finetune.job import FineTuneJob
from lambert.finetune.labelled.columns import Columns, find_columns
from lambert.finetune.labelled.metrics import check_installed
from lambert.finetune.labelled.reading import label_scale, labels_of, make_examples, make_task, read_rows
from lambert.finetune.labelled.results import LabelledResult
from lambert.finetune.labelled.runner import preset_of, run_labelled
from lambert.finetune.labelled.sequences import LabelledSettings
from lambert.finetune.labelled.split import conflicts, hold_out, tell_of_balance, tell_of_few, tell_of_overlap
from lambert.finetune.labelled.tables import Table, read_table
from lambert.finetune.labelled.task import Task
from lambert.finetune.seeds import checked_seeds
from lambert.finetune.settings import Progress, check_rates
from lambert.model.config_file import read_config
from lambert.model.huggingface import model_folder

log = logging.getLogger("lambert")
RESULTS_FILE = "finetune.json"
Source = str | Path | Sequence[Mapping[str, Any]]
_MOST_TOKENS = 512
_DEV_FRACTION = 0.1
_CONFLICTS_SHOWN = 50


@dataclass(frozen=True)
class LabelledExamples:
    """What was read."""

    task: Task
    train: list[Any]
    dev: list[Any]
    data: dict[str, Any]
    """`LabelledResult.data`."""


def fine_tune(
    model: str | Path,
    train: Source | LabelledExamples,
    *,
    dev: Source | None = None,
    dev_fraction: float | None = None,
    text: str | Sequence[str] = (),
    label: str | Sequence[str] = (),
    task: str | None = None,
    label_separator: str | None = None,
    out: str | Path | None = None,
    seeds: int | Sequence[int] = 1,
    learning_rates: Sequence[float] = (),
    train_examples: int | None = None,
    fresh: bool = False,
    settings: LabelledSettings | None = None,
    random_weights: bool = False,
    cased: bool = False,
    device: torch.device | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> LabelledResult:
    """Fine-tune a model on your own labelled examples, once for each seed, and measure it on those held out::

        result = lambert.fine_tune("runs/mine", "reviews.csv", out="runs/reviews", seeds=3)
        result.score, result.score_interval, result.majority_baseline
        transformers.pipeline("text-classification", result.model)("a fine film")

    Args:
        model: a run, or a Hugging Face folder of BERT or ModernBERT.
        train: a CSV, TSV, JSON lines, JSON, Parquet or CoNLL file, `hf:NAME[:CONFIG[:SPLIT]]`, or a list of
            dictionaries; or what `read_examples` returned, and then `dev` to `label_separator` do not count.
        dev: examples to measure on, given as `train` is; None holds out a fraction of `train` by the hash of the text.
        dev_fraction: of the different texts; None: a tenth.
        text: column of the texts, or the two of a pair; found by usual names where there is none.
        label: column of the labels, or several that hold 0 or 1; found by usual names where there is none.
        task: classification, multi-label, regression or tags; None: as the labels look.
        label_separator: between the labels of one field: multi-label.
        out: folder for `finetune.json`, the predictions, the best seed's model and the finished seeds, which the same
            call does not repeat. It is written after every seed. None writes nothing.
        seeds: how many (0, 1, …) or which. A seed decides order, dropout and the initialisation of the classifier.
        learning_rates: peaks to choose from on held-out training examples.
        train_examples: train on so many of them, those of the smallest hashes.
        fresh: repeat every seed.
        settings: everything else as one object; or give the fields of `LabelledSettings` by name, such as `epochs`.
            Without `sequence_length`, texts have up to 512 tokens, or as many as the model has positions.
        random_weights, cased, device, progress: as in `FineTuneJob`.

    Raises:
        UserError: an argument, the model, a file or a label is wrong, the loss diverged, the extra `finetune` is not
            installed, or `out` holds results of other work.
    """
    check_installed()
    config = read_config(model_folder(Path(model)))
    if settings is None:
        options = {"sequence_length": min(_MOST_TOKENS, config.maximum_positions)} | options
    settings = LabelledSettings.of(settings, **options)
    check_rates(learning_rates, settings)
    settings = settings if learning_rates else settings.resolved(config.hidden_size)
    seeds = checked_seeds(seeds)
    if isinstance(train, LabelledExamples):
        examples = train
    else:
        wanted: dict[str, Any] = {"text": text, "label": label, "task": task, "label_separator": label_separator}
        examples = read_examples(train, dev, dev_fraction, train_examples, **wanted)
    how: dict[str, Any] = {"random_weights": random_weights, "cased": cased, "device": device, "progress": progress}
    how["out"] = None if out is None else Path(out)
    job = FineTuneJob(Path(model), preset_of(examples.task), examples.train, examples.dev, settings, **how)
    job.prepare(fresh=fresh)
    rest: dict[str, Any] = {"file_name": RESULTS_FILE, "learning_rates": learning_rates, "data": examples.data}
    return run_labelled(job, examples.task, seeds, **rest)


def read_examples(
    train: Source,
    dev: Source | None = None,
    dev_fraction: float | None = None,
    train_examples: int | None = None,
    *,
    text: str | Sequence[str] = (),
    label: str | Sequence[str] = (),
    task: str | None = None,
    label_separator: str | None = None,
) -> LabelledExamples:
    """Read both files, or hold out a part of one; say what was found, how the labels are spread and what looks wrong.

    The arguments are those of `fine_tune`.

    Raises:
        UserError: see `read_table`, `find_columns`, `read_rows` and `make_task`.
    """
    if train_examples is not None and train_examples < 1:
        raise UserError(f"`train_examples` = {train_examples}", remedy="Give a whole number from 1")
    if dev is not None and dev_fraction is not None:
        raise UserError("both `dev` and `dev_fraction` are given", remedy="Give one of them")
    table = _table(train)
    columns = find_columns(table, texts=_several(text), labels=_several(label), kind=task, separator=label_separator)
    log.info(f"{table.source}: {columns.text()}")
    rows = read_rows(table, columns)
    if dev is None:
        fraction = _DEV_FRACTION if dev_fraction is None else dev_fraction
        learned, measured = hold_out(rows, lambda row: row.texts, fraction)
        measured_on, overlap = f"{len(measured):,} held out of {table.source}", 0
    else:
        other = _table(dev)
        learned, measured = rows, read_rows(other, _same_columns(columns, other))
        measured_on, overlap = other.source, tell_of_overlap(learned, measured)
    if train_examples is not None and train_examples < len(learned):
        learned = hold_out(learned, lambda row: row.texts, train_examples / len(learned))[1]
    name = Path(table.source).stem or table.source
    labels = labels_of(learned, columns.kind)
    about = make_task(name, columns, labels, labels_of(measured, columns.kind))
    if about.kind == "regression":
        scale = label_scale(learned, measured)
        about = replace(about, scale=scale)
        log.info(f"training labels: mean {scale.mean:.4g}, standard deviation {scale.deviation:.4g}")
    counts, strange = dict(labels.most_common()), conflicts(rows, about.scale)
    tell_of_balance(counts, about.kind)
    tell_of_few(len(measured), about.kind)
    if strange:
        occur = "texts occur" if len(strange) > 1 else "text occurs"
        where = " and ".join(strange[0]["places"][:2])
        log.warning(f"{len(strange):,} {occur} with several labels, the first in {where}.")
    data = {
        "train": table.source, "dev": measured_on, "texts": list(columns.texts), "label_columns": list(columns.labels),
        "examples_by_label": counts, "conflicts": len(strange), "conflicting": strange[:_CONFLICTS_SHOWN],
        "dev_texts_in_train": overlap, "label_scale": None if about.scale is None else asdict(about.scale),
    }  # fmt: skip
    return LabelledExamples(about, make_examples(learned, about), make_examples(measured, about), data)


def _same_columns(columns: Columns, other: Table) -> Columns:
    """The columns of the training file in the development file. Raises UserError where one is not there."""
    if missing := [name for name in (*columns.texts, *columns.labels) if name not in other.names]:
        raise UserError(
            f"{other.source} has no column {missing[0]!r}, as the training examples do",
            remedy=f"Name its columns as theirs; {other.column_text()}",
        )
    return columns


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _table(source: Source) -> Table:
    if isinstance(source, str | Path):
        return read_table(source)
    rows = [dict(row) for row in source]
    if not rows:
        raise UserError("the list of examples is empty", remedy="Give a dictionary for each example")
    return Table("the list", rows, [f"entry {number:,}" for number in range(1, len(rows) + 1)])
