"""Masked language modelling, many rows at once: which positions are masked, and what is put there.

Tokens (BERT), whole words, or spans of words (SpanBERT); 15 % of the tokens with the 80/10/10 rule.

Shapes: N rows of W positions; M masked positions in all; words of a row are numbered from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lambert.data.counter_rng import CounterRNG
from lambert.errors import UserError
from lambert.utils.tokenizer_family import family_of

MLM_PROBABILITY = 0.15
MASK_PROBABILITY = 0.8
RANDOM_PROBABILITY = 0.1

# SpanBERT (Joshi et al. 2019, arXiv 1907.10529, section 3.1): geometric lengths, at most ten words.
_SPAN_STOP_PROBABILITY = 0.2
_MAX_SPAN_WORDS = 10
_MAX_SPAN_ATTEMPTS = 400

# Draw numbers of a row; those from _OUTCOMES on belong to its positions.
_POSITION_ORDER, _WORD_ORDER, _OUTCOMES, _SPAN_LENGTHS, _SPAN_ANCHORS = 0, 1, 16, 1 << 32, 1 << 33
_NEVER = np.uint32(0xFFFFFFFF)
_AFTER_ALL = np.int64(1 << 62)
"""Beyond every random key and every length."""


@dataclass(frozen=True)
class MaskedTokens:
    """The masked tokens of N rows, row after row."""

    positions: NDArray[np.int64]
    """[M] in the flattened rows, rising."""
    labels: NDArray[np.int64]
    """[M] original ids."""


def max_predictions(sequence_length: int, mlm_probability: float = MLM_PROBABILITY) -> int:
    """BERT's cap on masked tokens per sequence: 20 at length 128, 80 at 512, in proportion elsewhere."""
    return int(_most(sequence_length, mlm_probability))


def prediction_counts(
    lengths: NDArray[np.int64],
    sequence_length: int,
    mlm_probability: float | NDArray[np.float64] = MLM_PROBABILITY,
) -> NDArray[np.int64]:
    """[N] masked tokens of sequences of `lengths` [N] real tokens, special ones included.

    Args:
        mlm_probability: of all of them, or [N] of each.
    """
    wanted = np.maximum(1, np.round(lengths * mlm_probability).astype(np.int64))
    return np.minimum(_most(sequence_length, mlm_probability), wanted)


def _most(sequence_length: int, mlm_probability: float | NDArray[np.float64]) -> NDArray[np.int64]:
    most = np.round(sequence_length * (20 / 128) * (np.asarray(mlm_probability) / MLM_PROBABILITY))
    return np.maximum(1, most.astype(np.int64))


def choose_positions(draws: CounterRNG, candidates: NDArray[np.bool_], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N, W] bool: `counts` [N] of the `candidates` [N, W] of each row, every choice equally likely."""
    width = candidates.shape[1]
    keys = np.where(candidates, random_keys(draws.bits(_POSITION_ORDER), width), _NEVER)
    largest_chosen = np.sort(keys, axis=1)[np.arange(len(keys)), counts - 1]
    chosen: NDArray[np.bool_] = (keys <= largest_chosen[:, None]) & candidates
    return chosen


def random_keys(bits: NDArray[np.uint64], width: int) -> NDArray[np.uint32]:
    """[N, W] random numbers, distinct within a row: their low bits are the column itself.

    A 32-bit finaliser (constants found by Wellons' search, nullprogram.com/blog/2018/07/31) of a counter, for speed.
    """
    low, high = bits.astype(np.uint32)[:, None], (bits >> np.uint64(32)).astype(np.uint32)[:, None]
    columns = np.arange(width, dtype=np.uint32)
    keys: NDArray[np.uint32] = low + columns * np.uint32(0x9E3779B9)
    keys ^= keys >> np.uint32(16)
    keys *= np.uint32(0x7FEB352D)
    keys ^= high
    keys ^= keys >> np.uint32(15)
    keys *= np.uint32(0x846CA68B)
    keys ^= keys >> np.uint32(16)
    column_bits = np.uint32((1 << key_bits(width)) - 1)
    keys &= ~column_bits
    keys |= columns
    return keys


def key_bits(width: int) -> int:
    """Bits of a random key that are its column: rows of widths with the same number have the same masks."""
    return (width - 1).bit_length()


def apply_masking(
    token_ids: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    draws: CounterRNG,
    *,
    mask_id: int,
    vocabulary_size: int,
    all_masked: bool = False,
    outcome_positions: NDArray[np.int64] | None = None,
) -> MaskedTokens:
    """Masks the `chosen` [N, W] positions of `token_ids` [N, W], in place.

    80 % become [MASK], 10 % a token drawn uniformly from the whole vocabulary, 10 % stay (Devlin et al. 2018, section
    3.1).

    Args:
        all_masked: every chosen token becomes [MASK]; for evaluation, where a token that stays would be given away.
        outcome_positions: [N, W] the position whose draw decides, for positions that share one; each its own when None.
    """
    flat = token_ids.reshape(-1)
    positions = np.flatnonzero(chosen)
    labels = flat[positions]
    if all_masked:
        flat[positions] = mask_id
        return MaskedTokens(positions, labels)
    rows, columns = np.divmod(positions, token_ids.shape[1])
    own = draws[rows]
    deciding = columns if outcome_positions is None else outcome_positions.reshape(-1)[positions]
    outcome = own.uniform(_OUTCOMES + 2 * deciding)
    random_ids = own.integers(_OUTCOMES + 2 * columns + 1, vocabulary_size)
    unmasked = np.where(outcome < MASK_PROBABILITY + RANDOM_PROBABILITY, random_ids, labels)
    flat[positions] = np.where(outcome < MASK_PROBABILITY, mask_id, unmasked)
    return MaskedTokens(positions, labels)


def continuations(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """bool [vocabulary]: the tokens that continue a word, by `##` in WordPiece. In byte-level BPE a space, a sign of
    punctuation and an ideograph begin a word.

    Raises:
        UserError: the vocabulary has none, so that words cannot be told from tokens.
    """
    continues = np.zeros(tokenizer.get_vocab_size(with_added_tokens=True), bool)
    family = family_of(tokenizer)
    ids = [number for token, number in tokenizer.get_vocab().items() if family.continues(token)]
    if not ids:
        raise UserError(
            "the vocabulary has no tokens that begin with ##, so words cannot be told from tokens",
            remedy="Give `masking` as token",
        )
    continues[ids] = True
    return continues


@dataclass(frozen=True)
class WordBoundaries:
    """Which word each position belongs to."""

    candidates: NDArray[np.bool_]
    """[N, W] positions that may be masked."""
    word_of: NDArray[np.int64]
    """[N, W] number of the word, 0 at positions that may not be masked."""
    lengths: NDArray[np.int64]
    """[N, words + 1] tokens of each word; 0 for number 0 and beyond the last word."""
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
    ) -> WordBoundaries:
        """A word is a token with those that continue it; a segment that begins inside a word begins a new one."""
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
        columns = int(last.max()) + 1
        counted = np.bincount((every[:, None] * columns + word_of).ravel(), minlength=rows * columns)
        lengths = counted.reshape(rows, columns)
        lengths[:, 0] = 0
        return cls(candidates, word_of, lengths, last_of_a, last)


def choose_words(draws: CounterRNG, words: WordBoundaries, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N, W] bool: whole words in random order, each chosen if it still fits into `counts` [N] positions, as in BERT's
    whole-word masking; the shortest where none fits."""
    rows, columns = words.lengths.shape
    keys = random_keys(draws.bits(_WORD_ORDER), columns)
    order = np.argsort(np.where(words.lengths > 0, keys, _AFTER_ALL), axis=1)
    every = np.arange(rows)
    taken = np.zeros((rows, columns), bool)
    left = counts.copy()
    for rank in range(int(words.last.max())):
        word = order[:, rank]
        length = words.lengths[every, word]
        fits = (length > 0) & (length <= left)
        taken[every, word] |= fits
        left -= np.where(fits, length, 0)
        if not left.any():
            break
    shortest = np.where(words.lengths > 0, words.lengths, _AFTER_ALL).argmin(axis=1)
    none = ~taken.any(axis=1)
    taken[none, shortest[none]] = True
    chosen: NDArray[np.bool_] = taken[every[:, None], words.word_of] & words.candidates
    return chosen


def choose_spans(
    draws: CounterRNG, words: WordBoundaries, counts: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Spans of whole words within a segment until `counts` [N] positions are chosen; the last span may be truncated.

    Returns:
        chosen [N, W] bool, and `outcome_positions` [N, W] for `apply_masking`: one position per span, since SpanBERT
        masks, replaces or keeps a span as a whole.
    """
    rows, width = words.candidates.shape
    every, columns = np.arange(rows), np.arange(width)
    candidates_first = np.argsort(~words.candidates, axis=1, kind="stable")
    candidate_count = words.candidates.sum(axis=1)
    chosen = np.zeros((rows, width), bool)
    outcome_positions = np.broadcast_to(columns, (rows, width)).copy()
    left = counts.copy()
    for attempt in range(_MAX_SPAN_ATTEMPTS):
        if not left.any():
            break
        anchor = candidates_first[every, draws.integers(_SPAN_ANCHORS + attempt, candidate_count)]
        word = words.word_of[every, anchor]
        segment_end = np.where(word <= words.last_of_a, words.last_of_a, words.last)
        final = np.minimum(word + _span_words(draws, attempt) - 1, segment_end)
        span = (words.word_of >= word[:, None]) & (words.word_of <= final[:, None]) & ~chosen
        span &= ~chosen[every, anchor][:, None]
        span &= np.cumsum(span, axis=1) <= left[:, None]
        chosen |= span
        left -= span.sum(axis=1)
        outcome_positions = np.where(span, anchor[:, None], outcome_positions)
    return chosen, outcome_positions


def _span_words(draws: CounterRNG, attempt: int) -> NDArray[np.int64]:
    lengths = np.arange(1, _MAX_SPAN_WORDS + 1)
    probabilities = _SPAN_STOP_PROBABILITY * (1 - _SPAN_STOP_PROBABILITY) ** (lengths - 1)
    bounds = np.cumsum(probabilities / probabilities.sum())[:-1]
    return 1 + np.searchsorted(bounds, draws.uniform(_SPAN_LENGTHS + attempt), side="right")
