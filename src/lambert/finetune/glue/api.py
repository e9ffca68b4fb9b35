"""Fine-tuning on a GLUE task from Python: the task's metrics with their confidence interval."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lambert.errors import UserError
from lambert.finetune.glue.published import published_scores
from lambert.finetune.glue.tasks import find_task, read_split
from lambert.finetune.job import FineTuneJob
from lambert.finetune.labelled.metrics import check_installed
from lambert.finetune.labelled.results import LabelledResult
from lambert.finetune.labelled.runner import preset_of, run_labelled
from lambert.finetune.labelled.sequences import LabelledSettings
from lambert.finetune.labelled.task import Example, Task
from lambert.finetune.seeds import checked_seeds
from lambert.finetune.settings import Progress
from lambert.model.config_file import read_config
from lambert.model.huggingface import model_folder

log = logging.getLogger("lambert")


def finetune_glue(
    model: str | Path,
    task: str,
    *,
    data: str | Path | tuple[Sequence[Example], Sequence[Example]],
    out: str | Path | None = None,
    seeds: int | Sequence[int] = 1,
    train_examples: int | None = None,
    fresh: bool = False,
    settings: LabelledSettings | None = None,
    random_weights: bool = False,
    cased: bool = False,
    device: torch.device | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> LabelledResult:
    """Fine-tune a model on a task of GLUE, once for each seed, and measure it with the task's metrics::

        result = lambert.finetune_glue("runs/mine", "mrpc", data="glue/MRPC", seeds=5, out="runs/mrpc")
        result.score, result.score_interval, result.majority_baseline, result.published

    Args:
        model: a run, or a Hugging Face BERT folder.
        task: sst-2, mrpc, rte, cola, sts-b, qqp, mnli, mnli-mm, qnli or wnli.
        data: GLUE's folder of the task, or the examples to train on and those to measure.
        out: folder for `glue.json`, the predictions and the finished seeds, which the same call does not repeat. It is
            written after every seed. None writes nothing.
        seeds: how many (0, 1, …) or which. A seed decides order, dropout and the initialisation of the classifier.
        train_examples: train on the first so many.
        fresh: repeat every seed.
        settings: everything else as one object; or give the fields of `LabelledSettings` by name, such as `epochs`.
        random_weights, cased, device, progress: as in `FineTuneJob`.

    Raises:
        UserError: an argument, the model or a file is wrong, the loss diverged, the extra `finetune` is not installed,
            or `out` holds results of other work.
    """
    check_installed()
    about, config = find_task(task), read_config(model_folder(Path(model)))
    settings = LabelledSettings.of(settings, **options).resolved(config.hidden_size)
    seeds = checked_seeds(seeds)
    if train_examples is not None and train_examples < 1:
        raise UserError(f"`train_examples` = {train_examples}", remedy="Give a whole number from 1")
    if not isinstance(data, tuple):
        data = read_split(Path(data), about, "train"), read_split(Path(data), about, "dev")
    train, dev = data
    if not train or not dev:
        raise UserError(f"there are no examples of {about.name} to train on or to measure", remedy="Give both")
    train = train[:train_examples]
    _warn_of_one_label(about.task, train, dev)
    how: dict[str, Any] = {"random_weights": random_weights, "cased": cased, "device": device, "progress": progress}
    how["out"] = None if out is None else Path(out)
    job = FineTuneJob(Path(model), preset_of(about.task), train, dev, settings, **how)
    job.prepare(fresh=fresh)
    columns = about.layouts[0]
    texts = [str(name) for name in (columns.first, columns.second) if name is not None]
    rest: dict[str, Any] = {
        "file_name": "glue.json",
        "data": {"texts": texts},
        "published": published_scores(about.name),
    }
    return run_labelled(job, about.task, seeds, **rest)


def _warn_of_one_label(task: Task, train: Sequence[Example], dev: Sequence[Example]) -> None:
    mix = "Train on more of them, or mix the lines of the file"
    for name, examples, remedy in (("training", train, mix), ("dev", dev, "Measure others")):
        if len({example.label for example in examples}) == 1:
            what = f"all {len(examples):,} {name} examples of {task.name} have the same label"
            log.warning(f"{what}, so nothing can be told apart. {remedy}.")
