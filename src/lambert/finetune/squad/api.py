"""Fine-tuning on SQuAD from Python: files or questions in, metrics with their confidence interval out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lambert.errors import UserError
from lambert.finetune.cache import FineTuneResult
from lambert.finetune.job import FineTuneJob
from lambert.finetune.runner import run_seeds
from lambert.finetune.seeds import checked_seeds
from lambert.finetune.settings import Progress, check_rates
from lambert.finetune.squad.ceiling import warn_of_tokens
from lambert.finetune.squad.data import Question, Version, check_count, select_questions, version_of
from lambert.finetune.squad.details import details_of
from lambert.finetune.squad.official import Questions, find_questions
from lambert.finetune.squad.results import SeedResult, SquadResult, Tuning, over_seeds, seed_result
from lambert.finetune.squad.settings import SquadSettings
from lambert.finetune.squad.task import squad_preset
from lambert.finetune.squad.tuning import tune
from lambert.model.config_file import read_config
from lambert.model.huggingface import model_folder

log = logging.getLogger("lambert")
_HEADS = ("span_head.", "classifier.")  # of BERT and of ModernBERT


def finetune_squad(
    model: str | Path,
    train: Questions = None,
    dev: Questions = None,
    *,
    out: str | Path | None = None,
    seeds: int | Sequence[int] = 1,
    learning_rates: Sequence[float] = (),
    train_questions: int | None = None,
    dev_questions: int | None = None,
    version_2: bool | None = None,
    fresh: bool = False,
    settings: SquadSettings | None = None,
    random_weights: bool = False,
    cased: bool = False,
    device: torch.device | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> SquadResult:
    """Fine-tune a model on SQuAD v1.1 or v2.0, once for each seed, and measure exact match and F1::

        result = lambert.finetune_squad("runs/mine", "train.json", "dev.json", seeds=5, out="runs/squad")
        result.f1, result.f1_interval
        transformers.AutoModelForQuestionAnswering.from_pretrained(result.model)

    Args:
        model: a run, or a Hugging Face BERT folder.
        train, dev: questions to train on and to measure: a file, also compressed; or `Question` objects; None or
            "official" downloads the published file, "official-v2.0" that of v2.0.
        out: folder for `squad.json`, the predictions, the best seed's model and the finished seeds, which the same call
            does not repeat. It is written after every seed. None writes nothing.
        seeds: how many (0, 1, …) or which. A seed decides order, dropout and the initialisation of a new head.
        learning_rates: peaks to choose from on held-out training questions (docs/squad.md).
        train_questions: train on a random sample of this size, the same for every seed and model.
        dev_questions: measure on the first so many questions.
        version_2: whether the questions are v2.0, in which some have no answer; None: as the dev file says.
        fresh: repeat every seed.
        settings: everything else as one object; or give the fields of `SquadSettings` by name, such as `epochs`.
        random_weights, cased, device, progress: as in `FineTuneJob`.

    Raises:
        UserError: an argument, the model or a file is wrong, the loss diverged, or `out` holds results of other work.
    """
    config = read_config(model_folder(Path(model)))  # before the questions are read and anything is written
    seeds, settings = check_arguments(seeds, learning_rates, (train_questions, dev_questions), settings, options)
    version, learned, measured = _read_both(train, dev, version_2, train_questions, dev_questions)
    how: dict[str, Any] = {"random_weights": random_weights, "cased": cased, "device": device, "progress": progress}
    how["out"] = None if out is None else Path(out)
    job = FineTuneJob(Path(model), squad_preset(version), learned, measured, settings, **how)
    job.prepare(fresh=fresh)
    tuning = None
    if learning_rates:
        tuning = tune(job, learning_rates, version=version, seed=seeds[0])
        _log_tuning(tuning)
        settings = replace(settings, learning_rate=tuning.learning_rate)
    return _run(replace(job, settings=settings.resolved(config.hidden_size)), seeds, version, tuning)


def check_arguments(
    seeds: int | Sequence[int],
    learning_rates: Sequence[float],
    counts: Sequence[int | None],
    settings: SquadSettings | None,
    options: Mapping[str, Any],
) -> tuple[Sequence[int], SquadSettings]:
    """The seeds and the settings of a fine-tuning, before any file is read.

    Args:
        counts: numbers of questions.
        options: fields of `SquadSettings`.

    Raises:
        UserError: one is out of range.
    """
    seeds, settings = checked_seeds(seeds), SquadSettings.of(settings, **options)
    check_rates(learning_rates, settings)
    for count in counts:
        check_count(count)
    return seeds, settings


def _run(job: FineTuneJob[SquadSettings], seeds: Sequence[int], version: Version, tuning: Tuning | None) -> SquadResult:
    """All seeds (`run_seeds`)."""
    _, tokenizer, fresh = job.load(seeds[0])
    warn_of_tokens(job.dev, tokenizer, job.settings)
    fields: dict[str, Any] = {
        "version": version,
        "train_questions": len(job.train),
        "dev_questions": len(job.dev),
        "tuning": tuning,
        "new_head": any(name.startswith(_HEADS) for name in fresh),
        "random_weights": job.random_weights,
        "settings": job.settings,
    }

    def of_seed(one: FineTuneResult, reused: bool) -> SeedResult:
        return seed_result(one, job.dev, version, null_threshold=job.settings.null_threshold, reused=reused)

    def so_far(results: Sequence[SeedResult], best: FineTuneResult, model: str | None) -> SquadResult:
        answers = next(one.predictions for one in results if one.seed == best.seed)
        details = details_of(job.dev, answers, best.predictions.get("probabilities", {}), version)
        return over_seeds(results, model=model, details=details, **fields)

    return run_seeds(job, seeds, of_seed=of_seed, over_seeds=so_far)


def _read_both(
    train: Questions, dev: Questions, version_2: bool | None, train_count: int | None, dev_count: int | None
) -> tuple[Version, Sequence[Question], Sequence[Question]]:
    """The version, and the questions to train on and to measure, of which the same version is required."""
    asked = find_questions(dev, "dev", "2.0" if version_2 else "1.1")
    if version_2 is False and asked.version == "2.0":
        raise UserError("`version_2` is False, and the development questions are SQuAD v2.0", remedy="Leave it out")
    version: Version = "2.0" if version_2 else asked.version
    learned = select_questions(find_questions(train, "train", version).questions, train_count, sample_seed=0)
    if version != version_of(learned):
        have = "every training question has an answer" if version == "2.0" else "some training questions have no answer"
        raise UserError(
            f"the development questions are SQuAD v{version}, and {have}", remedy="Give both files of the same version"
        )
    return version, learned, select_questions(asked.questions, dev_count)


def _log_tuning(tuning: Tuning) -> None:
    """Say what each learning rate reached and which one was chosen."""
    log.info(f"learning rates, seed {tuning.seed}, measured on held-out questions ({tuning.held_out}):")
    for trial in tuning.trials:
        log.info(
            f"  {trial.learning_rate:g}: "
            + (trial.problem or f"exact match {trial.exact_match:.2f}  F1 {trial.f1:.2f}")
        )
    rates = [trial.learning_rate for trial in tuning.trials]
    at_end = len(rates) > 1 and tuning.learning_rate in (min(rates), max(rates))
    log.info(f"  chosen: {tuning.learning_rate:g}" + (", at an end of the list: try rates beyond it" if at_end else ""))
