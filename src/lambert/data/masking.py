"""Which words are hidden and what stands in their place: BERT's 15 % with 80/10/10, many rows at once.

Shapes: N rows of W places; M hidden places in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lambert.data.counter_rng import Draws

MASK_SHARE = 0.15
KEPT_AS_MASK = 0.8
REPLACED_BY_RANDOM = 0.1

# Numbers of the draws of a row; those from _FATES on belong to its places.
_ORDER_OF_PLACES, _FATES = 0, 16
_NEVER = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True)
class Hidden:
    """The hidden words of N rows, row after row."""

    places: NDArray[np.int64]
    """[M] in the flattened rows, rising."""
    labels: NDArray[np.int64]
    """[M] ids that stood there."""


def maximum_predictions(sequence_length: int, share: float = MASK_SHARE) -> int:
    """BERT's cap on masked words in one sequence: 20 at length 128, 80 at 512, in proportion elsewhere."""
    return max(1, round(sequence_length * (20 / 128) * (share / MASK_SHARE)))


def prediction_counts(lengths: NDArray[np.int64], sequence_length: int, share: float = MASK_SHARE) -> NDArray[np.int64]:
    """[N] how many words of sequences of `lengths` [N] real tokens (special ones included) are masked."""
    wanted = np.maximum(1, np.round(lengths * share).astype(np.int64))
    return np.minimum(maximum_predictions(sequence_length, share), wanted)


def choose_places(draws: Draws, candidates: NDArray[np.bool_], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N, W] bool: `counts` [N] of the `candidates` [N, W] of each row, every choice as likely as another."""
    width = candidates.shape[1]
    keys = np.where(candidates, keys_of_places(draws.bits(_ORDER_OF_PLACES), width), _NEVER)
    largest_chosen = np.sort(keys, axis=1)[np.arange(len(keys)), counts - 1]
    chosen: NDArray[np.bool_] = (keys <= largest_chosen[:, None]) & candidates
    return chosen


def keys_of_places(bits: NDArray[np.uint64], width: int) -> NDArray[np.uint32]:
    """[N, W] random numbers, no two of a row alike: their low bits are the place itself.

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
    place_bits = np.uint32((1 << (width - 1).bit_length()) - 1)
    keys &= ~place_bits
    keys |= columns
    return keys


def hide(
    token_ids: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    draws: Draws,
    *,
    mask_id: int,
    vocabulary_size: int,
    all_masked: bool = False,
    fates: NDArray[np.int64] | None = None,
) -> Hidden:
    """Hide the `chosen` [N, W] places of `token_ids` [N, W], in place.

    80 % become [MASK], 10 % a word drawn evenly from the whole vocabulary, 10 % stay as they are (Devlin et al.
    2018, section 3.1).

    Args:
        all_masked: every hidden word becomes [MASK]; for measuring, where a word left in place would be given away.
        fates: [N, W] the place whose draw decides, for places that share one; each its own when None.
    """
    flat = token_ids.reshape(-1)
    places = np.flatnonzero(chosen)
    labels = flat[places]
    if all_masked:
        flat[places] = mask_id
        return Hidden(places, labels)
    rows, columns = np.divmod(places, token_ids.shape[1])
    own = draws[rows]
    fate = own.uniform(_FATES + 2 * (columns if fates is None else fates.reshape(-1)[places]))
    words = own.below(_FATES + 2 * columns + 1, vocabulary_size)
    shown = np.where(fate < KEPT_AS_MASK + REPLACED_BY_RANDOM, words, labels)
    flat[places] = np.where(fate < KEPT_AS_MASK, mask_id, shown)
    return Hidden(places, labels)
