"""Examples by index, many at once: spans of the corpus → rows of token ids with masked tokens.

`PairSource` (sentence_pairs.py) and `WindowSource` (full_sentences.py) decide the spans. Example i of epoch e is a pure
function of (corpus, objective, seed, phase, e, i).

Shapes: N examples, W positions in the longest of them (rounded up), M masked tokens in all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambert.corpus.shard import TokenArray
from lambert.corpus.store import Corpus
from lambert.corpus.vocabulary import special_tokens
from lambert.data.counter_rng import CounterRNG
from lambert.data.masking import (
    MaskedTokens,
    WordBoundaries,
    apply_masking,
    choose_positions,
    choose_spans,
    choose_words,
    continuations,
    prediction_counts,
)
from lambert.data.objective import BERT_OBJECTIVE, ObjectiveConfig
from lambert.errors import UserError

ROW_MULTIPLE = 8
"""Rows have a multiple of so many tokens, for the kernels."""

Index = Mapping[str, NDArray[Any]]
"""Arrays by name that say where the examples of a source are; they grow with the corpus."""

# Separates the draws of an epoch from others that start from the same seed and phase.
_EXAMPLE_STREAM = 4
# Draw that seeds the masking; those of the spans are below and above.
MASKING_DRAW = 18


@dataclass(frozen=True)
class Example:
    """One sequence: [CLS] A [SEP] B [SEP], or [CLS] A [SEP], with its masked tokens."""

    token_ids: NDArray[np.int64]
    """[S] ids after masking; S is at most the sequence length, nothing is padded."""
    second_segment_start: int
    """Where B begins, S without one; earlier tokens are segment 0, later ones segment 1."""
    masked_positions: NDArray[np.int64]
    """[M] rising."""
    masked_labels: NDArray[np.int64]
    """[M] original ids."""
    is_random_next: bool
    """B does not follow A: it comes from another document (nsp) or precedes A (sop)."""


@dataclass(frozen=True)
class Rows:
    """N examples as the rows of a matrix."""

    token_ids: NDArray[np.int64]
    """[N, W] after masking."""
    lengths: NDArray[np.int64]
    """[N] real tokens."""
    second_segment_starts: NDArray[np.int64]
    """[N] where B begins; the length of the row without one."""
    masked: MaskedTokens
    is_random_next: NDArray[np.bool_] | None
    """[N] B does not follow A; None where there is no B."""

    def part(self, start: int, stop: int) -> Rows:
        """Examples `start` to below `stop`, as wide as the longest of them."""
        own, lengths = self.token_ids.shape[1], self.lengths[start:stop]
        width = row_width(lengths)
        first, after = np.searchsorted(self.masked.positions, (start * own, stop * own))
        row, column = np.divmod(self.masked.positions[first:after] - start * own, own)
        return Rows(
            np.ascontiguousarray(self.token_ids[start:stop, :width]),
            lengths,
            self.second_segment_starts[start:stop],
            MaskedTokens(row * width + column, self.masked.labels[first:after]),
            None if self.is_random_next is None else self.is_random_next[start:stop],
        )


def row_width(lengths: NDArray[np.int64]) -> int:
    """Positions of rows that hold examples of `lengths`."""
    return -(-int(lengths.max()) // ROW_MULTIPLE) * ROW_MULTIPLE


@dataclass(frozen=True)
class SegmentSpans:
    """Where A and B are in the tokens of the split, each [N]; B is empty where there is none."""

    a_start: NDArray[np.int64]
    a_stop: NDArray[np.int64]
    b_start: NDArray[np.int64]
    b_stop: NDArray[np.int64]
    is_random_next: NDArray[np.bool_] | None


class ExampleSource(ABC):
    """The examples of one split at one sequence length.

    Args:
        corpus, split_name: sentences of token ids, grouped by document.
        sequence_length: most tokens in an example, special ones included; at least 8.
        seed, phase: with corpus and objective they determine every example.
        objective: how examples are made.
        all_masked: every masked token becomes [MASK] instead of BERT's 80/10/10; for evaluation.
        index: of an equal source, which is not computed again.

    Raises:
        UserError: the split has no text.
    """

    special_per_example: int
    """Number of [CLS] and [SEP] in an example."""

    def __init__(
        self,
        corpus: Corpus,
        split_name: str,
        *,
        sequence_length: int,
        seed: int,
        phase: int,
        objective: ObjectiveConfig = BERT_OBJECTIVE,
        all_masked: bool = False,
    ) -> None:
        assert sequence_length >= 8
        self.split = corpus.split(split_name)
        if self.split.sentence_count == 0:
            raise UserError(f"the {split_name} split of the corpus is empty", remedy="Prepare a corpus from more text")
        self.special = special_tokens(corpus.tokenizer())
        self.vocabulary_size = corpus.vocabulary_size
        self.sequence_length = sequence_length
        self.seed = seed
        self.phase = phase
        self.objective = objective
        self.all_masked = all_masked
        self.max_text_tokens = sequence_length - self.special_per_example
        self._continues = None if objective.masking == "token" else continuations(corpus.tokenizer())

    @abstractmethod
    def __len__(self) -> int:
        """Examples per epoch."""

    @abstractmethod
    def index(self) -> Index:
        """What another process needs to make the same source."""

    @abstractmethod
    def spans(self, indices: NDArray[np.int64], draws: CounterRNG) -> SegmentSpans:
        """The spans of examples `indices` [N], together at most `max_text_tokens` long."""

    def example(self, epoch: int, index: int) -> Example:
        """Example `index` (from 0) of `epoch` (from 0)."""
        rows = self.rows(epoch, np.array([index]))
        return Example(
            rows.token_ids[0, : rows.lengths[0]],
            int(rows.second_segment_starts[0]),
            rows.masked.positions,
            rows.masked.labels,
            rows.is_random_next is not None and bool(rows.is_random_next[0]),
        )

    def rows(
        self, epoch: int, indices: NDArray[np.int64], mlm_probabilities: NDArray[np.float64] | None = None
    ) -> Rows:
        """Examples `indices` [N] (from 0) of `epoch` (from 0).

        Args:
            mlm_probabilities: [N] masked fraction of each; that of the objective when None.
        """
        draws = CounterRNG.of((_EXAMPLE_STREAM, self.seed, self.phase, epoch), indices)
        spans = self.spans(indices, draws)
        a_length, b_length = spans.a_stop - spans.a_start, spans.b_stop - spans.b_start
        lengths = a_length + b_length + self.special_per_example
        width = row_width(lengths)
        every = np.arange(len(indices))
        candidates = np.arange(width) < (lengths - 1)[:, None]
        candidates[:, 0] = candidates[every, a_length + 1] = False
        token_ids = np.full((len(indices), width), self.special.pad, np.int64)
        token_ids[candidates] = self._text(spans)
        token_ids[:, 0] = self.special.classify
        token_ids[every, a_length + 1] = token_ids[every, lengths - 1] = self.special.separate
        second_starts = np.minimum(a_length + 2, lengths)
        fractions = self.objective.mlm_probability if mlm_probabilities is None else mlm_probabilities
        counts = prediction_counts(lengths, self.sequence_length, fractions)
        masked = self._mask(token_ids, counts, candidates, second_starts, CounterRNG(draws.bits(MASKING_DRAW)))
        return Rows(token_ids, lengths, second_starts, masked, spans.is_random_next)

    def _text(self, spans: SegmentSpans) -> TokenArray:
        """The tokens of all examples, A before B."""
        if spans.is_random_next is None:
            return self.split.spans(spans.a_start, spans.a_stop)
        starts, stops = np.stack([spans.a_start, spans.b_start], 1), np.stack([spans.a_stop, spans.b_stop], 1)
        return self.split.spans(starts.reshape(-1), stops.reshape(-1))

    def _mask(
        self,
        token_ids: NDArray[np.int64],
        counts: NDArray[np.int64],
        candidates: NDArray[np.bool_],
        second_starts: NDArray[np.int64],
        draws: CounterRNG,
    ) -> MaskedTokens:
        outcome_positions = None
        if self._continues is None:
            chosen = choose_positions(draws, candidates, counts)
        else:
            words = WordBoundaries.of(token_ids, candidates, second_starts, self._continues)
            if self.objective.masking == "whole_word":
                chosen = choose_words(draws, words, counts)
            else:
                chosen, outcome_positions = choose_spans(draws, words, counts)
        return apply_masking(
            token_ids,
            chosen,
            draws,
            mask_id=self.special.mask,
            vocabulary_size=self.vocabulary_size,
            all_masked=self.all_masked,
            outcome_positions=outcome_positions,
        )
