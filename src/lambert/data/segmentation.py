"""How documents are cut into runs of sentences, each the beginning of one example; fixed for a (seed, phase).

google-research/bert's `create_pretraining_data.py` walks every document once and writes its examples down. The same
walk is made here, all documents at once, and only its places are kept, in 7 bytes an example.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lambert.corpus.store import Split
from lambert.data.counter_rng import Draws

SHORT_SEQUENCE_PROBABILITY = 0.1
RANDOM_NEXT_PROBABILITY = 0.5

# Set apart the draws that start from the same seed and phase.
_OF_DOCUMENTS, _OF_RUNS = 2, 3


@dataclass(frozen=True)
class Cut:
    """N runs of whole sentences, in the order of the text."""

    first_sentence: NDArray[np.unsignedinteger]
    """[N]"""
    sentence_count: NDArray[np.uint16]
    """[N]"""
    needs_partner: NDArray[np.bool_]
    """[N]: the run is A alone, and B comes from another document; otherwise A and B are in it."""

    def __len__(self) -> int:
        return len(self.first_sentence)

    def bounds(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First sentence of each run, and the one after its last."""
        first = self.first_sentence[indices].astype(np.int64)
        return first, first + self.sentence_count[indices]

    def only(self, kept: NDArray[np.bool_]) -> Cut:
        """The runs where `kept` [N]."""
        return Cut(self.first_sentence[kept], self.sentence_count[kept], self.needs_partner[kept])


def targets(documents: NDArray[np.int64], longest: int, *, seed: int, phase: int) -> NDArray[np.int64]:
    """[N] tokens that A and B of a document's examples should have together: `longest`, or for a tenth of the documents
    a random smaller number from 2, as in BERT."""
    draws = Draws.of((_OF_DOCUMENTS, seed, phase), documents)
    is_short = draws.uniform(0) < SHORT_SEQUENCE_PROBABILITY
    return np.where(is_short, 2 + draws.below(1, longest - 1), longest)


def cut_documents(split: Split, longest: int, *, seed: int, phase: int, with_partners: bool) -> Cut:
    """Every document as runs.

    A run ends at the sentence that brings it to its document's target, or at the end of the document. With partners,
    half of the runs keep a random number of their sentences as A, and the next run begins where A ends, so that all
    text is seen in each pass; a run of one sentence always needs a partner.

    Args:
        longest: most tokens of A and B together.
        with_partners: for next-sentence prediction.
    """
    offsets, bounds = split.sentence_offsets, split.document_offsets
    documents = np.arange(split.document_count)
    target = targets(documents, longest, seed=seed, phase=phase)
    place, end = bounds[:-1].copy(), bounds[1:]
    firsts, counts, partners = [], [], []
    # Each round cuts one run off every document that is left.
    while len(documents := documents[place[documents] < end[documents]]):
        first = place[documents]
        after = np.searchsorted(offsets, offsets[first] + target[documents], side="left")
        after = np.clip(after, first + 1, end[documents])
        count = np.minimum(after - first, np.iinfo(np.uint16).max)
        partner = np.zeros(len(first), bool)
        if with_partners:
            draws = Draws.of((_OF_RUNS, seed, phase), first)
            partner = (count == 1) | (draws.uniform(0) < RANDOM_NEXT_PROBABILITY)
            count = np.where(partner & (count > 1), 1 + draws.below(1, np.maximum(1, count - 1)), count)
        place[documents] = first + count
        firsts.append(first)
        counts.append(count)
        partners.append(partner)
    first_of_all = np.concatenate(firsts)
    order = np.argsort(first_of_all, kind="stable")
    narrow = np.uint32 if split.sentence_count < 1 << 32 else np.uint64
    return Cut(
        first_of_all[order].astype(narrow),
        np.concatenate(counts)[order].astype(np.uint16),
        np.concatenate(partners)[order],
    )
