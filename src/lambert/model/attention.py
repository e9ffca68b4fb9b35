"""Attention wherever the fused CPU operations do not run: PyTorch's scaled dot-product attention with a ready bias.

Where weights of attention are not dropped, it computes real tokens only, by FlashAttention (untested on GPU).

Shapes: B sequences, S tokens in each, T real tokens, H hidden size, A attention heads, D = H / A.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel, varlen
from torch.utils.checkpoint import checkpoint as activation_checkpoint

from lambert.model import unpadding
from lambert.model.unpadding import Unpadded

_EXACT_DROPOUT = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_FLASH_WIDTHS = range(8, 257, 8)
"""Widths of a head that FlashAttention takes as they are."""
_MOST_SIZES = 32
"""How many different T a batch of one shape may have; the blocks are compiled for each."""

HAS_WINDOWS = "window_size" in inspect.signature(varlen.varlen_attn).parameters
"""Whether this PyTorch's attention of real tokens can be local."""

Rows = Tensor | Unpadded | None
"""How tokens stand in rows: padded, with the bias of `Ops.attention_bias`; real tokens only; or full rows."""


def unpad(
    attention_mask: Tensor, weight: Tensor, heads: int, dropout_p: float, real_tokens: int | None
) -> Unpadded | None:
    """As `Ops.unpad`: where FlashAttention can run and drops no weights, which it cannot do here."""
    if dropout_p > 0 or real_tokens is None or not _has_flash_attention(weight, heads):
        return None
    rows, length = attention_mask.shape
    multiple = length * -(-rows // _MOST_SIZES)
    unpadded = unpadding.unpad(attention_mask, real_tokens, multiple)
    # FlashAttention leaves what belongs to no sequence uninitialized: the padding becomes sequences, too.
    ends = real_tokens + length * torch.arange(1, multiple // length + 1, device=weight.device)
    cu_seqlens = torch.cat((unpadded.cu_seqlens, ends.clamp(max=len(unpadded.indices)).int()))
    return unpadded._replace(cu_seqlens=cu_seqlens)


def _has_flash_attention(weight: Tensor, heads: int) -> bool:
    is_narrow = weight.shape[-1] // heads in _FLASH_WIDTHS and _compute_dtype(weight).itemsize == 2
    return is_narrow and weight.is_cuda and torch.cuda.get_device_capability(weight.device) >= (8, 0)


def attention_bias(attn_mask: Tensor, hidden: Tensor) -> Tensor:
    """A bool mask as what is added to the attention scores: 0 or −∞, of the same shape, in the dtype of the queries.

    Made once and shared by all blocks. Given a bool mask, every block would make it again.
    """
    zeros = torch.zeros(attn_mask.shape, dtype=_compute_dtype(hidden), device=hidden.device)
    return zeros.masked_fill_(~attn_mask, -math.inf)


def _compute_dtype(like: Tensor) -> torch.dtype:
    """That of the queries: autocast's, where it is on."""
    device = like.device.type
    is_autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_autocast else like.dtype


def rotate(qkv: Tensor, heads: int, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Queries and keys in [*, 3 · H] turned by the positions of their tokens, pairs of units being D / 2 apart.

    Args:
        rotation: float32 cosines and sines, [T, 1, D / 2] of qkv [T, 3 · H], [S, 1, D / 2] or [B, S, 1, D / 2] of qkv
            [B, S, 3 · H].
    """
    cosines, sines = rotation
    query_key, value = qkv.unflatten(-1, (3, heads, -1)).tensor_split((2,), dim=-3)
    first, second = query_key.float().chunk(2, dim=-1)
    cosines, sines = cosines.unsqueeze(-3), sines.unsqueeze(-3)
    turned = torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)
    return torch.cat((turned.to(qkv.dtype), value), dim=-3).flatten(-3)


def attention(
    qkv: Tensor,
    heads: int,
    rows: Rows,
    dropout_p: float,
    *,
    checkpoint: bool,
    rotation: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """As `Ops.attention`."""
    qkv = qkv if rotation is None else rotate(qkv, heads, rotation)
    if isinstance(rows, Unpadded):
        query, key, value = (part.unflatten(-1, (heads, -1)) for part in qkv.chunk(3, dim=-1))
        starts, most = rows.cu_seqlens, rows.max_length
        window: dict[str, Any] = {} if rows.reach is None else {"window_size": (rows.reach, rows.reach)}
        attended = varlen.varlen_attn(query, key, value, starts, starts, most, most, **window)
        assert isinstance(attended, Tensor)
        return attended.flatten(1)
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    context: Tensor = (
        activation_checkpoint(_attend, query, key, value, rows, dropout_p, use_reentrant=False)
        if checkpoint
        else _attend(query, key, value, rows, dropout_p)
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
