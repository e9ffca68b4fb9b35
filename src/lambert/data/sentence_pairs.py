"""Sentence pairs by index: next-sentence prediction with BERT's semantics, and ALBERT's sentence-order prediction.

The segmentation into runs of sentences, and which runs get a random B, are fixed per (seed, phase), so that examples
can be counted and indexed. The random Bs, the point where a run is split into A and B, their order and the truncation
are drawn anew in each epoch. Everything is computed for many examples at once.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambert.corpus.store import Corpus
from lambert.data.counter_rng import CounterRNG
from lambert.data.dataset import MASKING_DRAW, ExampleSource, Index, SegmentSpans
from lambert.data.segmentation import Segmentation, segment_documents, target_tokens
from lambert.errors import UserError

_OTHER_DOCUMENT_TRIES = 10

# Draw numbers of an example.
_SPLIT, _START, _TRUNCATE_A, _TRUNCATE_B, _DOCUMENT, _ORDER = 0, 1, 2, 10, MASKING_DRAW + 1, MASKING_DRAW + 20


class PairSource(ExampleSource):
    """[CLS] A [SEP] B [SEP] of one split at one sequence length."""

    special_per_example = 3

    def __init__(self, corpus: Corpus, split_name: str, *, index: Index | None = None, **options: Any) -> None:
        super().__init__(corpus, split_name, **options)
        self.is_nsp = self.objective.pairing == "nsp"
        if index is not None:
            self.split.sentence_offsets, self.split.document_offsets = index["sentences"], index["documents"]
            self.segmentation = Segmentation(*(index[field.name] for field in fields(Segmentation)))
            return
        segmentation = segment_documents(
            self.split, self.max_text_tokens, seed=self.seed, phase=self.phase, nsp=self.is_nsp
        )
        if not self.is_nsp:
            first, stop = segmentation.bounds(np.arange(len(segmentation)))
            offsets = self.split.sentence_offsets
            segmentation = segmentation.only(offsets[stop] - offsets[first] >= 2)  # one token cannot be split
            if not len(segmentation):
                raise UserError(
                    f"the {split_name} split of the corpus has no two tokens in a row", remedy="Prepare more text"
                )
        self.segmentation = segmentation

    def __len__(self) -> int:
        return len(self.segmentation)

    def index(self) -> Index:
        offsets = {"sentences": self.split.sentence_offsets, "documents": self.split.document_offsets}
        return {**offsets, **vars(self.segmentation)}

    def spans(self, indices: NDArray[np.int64], draws: CounterRNG) -> SegmentSpans:
        pairs = self._nsp_pairs(indices, draws) if self.is_nsp else self._sop_pairs(indices, draws)
        return _truncated(pairs, self.max_text_tokens, draws)

    def _nsp_pairs(self, indices: NDArray[np.int64], draws: CounterRNG) -> SegmentSpans:
        """A, and B that follows it or comes from another document, before truncation."""
        offsets = self.split.sentence_offsets
        first, stop = self.segmentation.bounds(indices)
        random_next = self.segmentation.is_random_next[indices]
        split_at = first + 1 + draws.integers(_SPLIT, np.maximum(1, stop - first - 1))
        a_stop = np.where(random_next, stop, split_at)
        b_start, b_stop = a_stop.copy(), stop.copy()
        b_start[random_next], b_stop[random_next] = self._random_segments(
            first[random_next], a_stop[random_next], draws[random_next]
        )
        return SegmentSpans(offsets[first], offsets[a_stop], offsets[b_start], offsets[b_stop], random_next)

    def _sop_pairs(self, indices: NDArray[np.int64], draws: CounterRNG) -> SegmentSpans:
        """A run split in two, swapped in half of the examples; a run of one sentence is split between tokens."""
        offsets = self.split.sentence_offsets
        first, stop = self.segmentation.bounds(indices)
        start, end = offsets[first], offsets[stop]
        middle = offsets[first + 1 + draws.integers(_SPLIT, np.maximum(1, stop - first - 1))]
        lone = stop - first == 1
        middle[lone] = start[lone] + 1 + draws[lone].integers(_SPLIT, end[lone] - start[lone] - 1)
        swapped = draws.bits(_ORDER) % np.uint64(2) == 1
        return SegmentSpans(
            np.where(swapped, middle, start),
            np.where(swapped, end, middle),
            np.where(swapped, start, middle),
            np.where(swapped, middle, end),
            swapped,
        )

    def _random_segments(
        self, first: NDArray[np.int64], a_stop: NDArray[np.int64], draws: CounterRNG
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For A of sentences [first, a_stop): a random run of sentences in another document that brings the pair to its
        target, as (first, one past the last)."""
        offsets, documents = self.split.sentence_offsets, self.split.document_offsets
        own = np.searchsorted(documents, first, side="right") - 1
        other = draws.integers(_DOCUMENT, self.split.document_count)
        for attempt in range(1, _OTHER_DOCUMENT_TRIES):
            same = np.flatnonzero(other == own)
            if not len(same):
                break
            other[same] = draws[same].integers(_DOCUMENT + attempt, self.split.document_count)
        start = documents[other] + draws.integers(_START, documents[other + 1] - documents[other])
        # Of a single document some B would begin where A ends, and the answer would be false: it takes A's beginning.
        start = np.where((other == own) & (start == a_stop), first, start)
        target = target_tokens(own, self.max_text_tokens, seed=self.seed, phase=self.phase)
        wanted = np.maximum(1, target - (offsets[a_stop] - offsets[first]))
        stop = np.searchsorted(offsets, offsets[start] + wanted, side="left")
        return start, np.clip(stop, start + 1, documents[other + 1])


def _truncated(spans: SegmentSpans, max_tokens: int, draws: CounterRNG) -> SegmentSpans:
    """Removes tokens from the longer of A and B until both fit into `max_tokens`, from the front or the back at random.

    BERT flips a coin for each token; here the number of heads is drawn at once.
    """
    from_a, from_b = removed_tokens(spans.a_stop - spans.a_start, spans.b_stop - spans.b_start, max_tokens)
    front_a, front_b = draws.coin_flips(_TRUNCATE_A, from_a), draws.coin_flips(_TRUNCATE_B, from_b)
    return replace(
        spans,
        a_start=spans.a_start + front_a,
        a_stop=spans.a_stop - (from_a - front_a),
        b_start=spans.b_start + front_b,
        b_stop=spans.b_stop - (from_b - front_b),
    )


def removed_tokens(
    a: NDArray[np.int64], b: NDArray[np.int64], max_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens that segments of `a` and `b` [N] tokens lose to fit into `max_tokens` together.

    The longer one loses first; once they are equal they lose in turn, B first.
    """
    excess = np.maximum(0, a + b - max_tokens)
    from_longer = np.minimum(excess, np.abs(a - b))
    shared = excess - from_longer
    from_a = shared // 2 + np.where(a > b, from_longer, 0)
    return from_a, excess - from_a
