"""One model, several fine-tuning seeds: its SQuAD figures with their spread, and the files that hold them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from lambert.corpus.vocabulary import load_vocabulary
from lambert.errors import UserError
from lambert.model.heads import BertForQuestionAnswering
from lambert.model.huggingface import load_model, model_folder, read_config
from lambert.squad.data import Question
from lambert.squad.finetune import FineTuneSummary, Predictions, fine_tune, predict
from lambert.squad.metric import score
from lambert.squad.settings import FineTuneSettings, Progress


@dataclass(frozen=True)
class SeedResult:
    """One fine-tuning and its figures on the development questions."""

    seed: int
    exact_match: float  # 0 to 100
    f1: float  # 0 to 100
    train_loss: float
    steps: int
    train_windows: int
    dev_windows: int
    seconds: float
    """Training and evaluation together."""
    predictions: dict[str, str]


@dataclass(frozen=True)
class SquadResult:
    """The figures of a model over all its seeds."""

    exact_match: float
    """Mean over the seeds, 0 to 100."""
    f1: float
    exact_match_deviation: float | None
    """Standard deviation between the seeds (n − 1); None for a single seed."""
    f1_deviation: float | None
    train_questions: int
    dev_questions: int
    learning_rate: float
    new_head: bool
    """Whether the span head started from random weights."""
    random_weights: bool
    """Whether the encoder did too."""
    settings: FineTuneSettings
    seeds: tuple[SeedResult, ...]


def load_for_questions(
    path: Path, *, seed: int, cased: bool = False, random_weights: bool = False
) -> tuple[BertForQuestionAnswering, Tokenizer, bool]:
    """A folder's encoder with a span head, its tokenizer, and whether the head is new.

    Args:
        seed: decides the start of a new head, and of all weights with `random_weights`.
        cased: how to read a folder that has a bare `vocab.txt` and says nothing else.
        random_weights: take only the size and the vocabulary from the folder.

    Raises:
        UserError: the folder or something in it is missing, damaged or not a BERT.
    """
    folder = model_folder(path)
    tokenizer = load_vocabulary(folder, cased=cased)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if random_weights:
            return BertForQuestionAnswering(read_config(folder)), tokenizer, True
        model, report = load_model(folder, BertForQuestionAnswering)
    return model, tokenizer, any(name.startswith("span_head.") for name in report.freshly_initialised)


def fine_tune_and_evaluate(
    path: Path,
    train: Sequence[Question],
    dev: Sequence[Question],
    settings: FineTuneSettings,
    *,
    seeds: Sequence[int] = (0,),
    device: torch.device | None = None,
    cased: bool = False,
    random_weights: bool = False,
    progress: Progress | None = None,
    finished: Callable[[SquadResult], None] | None = None,
) -> SquadResult:
    """Fine-tune the model of a folder once for each seed and score it; nothing is written.

    Args:
        path: a run, or a Hugging Face BERT folder.
        train, dev: questions to learn and to be scored on (see `data.select_questions` for a part of a file).
        seeds: whole numbers from 0; each decides the order, the dropout and the start of a new head.
        device: where to compute; None is the CPU.
        cased, random_weights: as in `load_for_questions`; a model from random weights is the baseline that shows
            what pre-training was worth.
        finished: called after every seed with the figures over the seeds so far, so that they can be written.

    Raises:
        UserError: from loading, from settings that do not fit the model, or from a loss that is no number.
    """
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UserError(f"the seeds are {list(seeds)}", remedy="Give at least one seed from 0, each once")
    for questions, name in ((train, "training"), (dev, "development")):
        if not questions:
            raise UserError(f"there are no {name} questions", remedy="Give at least one")
    results: list[SeedResult] = []
    for seed in seeds:
        model, tokenizer, new_head = load_for_questions(path, seed=seed, cased=cased, random_weights=random_weights)
        model.to(device or torch.device("cpu"))
        summary = fine_tune(model, tokenizer, train, settings, seed=seed, progress=progress)
        answered = predict(model, tokenizer, dev, settings, seed=seed, progress=progress)
        results.append(_seed_result(seed, dev, summary, answered))
        so_far = SquadResult(
            exact_match=statistics.fmean(result.exact_match for result in results),
            f1=statistics.fmean(result.f1 for result in results),
            exact_match_deviation=_deviation([result.exact_match for result in results]),
            f1_deviation=_deviation([result.f1 for result in results]),
            train_questions=len(train),
            dev_questions=len(dev),
            learning_rate=summary.learning_rate,
            new_head=new_head,
            random_weights=random_weights,
            settings=settings,
            seeds=tuple(results),
        )
        if finished is not None:
            finished(so_far)
    return so_far


def _seed_result(seed: int, dev: Sequence[Question], summary: FineTuneSummary, answered: Predictions) -> SeedResult:
    figures = score(dev, answered.answers)
    return SeedResult(
        seed=seed,
        exact_match=figures.exact_match,
        f1=figures.f1,
        train_loss=summary.train_loss,
        steps=summary.steps,
        train_windows=summary.windows,
        dev_windows=answered.windows,
        seconds=summary.seconds + answered.seconds,
        predictions=answered.answers,
    )


def result_fields(result: SquadResult) -> dict[str, Any]:
    """What `squad.json` holds: the whole result but the predictions, ready for JSON."""
    fields = asdict(result)
    fields["settings"]["precision"] = result.settings.precision.value
    fields["settings"]["learning_rate"] = fields.pop("learning_rate")
    for seed_fields in fields["seeds"]:
        del seed_fields["predictions"]
    return fields


def write_result(result: SquadResult, folder: Path) -> None:
    """Write `squad.json` and, in the official format, the predictions of every seed.

    `predictions.json` holds those of the first seed, `predictions-seed-N.json` those of each further one.
    Each file is written aside and renamed.

    Raises:
        UserError: the folder cannot be written to.
    """
    first, *others = result.seeds
    files = {"predictions.json": first.predictions}
    files |= {f"predictions-seed-{other.seed}.json": other.predictions for other in others}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, predictions in files.items():
            _write_json(folder / name, predictions)
        _write_json(folder / "squad.json", result_fields(result))
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror})", remedy="Choose another folder") from error


def _write_json(path: Path, value: Any) -> None:
    aside = path.with_name(path.name + ".partial")
    aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(path)


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
