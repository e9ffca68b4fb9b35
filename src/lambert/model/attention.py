"""Attention wherever the fused CPU operations do not run: PyTorch's scaled dot-product attention with a ready bias.

Shapes: B sequences, S tokens in each, H hidden size, A attention heads, D = H / A.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint as activation_checkpoint

_EXACT_DROPOUT = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attention_bias(attn_mask: Tensor, hidden: Tensor) -> Tensor:
    """A bool mask as what is added to the attention scores: 0 or −∞, of the same shape, in the dtype of the queries.

    Made once and shared by all blocks. Given a bool mask, every block would make it again.
    """
    device = hidden.device.type
    is_autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if is_autocast else hidden.dtype
    return torch.zeros(attn_mask.shape, dtype=dtype, device=hidden.device).masked_fill_(~attn_mask, -math.inf)


def attention(qkv: Tensor, heads: int, bias: Tensor | None, dropout_p: float, *, checkpoint: bool) -> Tensor:
    """As `Ops.attention`."""
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    context: Tensor = (
        activation_checkpoint(_attend, query, key, value, bias, dropout_p, use_reentrant=False)
        if checkpoint
        else _attend(query, key, value, bias, dropout_p)
    )
    return context.transpose(1, 2).flatten(2)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout_p: float) -> Tensor:
    """[B, A, S, D] → [B, A, S, D]."""
    if not may_round_dropout(query.device.type, dropout_p):
        return functional.scaled_dot_product_attention(query, key, value, bias, dropout_p)
    with sdpa_kernel(_EXACT_DROPOUT):
        return functional.scaled_dot_product_attention(query, key, value, bias, dropout_p)


def may_round_dropout(device: str, p: float) -> bool:
    """Whether cuDNN's attention, PyTorch's first choice on an H100, may drop another fraction than p.

    It may round p to sixteenths (pytorch issue 162073): .1 becomes 1/16 or 2/16. Other kernels take p as it is.
    """
    return device == "cuda" and not (16 * p).is_integer()
