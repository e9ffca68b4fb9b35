"""Attention of `Ops` for training on CPUs: batched matmuls around the kernels of `cpu_attention_kernels`.

Shapes: as in `ops`; K = 3 for queries, keys and values, D = H / A.
"""

# torch.autograd.Function is not typed.
# mypy: disable-error-code="no-untyped-call,misc,no-any-return"
from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from lambert.model.attention import Rows
from lambert.model.ops import cpu_attention_kernels
from lambert.model.ops.cpu_arrays import DropoutRNG, as_array, as_floats, new_dropout, overwritable, run
from lambert.model.unpadding import Unpadded

_UNTURNED = (torch.empty(0, 0), torch.empty(0, 0))
"""Cosines and sines where positions are not rotary."""


def attention_bias(attn_mask: Tensor, hidden: Tensor) -> Tensor:
    """As `Ops.attention_bias`: float32 [B, 1 or S, S]."""
    return torch.zeros(attn_mask.squeeze(1).shape).masked_fill_(~attn_mask.squeeze(1), -math.inf)


def attention(
    qkv: Tensor,
    heads: int,
    rows: Rows,
    dropout_p: float,
    *,
    checkpoint: bool,
    rotation: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """As `Ops.attention`, as batched matmuls with a fused softmax: faster than PyTorch's fused attention on CPUs.

    The matmuls compute the padding, too; nothing else does.
    """
    if isinstance(rows, Unpadded):
        length, cu_seqlens, bias = rows.max_length, rows.cu_seqlens, _window(rows)
    else:
        length, bias = qkv.shape[1], rows
        cu_seqlens = torch.arange(0, len(qkv) * length + 1, length, dtype=torch.int32)
    bias = torch.zeros(1, 1, length) if bias is None else bias
    tokens = qkv.reshape(-1, 3, heads, qkv.shape[-1] // (3 * heads))
    angles = _UNTURNED if rotation is None else tuple(each.flatten(0, -2) for each in rotation)
    context = _Attention.apply(tokens, cu_seqlens, length, bias, new_dropout(dropout_p), checkpoint, angles)
    return context.view(*qkv.shape[:-1], -1)


def _window(rows: Unpadded) -> Tensor | None:
    """float32 [1, S, S], 0 where a token may attend in its sequence; None where that is everywhere."""
    if rows.reach is None or rows.max_length <= rows.reach + 1:
        return None
    places = torch.arange(rows.max_length)
    far = (places[:, None] - places).abs() > rows.reach
    return torch.zeros(1, *far.shape).masked_fill_(far, -math.inf)


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        cu_seqlens: Tensor,
        length: int,
        bias: Tensor,
        rng: DropoutRNG,
        checkpoint: bool,
        angles: tuple[Tensor, ...],
    ) -> Tensor:
        split = _split_heads(qkv, cu_seqlens, length, angles)
        weights, dropped = _attention_weights(split, cu_seqlens, bias, rng)
        context = torch.bmm(dropped.flatten(0, 1), split[2].flatten(0, 1))
        ctx.save_for_backward(split, cu_seqlens, bias, None if checkpoint else weights)
        ctx.rng, ctx.angles = rng, angles
        return _merge_heads(context.view_as(split[:1]), cu_seqlens, len(qkv)).flatten(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        split, cu_seqlens, bias, weights = ctx.saved_tensors
        _, batch, heads, length, width = split.shape
        grad = grad.contiguous().view(-1, 1, heads, width)
        d_context = _split_heads(grad, cu_seqlens, length)[0].flatten(0, 1)
        query, key, value = (part.flatten(0, 1) for part in split)
        if weights is None:
            dropped, _ = _attention_weights(split, cu_seqlens, bias, ctx.rng)
        else:
            dropped = overwritable(ctx, weights)
        d_scores = torch.bmm(d_context, value.transpose(1, 2)).view_as(dropped)
        arrays = as_array(dropped), as_array(d_scores), cu_seqlens.numpy()
        run(cpu_attention_kernels.softmax_backward, batch, *arrays, np.float32(width**-0.5), ctx.rng)
        d_scores = d_scores.flatten(0, 1)
        gradients = torch.empty_like(split)
        d_query, d_key, d_value = gradients.flatten(1, 2)
        torch.bmm(d_scores, key, out=d_query)
        torch.bmm(d_scores.transpose(1, 2), query, out=d_key)
        torch.bmm(dropped.flatten(0, 1).transpose(1, 2), d_context, out=d_value)
        return _merge_heads(gradients, cu_seqlens, len(grad), ctx.angles), *[None] * 6


def _attention_weights(split: Tensor, cu_seqlens: Tensor, bias: Tensor, rng: DropoutRNG) -> tuple[Tensor, Tensor]:
    """[K, B, A, S, D] → attention weights [B, A, S, S] before and after dropout."""
    _, batch, heads, length, width = split.shape
    query, key = (part.flatten(0, 1) for part in split[:2])
    weights = torch.bmm(query, key.transpose(1, 2)).view(batch, heads, length, length)
    dropped = torch.empty_like(weights) if rng else weights
    inputs = as_array(weights), cu_seqlens.numpy(), as_floats(bias), np.float32(width**-0.5), rng
    run(cpu_attention_kernels.softmax, batch, *inputs, as_array(dropped) if rng else None)
    return weights, dropped


def _split_heads(tokens: Tensor, cu_seqlens: Tensor, length: int, angles: tuple[Tensor, ...] = _UNTURNED) -> Tensor:
    """[T, K, A, D] → [K, B, A, S, D], queries and keys turned by `angles`."""
    _, parts, heads, width = tokens.shape
    sequences = len(cu_seqlens) - 1
    split = tokens.new_empty(parts, sequences, heads, length, width)
    _run_by_halves(cpu_attention_kernels.split_heads, tokens, cu_seqlens, angles, split)
    return split


def _merge_heads(split: Tensor, cu_seqlens: Tensor, count: int, angles: tuple[Tensor, ...] = _UNTURNED) -> Tensor:
    """[K, B, A, S, D] → [T, K, A, D], T = `count`, queries and keys turned back; zeros behind the last sequence."""
    parts, _, heads, _, width = split.shape
    tokens = split.new_empty(count, parts, heads, width)
    tokens[int(cu_seqlens[-1]) :] = 0
    _run_by_halves(cpu_attention_kernels.merge_heads, split, cu_seqlens, angles, tokens)
    return tokens


def _run_by_halves(kernel: Any, source: Tensor, cu_seqlens: Tensor, angles: tuple[Tensor, ...], target: Tensor) -> None:
    """`split_heads` or `merge_heads`, with the heads [*, D] as their P parts [*, P, D / P]."""
    halves = 2 if len(angles[0]) else 1
    one, other = (as_array(each.unflatten(-1, (halves, -1))) for each in (source, target))
    run(kernel, len(cu_seqlens) - 1, one, cu_seqlens.numpy(), *(each.numpy() for each in angles), other)
