"""Masks words as whole words or as spans of them, many rows at once.

Shapes: N rows of W places; words of a row are numbered from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lambert.data.counter_rng import CounterRNG
from lambert.data.masking import position_keys
from lambert.errors import UserError

CONTINUATION = "##"

# SpanBERT (Joshi et al. 2019, arXiv 1907.10529, section 3.1): geometric lengths, cut at ten words.
_SPAN_STOP_PROBABILITY = 0.2
_LONGEST_SPAN_WORDS = 10
_MOST_ROUNDS = 400

# Numbers of a row's draws, away from those of places (`masking.py`).
_WORD_ORDER, _SPAN_LENGTHS, _SPAN_PLACES = 1, 1 << 32, 1 << 33


def continuations(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """bool [vocabulary]: the pieces that go on with a word.

    Raises:
        UserError: the vocabulary has none, so that words cannot be told from pieces.
    """
    continues = np.zeros(tokenizer.get_vocab_size(with_added_tokens=True), bool)
    ids = [number for piece, number in tokenizer.get_vocab().items() if piece.startswith(CONTINUATION)]
    if not ids:
        raise UserError(
            f"the vocabulary has no pieces that begin with {CONTINUATION}: words cannot be told from pieces",
            remedy="Choose `masking` token",
        )
    continues[ids] = True
    return continues


@dataclass(frozen=True)
class Words:
    """Which word each place belongs to."""

    candidates: NDArray[np.bool_]
    """[N, W] places that may be hidden."""
    word_of: NDArray[np.int64]
    """[N, W] number of the word, 0 at places that may not be hidden."""
    lengths: NDArray[np.int64]
    """[N, words + 1] pieces of each word; 0 for number 0 and beyond the last word."""
    last_of_a: NDArray[np.int64]
    """[N] number of the last word of the first segment."""
    last: NDArray[np.int64]
    """[N] number of the last word."""

    @classmethod
    def of(
        cls,
        token_ids: NDArray[np.int64],
        candidates: NDArray[np.bool_],
        second_starts: NDArray[np.int64],
        continues: NDArray[np.bool_],
    ) -> Words:
        """A word is a piece with those that go on with it; a segment that begins inside a word begins with its rest."""
        rows, width = token_ids.shape
        begins: NDArray[np.bool_] = candidates & ~continues[token_ids]
        begins[:, 1] = candidates[:, 1]
        every = np.arange(rows)
        inside = np.minimum(second_starts, width - 1)
        begins[every, inside] |= candidates[every, inside]
        word_of: NDArray[np.int64] = np.cumsum(begins, axis=1)
        last_of_a = word_of[every, inside] - begins[every, inside]
        last = word_of[:, -1].copy()
        word_of = np.where(candidates, word_of, 0)
        most = int(last.max()) + 1
        lengths = np.bincount((every[:, None] * most + word_of).ravel(), minlength=rows * most).reshape(rows, most)
        lengths[:, 0] = 0
        return cls(candidates, word_of, lengths, last_of_a, last)


def choose_words(draws: CounterRNG, words: Words, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N, W]: whole words in random order, each taken when it still fits into `counts` [N] places, as in BERT's
    whole-word masking; where none fits, the shortest."""
    rows, most = words.lengths.shape
    keys = position_keys(draws.bits(_WORD_ORDER), most)
    order = np.argsort(np.where(words.lengths > 0, keys, np.uint32(0xFFFFFFFF)), axis=1)
    every = np.arange(rows)
    taken = np.zeros((rows, most), bool)
    left = counts.copy()
    for place in range(int(words.last.max())):
        word = order[:, place]
        length = words.lengths[every, word]
        fits = (length > 0) & (length <= left)
        taken[every, word] |= fits
        left -= np.where(fits, length, 0)
        if not left.any():
            break
    shortest = np.where(words.lengths > 0, words.lengths, most + 1).argmin(axis=1)
    none = ~taken.any(axis=1)
    taken[none, shortest[none]] = True
    chosen: NDArray[np.bool_] = taken[every[:, None], words.word_of] & words.candidates
    return chosen


def choose_spans(
    draws: CounterRNG, words: Words, counts: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Spans of whole words within a segment until `counts` [N] places are hidden; the last one may be cut short.

    Returns:
        [N, W] bool the places, and [N, W] the place whose draw decides what is shown there: one for each span, since
        SpanBERT shows [MASK], random words or the words themselves for a whole span.
    """
    rows, width = words.candidates.shape
    every, columns = np.arange(rows), np.arange(width)
    places = np.argsort(~words.candidates, axis=1, kind="stable")  # those that may be hidden come first
    number = words.candidates.sum(axis=1)
    chosen = np.zeros((rows, width), bool)
    fates = np.broadcast_to(columns, (rows, width)).copy()
    left = counts.copy()
    for attempt in range(_MOST_ROUNDS):
        if not left.any():
            break
        anchor = places[every, draws.below(_SPAN_PLACES + attempt, number)]
        word = words.word_of[every, anchor]
        segment_end = np.where(word <= words.last_of_a, words.last_of_a, words.last)
        final = np.minimum(word + _span_words(draws, attempt) - 1, segment_end)
        span = (words.word_of >= word[:, None]) & (words.word_of <= final[:, None]) & ~chosen
        span &= ~chosen[every, anchor][:, None]
        span &= np.cumsum(span, axis=1) <= left[:, None]
        chosen |= span
        left -= span.sum(axis=1)
        fates = np.where(span, anchor[:, None], fates)
    return chosen, fates


def _span_words(draws: CounterRNG, attempt: int) -> NDArray[np.int64]:
    lengths = np.arange(1, _LONGEST_SPAN_WORDS + 1)
    shares = _SPAN_STOP_PROBABILITY * (1 - _SPAN_STOP_PROBABILITY) ** (lengths - 1)
    bounds = np.cumsum(shares / shares.sum())[:-1]
    return 1 + np.searchsorted(bounds, draws.uniform(_SPAN_LENGTHS + attempt), side="right")
