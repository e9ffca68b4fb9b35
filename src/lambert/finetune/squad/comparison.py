"""One model, several fine-tuning seeds, and if asked several learning rates: its SQuAD figures with their spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from lambert.corpus.vocabulary import load_vocabulary
from lambert.errors import UserError
from lambert.finetune.cache import KeptOutcomes, Outcome, kept_settings, made_from_digests
from lambert.finetune.loop import Diverged
from lambert.finetune.squad.data import Question, Version
from lambert.finetune.squad.finetune import fine_tune, predict
from lambert.finetune.squad.results import SeedResult, SquadResult, over_seeds, seed_result
from lambert.finetune.squad.settings import FineTuneProgress, FineTuneSettings, Progress, default_learning_rate
from lambert.finetune.squad.tuning import RateTrial, Tuning, choose, described, divide
from lambert.model.heads import BertForQuestionAnswering
from lambert.model.huggingface import load_model, model_folder, read_config


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
    version: Version = "1.1",
    learning_rates: Sequence[float] = (),
    keep: Path | None = None,
    device: torch.device | None = None,
    cased: bool = False,
    random_weights: bool = False,
    progress: Progress | None = None,
    tuned: Callable[[Tuning], None] | None = None,
    finished: Callable[[SquadResult], None] | None = None,
) -> SquadResult:
    """Fine-tune the model of a folder once for each seed and score it; nothing is written but what is kept.

    Args:
        path: a run, or a Hugging Face BERT folder.
        train, dev: questions to learn and to be scored on (see `data.select_questions` for a part of a file).
        seeds: whole numbers from 0; each decides the order, the dropout and the start of a new head.
        version: of the development questions; decides the metric, and whether a model may answer nothing.
        learning_rates: peaks to choose from (`docs/squad.md`) in place of that of the settings.
        keep: folder in which finished fine-tunings are kept and looked for; None keeps none.
        device: where to compute; None is the CPU.
        cased, random_weights: as in `load_for_questions`; random weights are the baseline of a pre-training.
        tuned, finished: called with the choice of the rate, and after every seed with the figures so far.

    Raises:
        UserError: from loading, wrong settings, a loss that is no number, or what was kept of something else.
    """
    _check(train, dev, version, seeds, settings, learning_rates)
    folder = model_folder(path)
    kept = None if keep is None else KeptOutcomes(keep)
    tuner, tuning = _FineTuner(folder, version, cased, random_weights, kept, device, progress), None
    if learning_rates:
        tuning = tuner.tune(train, settings, learning_rates, seed=seeds[0])
        settings = replace(settings, learning_rate=tuning.learning_rate)
        if tuned is not None:
            tuned(tuning)
    rate = settings.learning_rate or default_learning_rate(settings.optimizer, read_config(folder).hidden_size)
    _, _, new_head = load_for_questions(folder, seed=seeds[0], cased=cased, random_weights=random_weights)
    results: list[SeedResult] = []
    for outcome, reused in tuner.outcomes(tuner.job(train, dev, replace(settings, learning_rate=rate)), seeds):
        results.append(seed_result(outcome, dev, version, null_threshold=settings.null_threshold, reused=reused))
        so_far = over_seeds(
            results,
            version=version,
            questions=(len(train), len(dev)),
            learning_rate=rate,
            tuning=tuning,
            new_head=new_head,
            random_weights=random_weights,
            settings=settings,
        )
        if finished is not None:
            finished(so_far)
    return so_far


@dataclass(frozen=True)
class _Job:
    """A fine-tuning but for its seed; `made_from` is what an outcome of it is kept with."""

    train: Sequence[Question]
    dev: Sequence[Question]
    settings: FineTuneSettings
    made_from: dict[str, Any]

    def with_rate(self, learning_rate: float) -> _Job:
        """The same at another peak."""
        settings = replace(self.settings, learning_rate=learning_rate)
        return replace(self, settings=settings, made_from=self.made_from | {"settings": kept_settings(settings)})


@dataclass(frozen=True)
class _FineTuner:
    """What all fine-tunings of one comparison have in common."""

    folder: Path
    version: Version
    cased: bool
    random_weights: bool
    keep: KeptOutcomes | None
    device: torch.device | None
    progress: Progress | None

    def tune(
        self, train: Sequence[Question], settings: FineTuneSettings, rates: Sequence[float], *, seed: int
    ) -> Tuning:
        """Try the rates on a held-out part of the training questions."""
        division = divide(train)
        job = self.job(division.learned, division.held_out, settings)
        trials = []
        for place, rate in enumerate(rates, start=1):
            part = f"learning rate {rate:g} ({place} of {len(rates)})"
            trials.append(self._trial(job.with_rate(rate), seed, part=part))
        return Tuning(
            seed=seed,
            held_out=described(division, questions=len(train)),
            learned_questions=len(division.learned),
            held_out_questions=len(division.held_out),
            trials=tuple(trials),
            learning_rate=choose(trials),
        )

    def _trial(self, job: _Job, seed: int, *, part: str) -> RateTrial:
        rate = job.settings.learning_rate
        assert rate is not None
        name = f"rate-{rate:g}"
        outcome = self.kept(name, job, seed) or self.outcome(name, job, seed, part=part, may_diverge=True)
        if outcome.problem is not None:
            return RateTrial(rate, None, None, None, outcome.problem)
        threshold = job.settings.null_threshold
        figures = seed_result(outcome, job.dev, self.version, null_threshold=threshold, reused=False)
        return RateTrial(rate, figures.exact_match, figures.f1, outcome.train_loss, None)

    def job(self, train: Sequence[Question], dev: Sequence[Question], settings: FineTuneSettings) -> _Job:
        """A fine-tuning on `train` that answers `dev`."""
        digests = {} if self.keep is None else made_from_digests(self.folder, train=train, dev=dev)
        how = {"version": self.version, "cased": self.cased, "random_weights": self.random_weights}
        return _Job(train, dev, settings, digests | how | {"settings": kept_settings(settings)})

    def outcomes(self, job: _Job, seeds: Sequence[int]) -> Iterator[tuple[Outcome, bool]]:
        """What every seed left, and whether it is from an earlier command."""
        # Before hours of work: what is kept for any of the seeds must be of this work.
        kept = {seed: self.kept(f"seed-{seed}", job, seed) for seed in seeds}
        for place, seed in enumerate(seeds, start=1):
            before = kept[seed]
            if before is not None:
                yield before, True
            else:
                yield self.outcome(f"seed-{seed}", job, seed, part=f"seed {seed} ({place} of {len(seeds)})"), False

    def kept(self, name: str, job: _Job, seed: int) -> Outcome | None:
        """What an earlier command left under this name. Raises UserError when it was made from something else."""
        return None if self.keep is None else self.keep.get(name, job.made_from | {"seed": seed})

    def outcome(self, name: str, job: _Job, seed: int, *, part: str, may_diverge: bool = False) -> Outcome:
        """Fine-tune and answer, and keep what came of it."""
        model, tokenizer, _ = load_for_questions(
            self.folder, seed=seed, cased=self.cased, random_weights=self.random_weights
        )
        model.to(self.device or torch.device("cpu"))
        progress = None if self.progress is None else _named(self.progress, part)
        try:
            summary = fine_tune(model, tokenizer, job.train, job.settings, seed=seed, progress=progress)
        except Diverged as error:
            if not may_diverge:
                raise
            outcome = Outcome(seed, job.settings.learning_rate, None, 0, 0, 0, 0.0, {}, None, error.what)
        else:
            answered = predict(model, tokenizer, job.dev, job.settings, seed=seed, progress=progress)
            outcome = Outcome(
                seed=seed,
                learning_rate=summary.learning_rate,
                train_loss=summary.train_loss,
                steps=summary.steps,
                train_windows=summary.windows,
                dev_windows=answered.windows,
                seconds=summary.seconds + answered.seconds,
                spans=answered.answers,
                null_odds=answered.null_odds if self.version == "2.0" else None,
            )
        if self.keep is not None:
            self.keep.put(name, job.made_from | {"seed": seed}, outcome)
        return outcome


def _named(progress: Progress, part: str) -> Progress:
    def show(one: FineTuneProgress) -> None:
        progress(replace(one, part=part))

    return show


def _check(
    train: Sequence[Question],
    dev: Sequence[Question],
    version: Version,
    seeds: Sequence[int],
    settings: FineTuneSettings,
    learning_rates: Sequence[float],
) -> None:
    """Refuse what cannot be done before any work."""
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UserError(f"the seeds are {list(seeds)}", remedy="Give at least one seed from 0, each once")
    for questions, name in ((train, "training"), (dev, "development")):
        if not questions:
            raise UserError(f"there are no {name} questions", remedy="Give at least one")
    if (version == "2.0") == all(question.answers for question in train):
        have = "every training question has an answer" if version == "2.0" else "some training questions have no answer"
        raise UserError(
            f"the development questions are SQuAD v{version}, and {have}", remedy="Give both files of the same version"
        )
    if learning_rates and settings.learning_rate is not None:
        raise UserError("both a learning rate and several to choose from", remedy="Give one of them")
    if len({f"{rate:g}" for rate in learning_rates}) != len(learning_rates):
        raise UserError(f"the learning rates are {list(learning_rates)}", remedy="Give each once")
    for rate in learning_rates:
        replace(settings, learning_rate=rate)  # refuses what is no rate
