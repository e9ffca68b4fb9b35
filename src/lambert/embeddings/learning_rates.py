"""Choosing the learning rate of a contrastive training on texts or pairs that the trials do not train on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lambert.embeddings.examples import Pair, held_out
from lambert.embeddings.scores import evaluator_of, model_metrics
from lambert.errors import UserError
from lambert.finetune.loop import Diverged

if TYPE_CHECKING:
    from lambert.embeddings.contrastive import ContrastiveSettings


@dataclass(frozen=True)
class RateTrial:
    """A learning rate that was tried."""

    learning_rate: float
    score: float | None
    """nDCG@10 of texts or pairs that no trial trained on; None where it diverged."""


def check_rates(rates: Sequence[float], learning_rate: float | None) -> None:
    """Raises UserError where rates are given twice, beside a fixed one, or out of range."""
    if rates and learning_rate is not None:
        raise UserError("both `learning_rate` and `learning_rates` are given", remedy="Give one of them")
    if len({f"{rate:g}" for rate in rates}) != len(rates) or not all(0 < rate < math.inf for rate in rates):
        raise UserError(f"`learning_rates` = {list(rates)}", remedy="Give numbers above 0, each once")


def with_best_rate(
    rates: Sequence[float],
    data: Sequence[str] | Sequence[Pair],
    settings: ContrastiveSettings,
    fresh: Callable[[], Any],
    train: Callable[[Any, Sequence[str] | Sequence[Pair], ContrastiveSettings], object],
) -> tuple[ContrastiveSettings, list[RateTrial]]:
    """The settings with the rate of the highest score, and a trial of each rate, on the same nine tenths of the data.

    Args:
        fresh: gives the model of sentence-transformers before training.
        train: trains such a model in place.

    Raises:
        UserError: there is too little data to hold some out; `Diverged` where training diverged at every rate.
    """
    if not rates:
        return settings, []
    kept, dev = held_out(data)
    if dev is None or len(kept) < 2:
        what = f"{len(data):,} texts or pairs are too few to choose a learning rate on"
        raise UserError(what, remedy="Give one `learning_rate`")
    evaluator, trials = evaluator_of(dev, settings.batch_size), []
    for rate in rates:
        model = fresh()
        try:
            train(model, kept, replace(settings, learning_rate=rate))
            score = model_metrics(evaluator, model)["ndcg_at_10"]
        except Diverged:
            score = None
        trials.append(RateTrial(rate, score))
    scores = [(one.score, one.learning_rate) for one in trials if one.score is not None]
    if not scores:
        raise Diverged("training diverged at each of the `learning_rates`", remedy="Give lower ones")
    return replace(settings, learning_rate=max(scores)[1]), trials
