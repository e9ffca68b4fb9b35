"""Sentence pairs for next-sentence prediction, with BERT's semantics, by index.

The *cut* of the text into runs of sentences, and which runs need a random partner, are fixed per (seed, phase)
(`cut.py`), so that examples can be counted and indexed. Partners, the place where a run is parted into A and B, what is
cut off and the masks are drawn afresh in each pass. Example i of pass e is a pure function of (corpus, seed, phase, e,
i); many are made at once, in one go over arrays.

Shapes: N examples, W places in the longest of them (rounded up), M hidden words in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lambert.batches.cut import cut_documents, targets
from lambert.batches.draws import Draws
from lambert.batches.masking import Hidden, choose_places, hide, prediction_counts
from lambert.corpus.store import Split
from lambert.corpus.vocabulary import SpecialTokens
from lambert.errors import UserError

SPECIAL_TOKENS_PER_PAIR = 3
_OTHER_DOCUMENT_TRIES = 10
_ROW_MULTIPLE = 8

# Sets the draws of a pass apart from others that start from the same seed and phase.
_OF_EXAMPLES = 4
# Numbers of an example's draws; those of masking follow from keys of their own.
_PART, _START, _HEADS_A, _HEADS_B, _MASKS, _DOCUMENT = 0, 1, 2, 10, 18, 19


@dataclass(frozen=True)
class Example:
    """One sequence: [CLS] A [SEP] B [SEP] with its hidden words."""

    token_ids: NDArray[np.int64]
    """[S] ids after masking; S is at most the sequence length, nothing is padded."""
    second_segment_start: int
    """Where B begins; earlier tokens are segment 0, later ones segment 1."""
    masked_positions: NDArray[np.int64]
    """[M] rising."""
    masked_labels: NDArray[np.int64]
    """[M] ids that stood there."""
    is_random_next: bool
    """B was taken from elsewhere."""


@dataclass(frozen=True)
class Rows:
    """N examples as the rows of a matrix."""

    token_ids: NDArray[np.int64]
    """[N, W] after masking."""
    lengths: NDArray[np.int64]
    """[N] real tokens."""
    second_segment_starts: NDArray[np.int64]
    """[N] where B begins."""
    hidden: Hidden
    is_random_next: NDArray[np.bool_]
    """[N] B was taken from elsewhere."""


@dataclass(frozen=True)
class _Spans:
    """Places of A and B in the tokens of the split, each [N]."""

    a_start: NDArray[np.int64]
    a_stop: NDArray[np.int64]
    b_start: NDArray[np.int64]
    b_stop: NDArray[np.int64]


class PairSource:
    """The examples of one split at one sequence length.

    Args:
        split: sentences of token ids, grouped by document.
        special: ids of [CLS], [SEP], [MASK] and [PAD].
        vocabulary_size: range of the random words.
        sequence_length: most tokens in an example, special ones included; at least 8.
        seed, phase: with the split these name every example.
        all_masked: hide every chosen word behind [MASK] in place of BERT's 80/10/10; for measuring.

    Raises:
        UserError: the split has no text.
    """

    def __init__(
        self,
        split: Split,
        special: SpecialTokens,
        *,
        vocabulary_size: int,
        sequence_length: int,
        seed: int,
        phase: int,
        all_masked: bool = False,
    ) -> None:
        assert sequence_length >= 8
        if split.sentence_count == 0:
            raise UserError(f"the {split.name} part of the corpus is empty", remedy="Prepare a corpus from more text")
        self.split = split
        self.special = special
        self.vocabulary_size = vocabulary_size
        self.sequence_length = sequence_length
        self.seed = seed
        self.phase = phase
        self.all_masked = all_masked
        self._room = sequence_length - SPECIAL_TOKENS_PER_PAIR
        self.cut = cut_documents(split, self._room, seed=seed, phase=phase, with_partners=True)

    def __len__(self) -> int:
        """Examples in one pass."""
        return len(self.cut)

    def example(self, pass_number: int, index: int) -> Example:
        """Example `index` (from 0) of pass `pass_number` (from 0)."""
        rows = self.rows(pass_number, np.array([index]))
        return Example(
            rows.token_ids[0, : rows.lengths[0]],
            int(rows.second_segment_starts[0]),
            rows.hidden.places,
            rows.hidden.labels,
            bool(rows.is_random_next[0]),
        )

    def rows(self, pass_number: int, indices: NDArray[np.int64]) -> Rows:
        """Examples `indices` [N] (from 0) of pass `pass_number` (from 0)."""
        draws = Draws.of((_OF_EXAMPLES, self.seed, self.phase, pass_number), indices)
        spans = _shortened(self._spans(indices, draws), self._room, draws)
        a_length, b_length = spans.a_stop - spans.a_start, spans.b_stop - spans.b_start
        lengths = a_length + b_length + SPECIAL_TOKENS_PER_PAIR
        width = -(-int(lengths.max()) // _ROW_MULTIPLE) * _ROW_MULTIPLE
        token_ids = np.full((len(indices), width), self.special.pad, np.int64)
        self.split.copy_spans(spans.a_start, spans.a_stop, token_ids, np.ones_like(a_length))
        self.split.copy_spans(spans.b_start, spans.b_stop, token_ids, a_length + 2)
        every = np.arange(len(indices))
        token_ids[:, 0] = self.special.classify
        token_ids[every, a_length + 1] = token_ids[every, lengths - 1] = self.special.separate
        columns = np.arange(width)
        candidates = columns < (lengths - 1)[:, None]
        candidates[:, 0] = candidates[every, a_length + 1] = False
        masks = Draws(draws.bits(_MASKS))
        hidden = hide(
            token_ids,
            choose_places(masks, candidates, prediction_counts(lengths, self.sequence_length)),
            masks,
            mask_id=self.special.mask,
            vocabulary_size=self.vocabulary_size,
            all_masked=self.all_masked,
        )
        return Rows(token_ids, lengths, a_length + 2, hidden, self.cut.needs_partner[indices])

    def _spans(self, indices: NDArray[np.int64], draws: Draws) -> _Spans:
        """A and B before anything is cut off them."""
        offsets = self.split.sentence_offsets
        first, stop = self.cut.bounds(indices)
        needs_partner = self.cut.needs_partner[indices]
        parted = first + 1 + draws.below(_PART, np.maximum(1, stop - first - 1))
        a_stop = np.where(needs_partner, stop, parted)
        b_start, b_stop = a_stop.copy(), stop.copy()
        b_start[needs_partner], b_stop[needs_partner] = self._partners(
            first[needs_partner], a_stop[needs_partner], draws[needs_partner]
        )
        return _Spans(offsets[first], offsets[a_stop], offsets[b_start], offsets[b_stop])

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
        target = targets(own, self._room, seed=self.seed, phase=self.phase)
        wanted = np.maximum(1, target - (offsets[a_stop] - offsets[first]))
        stop = np.searchsorted(offsets, offsets[start] + wanted, side="left")
        return start, np.clip(stop, start + 1, documents[other + 1])


def _shortened(spans: _Spans, room: int, draws: Draws) -> _Spans:
    """Tokens taken off the longer of A and B until both fit into `room`, each from the front or the back at random.

    BERT flips a coin for each token; the number of heads is drawn here at once.
    """
    from_a, from_b = removed_tokens(spans.a_stop - spans.a_start, spans.b_stop - spans.b_start, room)
    front_a, front_b = draws.heads(_HEADS_A, from_a), draws.heads(_HEADS_B, from_b)
    return _Spans(
        spans.a_start + front_a,
        spans.a_stop - (from_a - front_a),
        spans.b_start + front_b,
        spans.b_stop - (from_b - front_b),
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
