"""Pairs of segments by index: next-sentence prediction with BERT's semantics, and ALBERT's sentence order.

The *cut* of the text into runs of sentences, and which runs need a random partner, are fixed per (seed, phase)
(`cut.py`), so that examples can be counted and indexed. Partners, the place where a run is parted into A and B, their
order and what is cut off are drawn afresh in each pass. Everything is computed for many examples at once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambert.corpus.store import Corpus
from lambert.data.counter_rng import Draws
from lambert.data.dataset import MASKS, ExampleSource, Spans
from lambert.data.segmentation import cut_documents, targets
from lambert.errors import UserError

_OTHER_DOCUMENT_TRIES = 10

# Numbers of an example's draws.
_PART, _START, _HEADS_A, _HEADS_B, _DOCUMENT, _ORDER = 0, 1, 2, 10, MASKS + 1, MASKS + 20


class PairSource(ExampleSource):
    """[CLS] A [SEP] B [SEP] of one split at one sequence length."""

    special_per_example = 3

    def __init__(self, corpus: Corpus, split_name: str, **options: Any) -> None:
        super().__init__(corpus, split_name, **options)
        self.has_partners = self.kind.pairing == "nsp"
        cut = cut_documents(self.split, self.room, seed=self.seed, phase=self.phase, with_partners=self.has_partners)
        if not self.has_partners:
            first, stop = cut.bounds(np.arange(len(cut)))
            offsets = self.split.sentence_offsets
            cut = cut.only(offsets[stop] - offsets[first] >= 2)  # one token cannot be parted
            if not len(cut):
                raise UserError(
                    f"the {split_name} part of the corpus holds no two tokens in a row", remedy="Prepare more text"
                )
        self.cut = cut

    def __len__(self) -> int:
        return len(self.cut)

    def spans(self, indices: NDArray[np.int64], draws: Draws) -> Spans:
        whole = self._whole_pairs(indices, draws) if self.has_partners else self._ordered_pairs(indices, draws)
        return _shortened(whole, self.room, draws)

    def _whole_pairs(self, indices: NDArray[np.int64], draws: Draws) -> Spans:
        """A, and what follows it or is taken from elsewhere, before anything is cut off them."""
        offsets = self.split.sentence_offsets
        first, stop = self.cut.bounds(indices)
        needs_partner = self.cut.needs_partner[indices]
        parted = first + 1 + draws.below(_PART, np.maximum(1, stop - first - 1))
        a_stop = np.where(needs_partner, stop, parted)
        b_start, b_stop = a_stop.copy(), stop.copy()
        b_start[needs_partner], b_stop[needs_partner] = self._partners(
            first[needs_partner], a_stop[needs_partner], draws[needs_partner]
        )
        return Spans(offsets[first], offsets[a_stop], offsets[b_start], offsets[b_stop], needs_partner)

    def _ordered_pairs(self, indices: NDArray[np.int64], draws: Draws) -> Spans:
        """Two parts of a run, for half of the examples in the wrong order; a lone sentence is parted between tokens."""
        offsets = self.split.sentence_offsets
        first, stop = self.cut.bounds(indices)
        start, end = offsets[first], offsets[stop]
        middle = offsets[first + 1 + draws.below(_PART, np.maximum(1, stop - first - 1))]
        lone = stop - first == 1
        middle[lone] = start[lone] + 1 + draws[lone].below(_PART, end[lone] - start[lone] - 1)
        swapped = draws.bits(_ORDER) % np.uint64(2) == 1
        return Spans(
            np.where(swapped, middle, start),
            np.where(swapped, end, middle),
            np.where(swapped, start, middle),
            np.where(swapped, middle, end),
            swapped,
        )

    def _partners(
        self, first: NDArray[np.int64], a_stop: NDArray[np.int64], draws: Draws
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For A of sentences [first, a_stop): sentences of a random place in another document, first and one past the
        last, as many as bring the pair to its target."""
        offsets, documents = self.split.sentence_offsets, self.split.document_offsets
        own = np.searchsorted(documents, first, side="right") - 1
        other = draws.below(_DOCUMENT, self.split.document_count)
        for attempt in range(1, _OTHER_DOCUMENT_TRIES):
            same = np.flatnonzero(other == own)
            if not len(same):
                break
            other[same] = draws[same].below(_DOCUMENT + attempt, self.split.document_count)
        start = documents[other] + draws.below(_START, documents[other + 1] - documents[other])
        target = targets(own, self.room, seed=self.seed, phase=self.phase)
        wanted = np.maximum(1, target - (offsets[a_stop] - offsets[first]))
        stop = np.searchsorted(offsets, offsets[start] + wanted, side="left")
        return start, np.clip(stop, start + 1, documents[other + 1])


def _shortened(spans: Spans, room: int, draws: Draws) -> Spans:
    """Tokens taken off the longer of A and B until both fit into `room`, each from the front or the back at random.

    BERT flips a coin for each token; the number of heads is drawn here at once.
    """
    from_a, from_b = removed_tokens(spans.a_stop - spans.a_start, spans.b_stop - spans.b_start, room)
    front_a, front_b = draws.heads(_HEADS_A, from_a), draws.heads(_HEADS_B, from_b)
    return replace(
        spans,
        a_start=spans.a_start + front_a,
        a_stop=spans.a_stop - (from_a - front_a),
        b_start=spans.b_start + front_b,
        b_stop=spans.b_stop - (from_b - front_b),
    )


def removed_tokens(
    a: NDArray[np.int64], b: NDArray[np.int64], room: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many tokens segments of `a` and `b` [N] tokens lose to fit into `room` together: the longer one gives first;
    once they are level they give in turn, B first."""
    excess = np.maximum(0, a + b - room)
    from_longer = np.minimum(excess, np.abs(a - b))
    shared = excess - from_longer
    from_a = shared // 2 + np.where(a > b, from_longer, 0)
    return from_a, excess - from_a
