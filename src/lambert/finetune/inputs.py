"""Padded batches of token ids, the same for all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = -100
"""Target of a token that has none, as in PyTorch's cross-entropy."""
_PAD_TO_TOKENS = 8


@dataclass(frozen=True, eq=False)
class Encoded:
    """One sequence, one or two texts as token ids, with its training target."""

    token_ids: NDArray[np.integer]
    """[tokens], special tokens included, no padding."""
    second_start: int
    """Position of the first token of the second text, from which the segment id is 1."""
    target: float | tuple[float, ...] | NDArray[np.int64]
    """A class or a number; the first and the last position of a span; 0 or 1 for each class; or a class for each
    token."""


@dataclass(frozen=True)
class SequenceBatch:
    """B sequences, padded to S tokens: a micro-batch of `training.step`."""

    token_ids: Tensor  # [B, S] int64
    segment_ids: Tensor  # [B, S] int64
    attention_mask: Tensor  # [B, S] bool, True at real tokens
    targets: Tensor  # [B] float32; [B, 2] int64 for spans; [B, classes] float32; or [B, S] int64 for tokens

    @property
    def has_token_targets(self) -> bool:
        """Whether each token has a target of its own, or `IGNORED`."""
        return not self.targets.is_floating_point() and self.targets.shape == self.token_ids.shape

    def counts(self) -> dict[str, int]:
        """What the loss of the global batch is divided by: its sequences, or the tokens that have a target."""
        if self.has_token_targets:
            return {"sequence": int((self.targets != IGNORED).sum())}
        return {"sequence": len(self.token_ids)}

    def to(self, device: torch.device | str) -> SequenceBatch:
        """The same batch on another device; a GPU copies it while the host works."""
        if torch.device(device).type != "cuda":
            return SequenceBatch(*(getattr(self, own.name).to(device) for own in fields(self)))
        return SequenceBatch(
            *(getattr(self, own.name).pin_memory().to(device, non_blocking=True) for own in fields(self))
        )


def make_batch(sequences: Sequence[Encoded], *, pad_id: int) -> SequenceBatch:
    """Pad to the longest sequence, rounded up to a multiple of 8 tokens."""
    longest = max(len(sequence.token_ids) for sequence in sequences)
    width = -(-longest // _PAD_TO_TOKENS) * _PAD_TO_TOKENS
    token_ids = np.full((len(sequences), width), pad_id, dtype=np.int64)
    segment_ids, attention_mask = np.zeros_like(token_ids), np.zeros(token_ids.shape, dtype=np.bool_)
    for row, sequence in enumerate(sequences):
        tokens = len(sequence.token_ids)
        token_ids[row, :tokens] = sequence.token_ids
        segment_ids[row, sequence.second_start : tokens] = 1
        attention_mask[row, :tokens] = True
    targets: list[Any] = [_padded(sequence.target, width) for sequence in sequences]
    arrays = (torch.from_numpy(token_ids), torch.from_numpy(segment_ids), torch.from_numpy(attention_mask))
    return SequenceBatch(*arrays, torch.tensor(targets))


def _padded(target: Any, width: int) -> Any:
    """The target of a sequence; classes of tokens as a list of `width`."""
    if not isinstance(target, np.ndarray):
        return target
    return [*target.tolist(), *[IGNORED] * (width - len(target))]
