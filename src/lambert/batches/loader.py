"""Global batches as micro-batches of tensors: sample number → example → padded rows.

Shapes: B sequences, S tokens in the longest of them (rounded up), M masked words in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lambert.batches.order import Shuffle
from lambert.batches.pairs import Example, PairSource

_ROW_MULTIPLE = 8
_ORDER = 1
"""Sets the draws of the order apart from others that start from the same seed."""


@dataclass(frozen=True)
class PretrainingBatch:
    """What one forward pass of `BertForPreTraining` takes, and its answers."""

    token_ids: Tensor
    """[B, S] int64, 0 in the padding."""
    segment_ids: Tensor
    """[B, S] int64: 0 in A, 1 in B."""
    attention_mask: Tensor | None
    """[B, S] bool, True at real tokens; None when no row is padded."""
    masked_positions: Tensor
    """[M] int64 places in the flattened batch."""
    masked_labels: Tensor
    """[M] int64 ids that stood there."""
    next_sentence_labels: Tensor
    """[B] int64: 0 B follows A, 1 B is random."""
    real_tokens: int
    """Tokens that are not padding."""

    def counts(self) -> dict[str, int]:
        """How many terms each loss sums over in this micro-batch."""
        return {"masked_word": len(self.masked_labels), "next_sentence": len(self.next_sentence_labels)}

    def to(self, device: torch.device) -> PretrainingBatch:
        """The same batch on `device`."""
        if device.type == "cpu":
            return self
        mask = self.attention_mask
        return PretrainingBatch(
            token_ids=self.token_ids.to(device, non_blocking=True),
            segment_ids=self.segment_ids.to(device, non_blocking=True),
            attention_mask=None if mask is None else mask.to(device, non_blocking=True),
            masked_positions=self.masked_positions.to(device, non_blocking=True),
            masked_labels=self.masked_labels.to(device, non_blocking=True),
            next_sentence_labels=self.next_sentence_labels.to(device, non_blocking=True),
            real_tokens=self.real_tokens,
        )


def collate(examples: Sequence[Example], *, pad_id: int = 0) -> PretrainingBatch:
    """Pad examples to the longest of them, rounded up to a multiple of 8."""
    longest = max(len(example.token_ids) for example in examples)
    width = -(-longest // _ROW_MULTIPLE) * _ROW_MULTIPLE
    token_ids = np.full((len(examples), width), pad_id, np.int64)
    segment_ids = np.zeros((len(examples), width), np.int64)
    attention_mask = np.zeros((len(examples), width), bool)
    for row, example in enumerate(examples):
        length = len(example.token_ids)
        token_ids[row, :length] = example.token_ids
        segment_ids[row, example.second_segment_start : length] = 1
        attention_mask[row, :length] = True
    positions = np.concatenate([row * width + e.masked_positions for row, e in enumerate(examples)])
    labels = np.concatenate([example.masked_labels for example in examples]).astype(np.int64)
    return PretrainingBatch(
        token_ids=torch.from_numpy(token_ids),
        segment_ids=torch.from_numpy(segment_ids),
        attention_mask=None if attention_mask.all() else torch.from_numpy(attention_mask),
        masked_positions=torch.from_numpy(positions),
        masked_labels=torch.from_numpy(labels),
        next_sentence_labels=torch.tensor([int(example.is_random_next) for example in examples]),
        real_tokens=int(attention_mask.sum()),
    )


class SampleStream:
    """The endless, shuffled stream of a phase's samples: each pass shows every example once.

    Sample g is example `shuffle_e(g mod n)` of pass e = g div n, whoever asks and in whatever portions.
    """

    def __init__(self, pairs: PairSource) -> None:
        self.pairs = pairs
        self._shuffle_of_pass: tuple[int, Shuffle] | None = None

    def batch(self, first: int, count: int) -> PretrainingBatch:
        """Samples first … first + count − 1 (from 0) as one batch."""
        numbers = np.arange(first, first + count)
        examples = []
        for pass_number in range(first // len(self.pairs), (first + count - 1) // len(self.pairs) + 1):
            positions = numbers[numbers // len(self.pairs) == pass_number] % len(self.pairs)
            indices = self._shuffle(pass_number)(positions)
            examples += [self.pairs.example(pass_number, int(index)) for index in indices]
        return collate(examples, pad_id=self.pairs.special.pad)

    def _shuffle(self, pass_number: int) -> Shuffle:
        if self._shuffle_of_pass is None or self._shuffle_of_pass[0] != pass_number:
            key = (_ORDER, self.pairs.seed, self.pairs.phase, pass_number)
            self._shuffle_of_pass = (pass_number, Shuffle(len(self.pairs), key))
        return self._shuffle_of_pass[1]
