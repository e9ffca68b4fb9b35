"""What to know after a contrastive training: vectors that became equal, scores that fell, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lambert.errors import UserError
from lambert.runlog.reader import read_run

_SAMPLE = 256
_COLLAPSED = 0.95
"""Mean cosine of different texts above which nothing tells them apart; pre-trained models reach .94 and are fine."""
_PLATEAU_NATS = 0.5
"""A held-out MLM loss that is no further below the unigram baseline has not learned from context."""


def mean_cosine(library: Any, texts: Sequence[str]) -> float:
    """Of the vectors of different texts, of at most `_SAMPLE` from all over: 1 where all vectors point one way."""
    kept = texts[:: max(1, len(texts) // _SAMPLE)][:_SAMPLE]
    vectors = library.encode(list(kept), show_progress_bar=False).astype(np.float64)
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    total = units.sum(0)
    return float((total @ total - len(kept)) / (len(kept) * (len(kept) - 1)))


class Trained(Protocol):
    """What is read of a `ContrastiveResult`."""

    @property
    def before(self) -> Mapping[str, float] | None:
        """Scores."""

    @property
    def after(self) -> Mapping[str, float] | None:
        """Scores."""

    @property
    def mean_cosine_before(self) -> float:
        """Of different texts."""

    @property
    def mean_cosine_after(self) -> float:
        """Of different texts."""


def advice(folder: Path, trained: Trained) -> Iterator[str]:
    """Warnings, each with what to do: nDCG, or Spearman's correlation, decides whether scores fell.

    Args:
        folder: of the model that was trained.
    """
    cosines, before, after = (trained.mean_cosine_before, trained.mean_cosine_after), trained.before, trained.after
    if cosines[1] > max(_COLLAPSED, cosines[0]):
        yield (
            f"the vectors of different texts are nearly equal now (mean cosine {cosines[0]:.2f} before, "
            f"{cosines[1]:.2f} after): lower the `learning_rate`"
        )
        return
    if before is None or after is None:
        return
    metric = "ndcg_at_10" if "ndcg_at_10" in before else "spearman"
    if not after[metric] < before[metric]:
        return
    losses = plateau(folder)
    why = (
        f"it was pre-trained too little to know words by their context (held-out MLM loss {losses[0]:.2f}, unigram "
        f"baseline {losses[1]:.2f}), so pre-train it further first"
        if losses
        else "give pairs in place of texts, or try another `learning_rate`"
    )
    yield (
        f"{metric.replace('_at_', '@')} fell from {before[metric]:.2f} to {after[metric]:.2f}, so the model's own "
        f"vectors were better: {why}"
    )


def plateau(folder: Path) -> tuple[float, float] | None:
    """The last held-out MLM loss and the unigram baseline's, where the folder is of a run that hardly beat it."""
    try:
        last = read_run(folder.parent).final
    except UserError:
        return None
    if last is None or not last.mlm_loss > last.unigram_loss - _PLATEAU_NATS:
        return None
    return last.mlm_loss, last.unigram_loss
