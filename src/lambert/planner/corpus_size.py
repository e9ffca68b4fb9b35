"""How many training examples a pile of text makes, before it is prepared: by what Wikipedia makes of as many bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lambert.errors import UserError

BYTES_PER_TOKEN = 4.71
"""128.8 MB of English Wikipedia are 27.35 million word pieces of BERT's vocabulary (docs/results.md)."""
_SHARES = ((128, 0.748), (512, 0.584))
"""Length → tokens of the text that an example uses up, over its length: random partners and runs that end with their
document use up less (27.1 million tokens make 282,899 examples of 128 and 90,533 of 512 a pass, docs/corpus.md)."""


def tokens_of_text(byte_count: float) -> float:
    """Word pieces.

    Raises:
        UserError: not a positive number.
    """
    if not 0 < byte_count < math.inf:
        raise UserError(f"{byte_count / 1e9:g} GB of text", remedy="Give a number above 0")
    return byte_count / BYTES_PER_TOKEN


def examples_of_text(byte_count: float, sequence_length: int) -> float:
    """Examples a pass, at BERT's pairs; between and beyond the two lengths that were counted, by the logarithm."""
    (short, first), (long, second) = _SHARES
    place = math.log(max(sequence_length, short) / short) / math.log(long / short)
    return tokens_of_text(byte_count) / (sequence_length * max(0.5, first + place * (second - first)))


def samples_of_text(byte_count: float, epochs: float, phases: Sequence[tuple[int, float]]) -> int:
    """Sequences that make so many passes over the text.

    Args:
        phases: sequence length and share of the samples of each; shares sum to 1.

    Raises:
        UserError: a number is impossible.
    """
    if not 0 < epochs < math.inf:
        raise UserError(f"{epochs} epochs", remedy="Give a number above 0")
    return round(epochs / sum(share / examples_of_text(byte_count, length) for length, share in phases))
