"""Attention over sequences of their own lengths, one by one: the oracle of `torch.nn.attention.varlen`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attend_by_sequence(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, _: Tensor, most: int, __: int
) -> Tensor:
    """What `varlen_attn` is documented to do, NaN in what belongs to no sequence."""
    attended = torch.full_like(query, float("nan"))
    for first, end in zip(starts.tolist(), starts.tolist()[1:], strict=False):
        assert end - first <= most
        if end > first:
            parts = (part[first:end].transpose(0, 1) for part in (query, key, value))
            attended[first:end] = functional.scaled_dot_product_attention(*parts).transpose(0, 1)
    return attended
