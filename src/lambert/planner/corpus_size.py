"""How many training examples a corpus of some size makes, estimated from Wikipedia before it is prepared."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lambert.errors import UserError

BYTES_PER_TOKEN = 4.71
"""128.8 MB of English Wikipedia are 27.35 million tokens of BERT's vocabulary (docs/results.md)."""
_FILL = ((128, 0.748), (512, 0.584))
"""Length, and tokens of the text in an example over its length. Random partners and segments that end with their
document use fewer (27.1 million tokens make 282,899 examples of 128 and 90,533 of 512 per epoch, docs/corpus.md)."""


def tokens_of_text(byte_count: float) -> float:
    """WordPiece tokens in so much text.

    Raises:
        UserError: not a positive number.
    """
    if not 0 < byte_count < math.inf:
        raise UserError(f"{byte_count / 1e9:g} GB of text", remedy="Give a number above 0")
    return byte_count / BYTES_PER_TOKEN


def examples_of_text(byte_count: float, sequence_length: int) -> float:
    """Examples per epoch with BERT's sentence pairs; log-interpolated between the two lengths that were counted."""
    (short, first), (long, second) = _FILL
    position = math.log(max(sequence_length, short) / short) / math.log(long / short)
    return tokens_of_text(byte_count) / (sequence_length * max(0.5, first + position * (second - first)))


def samples_of_text(byte_count: float, epochs: float, phases: Sequence[tuple[int, float]]) -> int:
    """Sequences in so many epochs.

    Args:
        phases: sequence length and samples of each phase; only the ratios of the samples count.

    Raises:
        UserError: a number is impossible.
    """
    if not 0 < epochs < math.inf:
        raise UserError(f"{epochs} epochs", remedy="Give a number above 0")
    total = sum(samples for _, samples in phases)
    epochs_per_sample = sum(samples / total / examples_of_text(byte_count, length) for length, samples in phases)
    return round(epochs / epochs_per_sample)
