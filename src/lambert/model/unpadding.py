"""Real tokens only: padded rows as one list of tokens, so that no layer computes padding.

Shapes: B rows, S tokens in each, padding included; T tokens in all rows together, N sequences.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Unpadded(NamedTuple):
    """Where the tokens that are computed stand in their padded rows."""

    indices: Tensor
    """[T] int64 in the flattened rows: the real tokens in order, then some padding."""
    cu_seqlens: Tensor
    """[N + 1] int32 first token of each sequence in the list, and the end of the last one."""
    max_length: int
    """S, and so the most tokens in a sequence."""
    reach: int | None = None
    """How far from itself a token may attend; None for everywhere in its sequence."""

    def take(self, padded: Tensor) -> Tensor:
        """[B, S, *] → [T, *]."""
        taken: Tensor = padded.flatten(0, 1).index_select(0, self.indices)
        return taken

    def find(self, positions: Tensor, rows: int) -> Tensor:
        """Where real tokens [M] of the flattened rows stand in the list."""
        places = self.indices.new_zeros(rows * self.max_length)
        places[self.indices] = torch.arange(len(self.indices), device=places.device)
        found: Tensor = places[positions]
        return found

    def pad(self, tokens: Tensor, rows: int) -> Tensor:
        """[T, H] → [B, S, H], zeros elsewhere."""
        padded = tokens.new_zeros(rows * self.max_length, tokens.shape[-1]).index_copy(0, self.indices, tokens)
        result: Tensor = padded.view(rows, self.max_length, -1)
        return result


def unpad(attention_mask: Tensor, real_tokens: int, multiple: int) -> Unpadded:
    """The `real_tokens` tokens at which `attention_mask` [B, S] is True, in B sequences.

    T is rounded up to a `multiple`: every new T costs time, to find or to compile a matmul for it, and leaves the
    allocator with holes. The padding that fills it up belongs to no sequence.
    """
    flat = attention_mask.flatten()
    total = min(-(-real_tokens // multiple) * multiple, len(flat))
    indices = torch.argsort(~flat, stable=True)[:total]
    ends = functional.pad(attention_mask.sum(1).cumsum(0), (1, 0))
    return Unpadded(indices, ends.int(), attention_mask.shape[1])
