"""Which words are hidden and what stands in their place: BERT's 15 % with 80/10/10."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MASK_SHARE = 0.15
KEPT_AS_MASK = 0.8
REPLACED_BY_RANDOM = 0.1


def maximum_predictions(sequence_length: int) -> int:
    """BERT's cap on masked words in one sequence: 20 at length 128, 80 at 512, in proportion elsewhere."""
    return max(1, round(sequence_length * 20 / 128))


def prediction_count(token_count: int, sequence_length: int) -> int:
    """How many words of a sequence of `token_count` real tokens (special ones included) are masked."""
    return min(maximum_predictions(sequence_length), max(1, round(token_count * MASK_SHARE)))


def mask_words(
    token_ids: NDArray[np.int32],
    candidates: NDArray[np.int64],
    count: int,
    *,
    mask_id: int,
    vocabulary_size: int,
    random: np.random.Generator,
    all_masked: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Hide `count` of the `candidates` in `token_ids`, in place.

    80 % become [MASK], 10 % a word drawn evenly from the whole vocabulary, 10 % stay as they are (Devlin et al.
    2018, section 3.1).

    Args:
        token_ids: [S] ids of one sequence.
        candidates: places that may be hidden: everything but [CLS], [SEP] and padding.
        all_masked: every hidden word becomes [MASK]; for measuring, where a word left in place would be given away.

    Returns:
        The hidden places in rising order and the ids that stood there.
    """
    # The places of the `count` smallest of random keys: any set is as likely as another.
    keys = random.random(len(candidates))
    positions = np.sort(candidates[np.argsort(keys)[:count]])
    labels = token_ids[positions].copy()
    if all_masked:
        token_ids[positions] = mask_id
        return positions, labels
    fate = random.random(len(positions))
    random_words = random.integers(0, vocabulary_size, len(positions), dtype=np.int32)
    token_ids[positions] = np.where(
        fate < KEPT_AS_MASK,
        np.int32(mask_id),
        np.where(fate < KEPT_AS_MASK + REPLACED_BY_RANDOM, random_words, labels),
    )
    return positions, labels
