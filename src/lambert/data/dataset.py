"""Examples by index, many at once: spans of the corpus → rows of token ids with hidden words.

What the spans are is decided by `PairSource` (pairs.py) and `WindowSource` (windows.py). Example i of pass e is a pure
function of (corpus, kind, seed, phase, e, i).

Shapes: N examples, W places in the longest of them (rounded up), M hidden words in all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lambert.corpus.store import Corpus
from lambert.corpus.vocabulary import special_tokens
from lambert.data.counter_rng import Draws
from lambert.data.masking import Hidden, choose_places, hide, prediction_counts
from lambert.data.masking_units import Words, choose_spans, choose_words, continuations
from lambert.data.objective import BERT_EXAMPLES, ExampleKind
from lambert.errors import UserError

_ROW_MULTIPLE = 8

# Sets the draws of a pass apart from others that start from the same seed and phase.
_OF_EXAMPLES = 4
# Number of the draw that masking starts from; those of the spans lie below and above.
MASKS = 18


@dataclass(frozen=True)
class Example:
    """One sequence: [CLS] A [SEP] B [SEP], or [CLS] A [SEP], with its hidden words."""

    token_ids: NDArray[np.int64]
    """[S] ids after masking; S is at most the sequence length, nothing is padded."""
    second_segment_start: int
    """Where B begins, S without one; earlier tokens are segment 0, later ones segment 1."""
    masked_positions: NDArray[np.int64]
    """[M] rising."""
    masked_labels: NDArray[np.int64]
    """[M] ids that stood there."""
    is_wrong_next: bool
    """B does not follow A: it was taken from elsewhere (nsp) or stood before it (sop)."""


@dataclass(frozen=True)
class Rows:
    """N examples as the rows of a matrix."""

    token_ids: NDArray[np.int64]
    """[N, W] after masking."""
    lengths: NDArray[np.int64]
    """[N] real tokens."""
    second_segment_starts: NDArray[np.int64]
    """[N] where B begins; the length of the row without one."""
    hidden: Hidden
    is_wrong_next: NDArray[np.bool_] | None
    """[N] B does not follow A; None where there is no B."""


@dataclass(frozen=True)
class Spans:
    """Places of A and B in the tokens of the split, each [N]; empty B where there is none."""

    a_start: NDArray[np.int64]
    a_stop: NDArray[np.int64]
    b_start: NDArray[np.int64]
    b_stop: NDArray[np.int64]
    is_wrong_next: NDArray[np.bool_] | None


class ExampleSource(ABC):
    """The examples of one split at one sequence length.

    Args:
        corpus, split_name: sentences of token ids, grouped by document.
        sequence_length: most tokens in an example, special ones included; at least 8.
        seed, phase: with corpus and kind these name every example.
        kind: how examples are made.
        all_masked: hide every chosen word behind [MASK] in place of BERT's 80/10/10; for measuring.

    Raises:
        UserError: the split has no text.
    """

    special_per_example: int
    """[CLS] and [SEP]s."""

    def __init__(
        self,
        corpus: Corpus,
        split_name: str,
        *,
        sequence_length: int,
        seed: int,
        phase: int,
        kind: ExampleKind = BERT_EXAMPLES,
        all_masked: bool = False,
    ) -> None:
        assert sequence_length >= 8
        self.split = corpus.split(split_name)
        if self.split.sentence_count == 0:
            raise UserError(f"the {split_name} part of the corpus is empty", remedy="Prepare a corpus from more text")
        self.special = special_tokens(corpus.tokenizer())
        self.vocabulary_size = corpus.vocabulary_size
        self.sequence_length = sequence_length
        self.seed = seed
        self.phase = phase
        self.kind = kind
        self.all_masked = all_masked
        self.room = sequence_length - self.special_per_example
        self._continues = None if kind.masking == "pieces" else continuations(corpus.tokenizer())

    @abstractmethod
    def __len__(self) -> int:
        """Examples in one pass."""

    @abstractmethod
    def spans(self, indices: NDArray[np.int64], draws: Draws) -> Spans:
        """What examples `indices` [N] are made of; together no longer than there is room for."""

    def example(self, pass_number: int, index: int) -> Example:
        """Example `index` (from 0) of pass `pass_number` (from 0)."""
        rows = self.rows(pass_number, np.array([index]))
        return Example(
            rows.token_ids[0, : rows.lengths[0]],
            int(rows.second_segment_starts[0]),
            rows.hidden.places,
            rows.hidden.labels,
            rows.is_wrong_next is not None and bool(rows.is_wrong_next[0]),
        )

    def rows(self, pass_number: int, indices: NDArray[np.int64]) -> Rows:
        """Examples `indices` [N] (from 0) of pass `pass_number` (from 0)."""
        draws = Draws.of((_OF_EXAMPLES, self.seed, self.phase, pass_number), indices)
        spans = self.spans(indices, draws)
        a_length, b_length = spans.a_stop - spans.a_start, spans.b_stop - spans.b_start
        lengths = a_length + b_length + self.special_per_example
        width = -(-int(lengths.max()) // _ROW_MULTIPLE) * _ROW_MULTIPLE
        token_ids = np.full((len(indices), width), self.special.pad, np.int64)
        self.split.copy_spans(spans.a_start, spans.a_stop, token_ids, np.ones_like(a_length))
        if b_length.any():
            self.split.copy_spans(spans.b_start, spans.b_stop, token_ids, a_length + 2)
        every = np.arange(len(indices))
        token_ids[:, 0] = self.special.classify
        token_ids[every, a_length + 1] = token_ids[every, lengths - 1] = self.special.separate
        candidates = np.arange(width) < (lengths - 1)[:, None]
        candidates[:, 0] = candidates[every, a_length + 1] = False
        second_starts = np.minimum(a_length + 2, lengths)
        hidden = self._hide(token_ids, lengths, candidates, second_starts, Draws(draws.bits(MASKS)))
        return Rows(token_ids, lengths, second_starts, hidden, spans.is_wrong_next)

    def _hide(
        self,
        token_ids: NDArray[np.int64],
        lengths: NDArray[np.int64],
        candidates: NDArray[np.bool_],
        second_starts: NDArray[np.int64],
        draws: Draws,
    ) -> Hidden:
        counts = prediction_counts(lengths, self.sequence_length, self.kind.mask_share)
        fates = None
        if self._continues is None:
            chosen = choose_places(draws, candidates, counts)
        else:
            words = Words.of(token_ids, candidates, second_starts, self._continues)
            if self.kind.masking == "words":
                chosen = choose_words(draws, words, counts)
            else:
                chosen, fates = choose_spans(draws, words, counts)
        return hide(
            token_ids,
            chosen,
            draws,
            mask_id=self.special.mask,
            vocabulary_size=self.vocabulary_size,
            all_masked=self.all_masked,
            fates=fates,
        )
