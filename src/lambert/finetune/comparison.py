"""Several models through the same fine-tunings: one table with intervals."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.finetune.files import make_folder, write_json
from lambert.finetune.glue.api import finetune_glue
from lambert.finetune.glue.tasks import GlueTask, find_task, read_split, split_file
from lambert.finetune.labelled.api import fine_tune, read_examples
from lambert.finetune.labelled.metrics import check_installed
from lambert.finetune.labelled.results import LabelledResult, PublishedScore
from lambert.finetune.labelled.task import Example
from lambert.finetune.seeds import CONFIDENCE, checked_seeds, mean_interval
from lambert.model.config_file import read_config
from lambert.model.huggingface import model_folder

log = logging.getLogger("lambert")
RESULTS_FILE = "comparison.json"
RANDOM_WEIGHTS = "random weights"
_GLUE_FOLDERS = {"mnli-mm": "MNLI"}


@dataclass(frozen=True)
class Entry:
    """One model on one task."""

    model: str
    task: str
    scored: tuple[str, ...]
    """Metrics whose mean is the score."""
    score: float
    score_interval: tuple[float, float] | None
    """Confidence interval over the seeds; None for a single seed."""
    difference: float | None
    """To the first model, by the same seeds; None for the first one."""
    difference_interval: tuple[float, float] | None
    """Confidence interval of its mean over the seeds: it covers 0 where the models may be equally good."""
    metrics: dict[str, float]
    majority_baseline: float
    train_examples: int
    dev_examples: int
    seconds: float
    """All seeds, as measured when they ran."""
    folder: str
    """Results of this fine-tuning."""


@dataclass(frozen=True)
class Comparison:
    """Models by tasks."""

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    confidence: float
    entries: tuple[Entry, ...]
    """For each task, in the order of the models."""
    published: dict[str, tuple[PublishedScore, ...]]
    """Of each task of GLUE, scores of published models."""

    def to_dict(self) -> dict[str, Any]:
        """The contents of `comparison.json`."""
        return asdict(self)

    def table(self) -> list[list[str]]:
        """A header, and a row for each model: score and half the interval of each task."""
        cells = {(entry.model, entry.task): entry for entry in self.entries}
        rows = [["model", *self.tasks]]
        for model in self.models:
            rows.append([model, *(_cell(cells.get((model, task)), len(self.seeds)) for task in self.tasks)])
        return rows


def compare_models(
    models: Sequence[str | Path],
    *,
    data: Sequence[str | Path] = (),
    glue: str | Path | None = None,
    tasks: Sequence[str] = (),
    out: str | Path,
    seeds: int | Sequence[int] = 3,
    random_weights: bool = False,
    own: Mapping[str, Any] | None = None,
    **options: Any,
) -> Comparison:
    """Fine-tune every model in the same way, over the same seeds, and compare each with the first::

        compared = lambert.compare_models(
            ["runs/mine", "google-bert/bert-base-uncased"], data=["reviews.csv"], out="runs/compared", seeds=5
        )

    Args:
        models: runs, Hugging Face folders or names on the Hub.
        data: files of labelled examples, as `fine_tune` takes them.
        glue: folder with GLUE's folders, such as `RTE`.
        tasks: of GLUE, by name.
        out: folder of the results. Finished fine-tunings are not repeated by the same call.
        seeds: how many (0, 1, …) or which.
        random_weights: also measure the first model from random weights.
        own: arguments of `read_examples` for `data` alone, such as `text`, `label` and `dev_fraction`.
        options: arguments of both `fine_tune` and `finetune_glue`, such as `epochs`, `learning_rate` and `progress`.

    Raises:
        UserError: no model or no task is given, two have the same name, or a fine-tuning fails.
    """
    numbers = checked_seeds(seeds)
    named = _named(models)
    for path in named.values():
        read_config(model_folder(Path(path)))  # before hours of the others
    work = _work(data, glue, tasks)
    if not data and (unused := [name for name, value in (own or {}).items() if value]):
        raise UserError(
            f"`{unused[0]}` is of `data`, and there is none", remedy="Leave it out, or give files as `data`"
        )
    check_installed()
    count = options.pop("train_examples", None)
    read = {
        task: read_examples(source, train_examples=count, **(own or {}))
        for task, source in work.items()
        if not isinstance(source, GlueTask)
    }  # before hours of fine-tuning on others; those of GLUE may be too many to hold
    make_folder(Path(out))
    rows = [*named, *[RANDOM_WEIGHTS] * random_weights]
    entries: list[Entry] = []
    published: dict[str, tuple[PublishedScore, ...]] = {}
    for task, source in work.items():
        first: LabelledResult | None = None
        splits = _splits(glue, source) if isinstance(source, GlueTask) else None
        for name in rows:
            path, folder = named.get(name, next(iter(named.values()))), Path(out) / _slug(task) / _slug(name)
            log.info(f"{task}: {name}")
            shared = {"out": folder, "seeds": numbers, "random_weights": name == RANDOM_WEIGHTS, **options}
            result = (
                fine_tune(path, read[task], **shared)
                if splits is None
                else finetune_glue(path, source.name, data=splits, train_examples=count, **shared)
            )
            entries.append(_entry(name, task, result, first, folder))
            first = first or result
            published[task] = result.published
            so_far = Comparison(tuple(rows), tuple(work), tuple(numbers), CONFIDENCE, tuple(entries), published)
            write_json(Path(out) / RESULTS_FILE, so_far.to_dict())
    return so_far


def _named(models: Sequence[str | Path]) -> dict[str, str | Path]:
    """Short names: the last part of a path where these differ, else the whole path."""
    if not models:
        raise UserError("no model is given", remedy="Give two or more runs, model folders or names on the Hub")
    if len({str(model) for model in models}) != len(models):
        raise UserError("a model is given twice", remedy="Give each once")
    short = [Path(model).name or str(model) for model in models]
    names = short if len(set(short)) == len(short) else [str(model) for model in models]
    return dict(zip(names, models, strict=True))


def _work(data: Sequence[str | Path], glue: str | Path | None, tasks: Sequence[str]) -> dict[str, Any]:
    """Name of each task → its file, or the task of GLUE."""
    if tasks and glue is None:
        raise UserError("tasks of GLUE are named, and no folder of GLUE", remedy="Give the folder as `glue`")
    work: dict[str, Any] = {find_task(name).name: find_task(name) for name in tasks}
    for name, task in work.items():
        for split in ("train", "dev"):
            split_file(_glue_folder(glue, name), task, split)
    for source in data:
        name = Path(source).stem if not str(source).startswith("hf:") else str(source)
        if name in work:
            raise UserError(f"two tasks are called {name!r}", remedy="Rename one of the files")
        work[name] = source
    if not work:
        if glue is not None:
            raise UserError("a folder of GLUE is given, and none of its tasks", remedy="Name them with `tasks`")
        raise UserError("there is nothing to fine-tune on", remedy="Give files of labelled examples as `data`")
    return work


def _splits(glue: str | Path | None, task: GlueTask) -> tuple[Sequence[Example], Sequence[Example]]:
    folder = _glue_folder(glue, task.name)
    return read_split(folder, task, "train"), read_split(folder, task, "dev")


def _glue_folder(glue: str | Path | None, task: str) -> Path:
    """The folder of a task, whatever the case of its name."""
    wanted = _GLUE_FOLDERS.get(task, task).lower()
    root = Path(glue or ".")
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.is_dir() and folder.name.lower() in (wanted, wanted.replace("-", "")):
            return folder
    raise UserError(f"{root} has no folder for {task}", remedy="Give the folder that holds GLUE's folders as `glue`")


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def _entry(name: str, task: str, result: LabelledResult, first: LabelledResult | None, folder: Path) -> Entry:
    differences = None
    if first is not None:
        differences = [mine.score - theirs.score for mine, theirs in zip(result.seeds, first.seeds, strict=True)]
    baseline = [result.majority_baseline[name] for name in result.scored]
    return Entry(
        model=name,
        task=task,
        scored=result.scored,
        score=result.score,
        score_interval=result.score_interval,
        difference=None if differences is None else sum(differences) / len(differences),
        difference_interval=None if differences is None else mean_interval(differences),
        metrics=result.metrics,
        majority_baseline=sum(baseline) / len(baseline),
        train_examples=result.train_examples,
        dev_examples=result.dev_examples,
        seconds=sum(seed.seconds for seed in result.seeds),
        folder=str(folder),
    )


def _cell(entry: Entry | None, seeds: int) -> str:
    if entry is None:
        return "–"
    if entry.score_interval is None or seeds == 2:  # of two seeds it is too wide to be of use
        return f"{entry.score:.2f}"
    return f"{entry.score:.2f} ± {(entry.score_interval[1] - entry.score_interval[0]) / 2:.2f}"
