"""All seeds of a fine-tuning, whatever the task: results after each, the best model, learning rates to choose from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lambert.errors import UserError
from lambert.finetune.best_model import MODEL_FOLDER, BestModel
from lambert.finetune.cache import FineTuneResult
from lambert.finetune.job import FineTuneJob

log = logging.getLogger("lambert")
Job = FineTuneJob[Any]


class OneSeed(Protocol):
    """A fine-tuning with its metrics."""

    @property
    def seed(self) -> int: ...

    @property
    def score(self) -> float:
        """What decides which seed is the best."""

    def text(self) -> str:
        """Its metrics as one line."""


class Result(Protocol):
    """The metrics over several seeds."""

    def write(self, folder: Path) -> None:
        """Write all files of results."""


Seed = TypeVar("Seed", bound=OneSeed)
Over = TypeVar("Over", bound=Result)


def run_seeds(
    job: Job,
    seeds: Sequence[int],
    *,
    of_seed: Callable[[FineTuneResult, bool], Seed],
    over_seeds: Callable[[Sequence[Seed], FineTuneResult, str | None], Over],
    more_settings: Mapping[str, Any] | None = None,
) -> Over:
    """Fine-tune with every seed and keep the model of the best one in the job's folder.

    Results are written after each seed, so that an interruption loses at most the next one.

    Args:
        of_seed: metrics of a fine-tuning, and whether it comes from the cache.
        over_seeds: those of all seeds so far, the fine-tuning of the best one, and the folder of its model (None where
            nothing is written).
        more_settings: of the model's `config.json`.
    """
    best, model = None, None
    if job.out is not None:
        best = BestModel(
            job.out / MODEL_FOLDER, lambda one: of_seed(one, False).score, job.made_from, more_settings or {}
        )
        model, job = str(best.folder), replace(job, trained=best.offer)
    results: list[Seed] = []
    found: dict[int, FineTuneResult] = {}
    for one, reused in job.run_seeds(seeds):
        results.append(of_seed(one, reused))
        found[one.seed] = one
        if best is not None:
            best.score = max(best.score, results[-1].score)
        so_far = over_seeds(results, found[best_seed(results)], model)
        if job.out is not None:
            so_far.write(job.out)
        log.info(f"seed {one.seed}: {results[-1].text()}  ({'cached' if reused else f'{one.seconds:.0f} s'})")
    if best is not None and not best.holds(seed := best_seed(results)):
        best.score = float("-inf")
        job.run_again(seed, f"seed {seed}, whose model is missing")
    return so_far


def best_seed(results: Sequence[OneSeed]) -> int:
    """The seed of the highest score; of equals, the lowest."""
    return max(results, key=lambda one: (one.score, -one.seed)).seed


def try_rates(
    job: Job, rates: Sequence[float], train: Sequence[Any], held_out: Sequence[Any], seed: int
) -> Iterator[tuple[float, FineTuneResult]]:
    """Fine-tune once with each learning rate on `train` and predict `held_out`; a result may have a `problem`."""
    for number, rate in enumerate(rates, start=1):
        settings = replace(job.settings, learning_rate=rate)
        trial = replace(job, train=train, dev=held_out, settings=settings, trained=None)
        title = f"learning rate {rate:g} ({number} of {len(rates)})"
        yield rate, trial.run(f"rate-{rate:g}", seed, title, may_diverge=True)[0]


class RateTrial(Protocol):
    """One learning rate that was tried."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def problem(self) -> str | None: ...


Trial = TypeVar("Trial", bound=RateTrial)


def best_rate(trials: Sequence[Trial], score: Callable[[Trial], float | None]) -> float:
    """The rate of the highest score; of equals, the lowest.

    Raises:
        UserError: every rate diverged.
    """
    finished = [(value, -trial.learning_rate) for trial in trials if (value := score(trial)) is not None]
    if not finished:
        raise UserError(f"every learning rate diverged ({trials[0].problem})", remedy="Try lower learning rates")
    return -max(finished)[1]
