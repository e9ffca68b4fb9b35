"""Segments documents into runs of whole sentences, one for each example; fixed for a (seed, phase).

google-research/bert's `create_pretraining_data.py` walks every document once and writes its examples down. The same
walk is made here over all documents at once, keeping only the indices, in 7 bytes per example.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lambert.corpus.store import Split
from lambert.data.counter_rng import CounterRNG

SHORT_SEQUENCE_PROBABILITY = 0.1
RANDOM_NEXT_PROBABILITY = 0.5

# Separate the draws that start from the same seed and phase.
_DOCUMENT_STREAM, _SEGMENT_STREAM = 2, 3


@dataclass(frozen=True)
class Segmentation:
    """N runs of whole sentences, in the order of the text."""

    first_sentence: NDArray[np.unsignedinteger]
    """[N]"""
    sentence_count: NDArray[np.uint16]
    """[N]"""
    is_random_next: NDArray[np.bool_]
    """[N]: the run is A alone, and B comes from another document; otherwise A and B are both in it."""

    def __len__(self) -> int:
        return len(self.first_sentence)

    def bounds(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First sentence of each run, and the one after its last."""
        first = self.first_sentence[indices].astype(np.int64)
        return first, first + self.sentence_count[indices]

    def only(self, kept: NDArray[np.bool_]) -> Segmentation:
        """The runs where `kept` [N]."""
        return Segmentation(self.first_sentence[kept], self.sentence_count[kept], self.is_random_next[kept])


def target_tokens(documents: NDArray[np.int64], max_tokens: int, *, seed: int, phase: int) -> NDArray[np.int64]:
    """[N] tokens of A and B together that a document's examples aim at.

    `max_tokens`, or for a tenth of the documents a random smaller number from 2, as in BERT.
    """
    draws = CounterRNG.of((_DOCUMENT_STREAM, seed, phase), documents)
    is_short = draws.uniform(0) < SHORT_SEQUENCE_PROBABILITY
    return np.where(is_short, 2 + draws.integers(1, max_tokens - 1), max_tokens)


def segment_documents(split: Split, max_tokens: int, *, seed: int, phase: int, nsp: bool) -> Segmentation:
    """Segments every document.

    A run ends at the sentence that reaches its document's target, or at the end of the document. For next-sentence
    prediction, half of the runs keep a random number of their sentences as A, and the next run begins where A ends, so
    that every epoch covers all text; a run of one sentence always gets a random B.

    Args:
        max_tokens: of A and B together.
    """
    offsets, bounds = split.sentence_offsets, split.document_offsets
    documents = np.arange(split.document_count)
    target = target_tokens(documents, max_tokens, seed=seed, phase=phase)
    next_sentence, end = bounds[:-1].copy(), bounds[1:]
    firsts, counts, random_nexts = [], [], []
    # Each iteration takes one run from every document that has sentences left.
    while len(documents := documents[next_sentence[documents] < end[documents]]):
        first = next_sentence[documents]
        after = np.searchsorted(offsets, offsets[first] + target[documents], side="left")
        after = np.clip(after, first + 1, end[documents])
        count = np.minimum(after - first, np.iinfo(np.uint16).max)
        random_next = np.zeros(len(first), bool)
        if nsp:
            draws = CounterRNG.of((_SEGMENT_STREAM, seed, phase), first)
            random_next = (count == 1) | (draws.uniform(0) < RANDOM_NEXT_PROBABILITY)
            shorter = 1 + draws.integers(1, np.maximum(1, count - 1))
            count = np.where(random_next & (count > 1), shorter, count)
        next_sentence[documents] = first + count
        firsts.append(first)
        counts.append(count)
        random_nexts.append(random_next)
    all_firsts = np.concatenate(firsts)
    order = np.argsort(all_firsts, kind="stable")
    narrow = np.uint32 if split.sentence_count < 1 << 32 else np.uint64
    return Segmentation(
        all_firsts[order].astype(narrow),
        np.concatenate(counts)[order].astype(np.uint16),
        np.concatenate(random_nexts)[order],
    )
