"""The operations of `Ops` for training on CPUs, in bfloat16 or float32: autograd functions around the kernels.

Matmuls are PyTorch's; everything between them is one kernel (`cpu_kernels`). Shapes: as in `ops`;
K = 3 for queries, keys and values, D = H / A.
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
from torch.nn import functional

from lambert.model import unpadding
from lambert.model.attention import Rows
from lambert.model.ops import cpu_kernels
from lambert.model.ops.cpu_arrays import (
    as_array,
    as_floats,
    column_sums,
    run,
    run_with_sums,
    transposed_matmul,
    weight_gradient,
)
from lambert.model.unpadding import Unpadded

DropoutRNG = tuple[np.uint32, np.uint32, np.uint32, np.float32]
"""Two words of a seed, the random bits below which an element is dropped, and 1 / (1 − p)."""

_MIN_SPARSE_ROWS = 1_024
"""bfloat16 embeddings of so many rows get a sparse gradient, cheap to add to the tied decoder's dense one."""
_TOKENS_MULTIPLE = 64
"""Real and masked tokens are padded to a multiple of this: few different sizes leave the allocator no holes, and oneDNN
few matmuls to compile."""


def new_dropout(p: float) -> DropoutRNG:
    """A new dropout pattern, seeded by PyTorch's generator; with p = 0 everything is kept."""
    if p == 0:
        return np.uint32(0), np.uint32(0), np.uint32(0), np.float32(1)
    seed0, seed1 = torch.randint(0, 1 << 32, (2,)).tolist()
    return np.uint32(seed0), np.uint32(seed1), np.uint32(round(p * 2**32)), np.float32(1 / (1 - p))


def embedding(input: Tensor, weight: Tensor) -> Tensor:
    """As `Ops.embedding`; the gradient is summed in float32, and sparse where a bfloat16 table is large."""
    return _Embedding.apply(input, weight)


def linear(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As `Ops.linear`."""
    return _Linear.apply(input.flatten(0, -2), weight, bias).view(*input.shape[:-1], -1)


def dropout(input: Tensor, p: float) -> Tensor:
    """As `Ops.dropout`."""
    return input if p == 0 else _Dropout.apply(input, new_dropout(p))


def unpad(
    attention_mask: Tensor, weight: Tensor, heads: int, dropout_p: float, real_tokens: int | None
) -> Unpadded | None:
    """As `Ops.unpad`: always."""
    return unpadding.unpad(attention_mask, int(attention_mask.sum()), _TOKENS_MULTIPLE)


def attention_bias(attn_mask: Tensor, hidden: Tensor) -> Tensor:
    """As `Ops.attention_bias`: float32 [B, 1 or S, S]."""
    return torch.zeros(attn_mask.squeeze(1).shape).masked_fill_(~attn_mask.squeeze(1), -math.inf)


def attention(qkv: Tensor, heads: int, rows: Rows, dropout_p: float, *, checkpoint: bool) -> Tensor:
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
    context = _Attention.apply(tokens, cu_seqlens, length, bias, new_dropout(dropout_p), checkpoint)
    return context.view(*qkv.shape[:-1], -1)


def _window(rows: Unpadded) -> Tensor | None:
    """float32 [1, S, S], 0 where a token may attend in its sequence; None where that is everywhere."""
    if rows.reach is None or rows.max_length <= rows.reach + 1:
        return None
    places = torch.arange(rows.max_length)
    far = (places[:, None] - places).abs() > rows.reach
    return torch.zeros(1, *far.shape).masked_fill_(far, -math.inf)


def feed_forward(
    hidden: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, *, checkpoint: bool
) -> Tensor:
    """As `Ops.feed_forward`."""
    rows = hidden.flatten(0, -2)
    return _FeedForward.apply(rows, weight1, bias1, weight2, bias2, checkpoint).view(*hidden.shape[:-1], -1)


def add_norm(branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, dropout_p: float) -> Tensor:
    """As `Ops.add_norm`."""
    rows = branch.flatten(0, -2), residual.flatten(0, -2)
    return _AddNorm.apply(*rows, weight, bias, eps, new_dropout(dropout_p)).view(residual.shape)


def mlm_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `Ops.mlm_cross_entropy`. Backward may run only once."""
    return _MLMCrossEntropy.apply(hidden, weight, bias, labels)


def _overwritable(ctx: Any, saved: Tensor) -> Tensor:
    """A saved tensor that the backward pass overwrites, so it may run only once."""
    if getattr(ctx, "overwritten", False):
        raise RuntimeError("these gradients can be computed only once: run the forward pass again")
    ctx.overwritten = True
    return saved


class _Embedding(Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape = weight.shape
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (ids,) = ctx.saved_tensors
        rows, width = ctx.shape
        grad = grad.contiguous()
        if rows < _MIN_SPARSE_ROWS or grad.dtype != torch.bfloat16:
            sums = torch.zeros(rows, width).index_add_(0, ids.flatten(), grad.view(-1, width).float())
            return None, sums.to(grad.dtype)
        used, indices = ids.unique(return_inverse=True)
        sums = torch.zeros(len(used), width).index_add_(0, indices.flatten(), grad.view(-1, width).float())
        values = sums.to(grad.dtype)
        sparse = torch.sparse_coo_tensor(used[None], values, ctx.shape, is_coalesced=True, check_invariants=False)
        return None, sparse


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        return functional.linear(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        grad = grad.contiguous()
        return grad @ weight, weight_gradient(grad, input), column_sums(grad)


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, rng: DropoutRNG) -> Tensor:
        ctx.rng = rng
        return _dropped(input, rng)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _dropped(grad.contiguous(), ctx.rng), None


def _dropped(input: Tensor, rng: DropoutRNG) -> Tensor:
    out = torch.empty_like(input)
    run(cpu_kernels.dropout, input.numel(), as_array(input).reshape(-1), as_array(out).reshape(-1), rng)
    return out


class _FeedForward(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, checkpoint: bool
    ) -> Tensor:
        expanded = functional.linear(hidden, weight1, bias1)
        activated = _gelu(expanded)
        ctx.save_for_backward(hidden, expanded, None if checkpoint else activated, weight1, weight2)
        return functional.linear(activated, weight2, bias2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden, expanded, activated, weight1, weight2 = ctx.saved_tensors
        grad = grad.contiguous()
        activated = _gelu(expanded) if activated is None else activated
        d_weight2, d_bias2 = weight_gradient(grad, activated), column_sums(grad)
        inner = grad @ weight2
        d_bias1 = run_with_sums(cpu_kernels.gelu_backward, inner, 1, as_array(expanded), as_array(inner))[0]
        return inner @ weight1, weight_gradient(inner, hidden), d_bias1, d_weight2, d_bias2, None


def _gelu(input: Tensor) -> Tensor:
    out = torch.empty_like(input)
    run(cpu_kernels.gelu, len(input), as_array(input), as_array(out))
    return out


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, cu_seqlens: Tensor, length: int, bias: Tensor, rng: DropoutRNG, checkpoint: bool
    ) -> Tensor:
        split = _split_heads(qkv, cu_seqlens, length)
        weights, dropped = _attention_weights(split, cu_seqlens, bias, rng)
        context = torch.bmm(dropped.flatten(0, 1), split[2].flatten(0, 1))
        ctx.save_for_backward(split, cu_seqlens, bias, None if checkpoint else weights)
        ctx.rng = rng
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
            dropped = _overwritable(ctx, weights)
        d_scores = torch.bmm(d_context, value.transpose(1, 2)).view_as(dropped)
        arrays = as_array(dropped), as_array(d_scores), cu_seqlens.numpy()
        run(cpu_kernels.softmax_backward, batch, *arrays, np.float32(width**-0.5), ctx.rng)
        d_scores = d_scores.flatten(0, 1)
        gradients = torch.empty_like(split)
        d_query, d_key, d_value = gradients.flatten(1, 2)
        torch.bmm(d_scores, key, out=d_query)
        torch.bmm(d_scores.transpose(1, 2), query, out=d_key)
        torch.bmm(dropped.flatten(0, 1).transpose(1, 2), d_context, out=d_value)
        return _merge_heads(gradients, cu_seqlens, len(grad)), None, None, None, None, None


def _attention_weights(split: Tensor, cu_seqlens: Tensor, bias: Tensor, rng: DropoutRNG) -> tuple[Tensor, Tensor]:
    """[K, B, A, S, D] → attention weights [B, A, S, S] before and after dropout."""
    _, batch, heads, length, width = split.shape
    query, key = (part.flatten(0, 1) for part in split[:2])
    weights = torch.bmm(query, key.transpose(1, 2)).view(batch, heads, length, length)
    dropped = torch.empty_like(weights)
    inputs = as_array(weights), cu_seqlens.numpy(), as_floats(bias), np.float32(width**-0.5), rng
    run(cpu_kernels.softmax, batch, *inputs, as_array(dropped))
    return weights, dropped


def _split_heads(tokens: Tensor, cu_seqlens: Tensor, length: int) -> Tensor:
    """[T, K, A, D] → [K, B, A, S, D]."""
    _, parts, heads, width = tokens.shape
    sequences = len(cu_seqlens) - 1
    split = tokens.new_empty(parts, sequences, heads, length, width)
    run(cpu_kernels.split_heads, sequences, as_array(tokens), cu_seqlens.numpy(), as_array(split))
    return split


def _merge_heads(split: Tensor, cu_seqlens: Tensor, count: int) -> Tensor:
    """[K, B, A, S, D] → [T, K, A, D], T = `count`; zeros behind the last sequence."""
    parts, sequences, heads, _, width = split.shape
    tokens = split.new_empty(count, parts, heads, width)
    tokens[int(cu_seqlens[-1]) :] = 0
    run(cpu_kernels.merge_heads, sequences, as_array(split), cu_seqlens.numpy(), as_array(tokens))
    return tokens


class _AddNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, rng: DropoutRNG
    ) -> Tensor:
        out, normalized, rstd = torch.empty_like(branch), torch.empty_like(branch), torch.empty(len(branch))
        inputs = as_array(branch), as_array(residual), as_floats(weight), as_floats(bias), np.float32(eps), rng
        run(cpu_kernels.add_norm, len(branch), *inputs, as_array(normalized), rstd.numpy(), as_array(out))
        ctx.save_for_backward(normalized, rstd, weight)
        ctx.rng = rng
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        normalized, rstd, weight = ctx.saved_tensors
        grad = grad.contiguous()
        d_branch, d_residual = torch.empty_like(grad), torch.empty_like(grad)
        inputs = as_array(grad), as_array(normalized), rstd.numpy(), as_floats(weight), ctx.rng
        outputs = as_array(d_branch), as_array(d_residual)
        d_weight, d_bias = run_with_sums(cpu_kernels.add_norm_backward, grad, 2, *inputs, *outputs)
        return d_branch, d_residual, d_weight, d_bias, None, None


class _MLMCrossEntropy(Function):
    """Logits are computed transposed, [V, M], so that both matmuls with the embedding, forward and for its gradient,
    run at full rate. Exponentials are computed once, each chunk of the vocabulary relative to its own maximum."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        size, count = weight.shape[0], hidden.shape[0]
        padding = -count % _TOKENS_MULTIPLE
        hidden = functional.pad(hidden, (0, 0, 0, padding))
        logits = functional.linear(weight, hidden)
        label_logits = logits[labels, torch.arange(count)].float() + bias.detach().float()[labels]
        chunk_max, chunk_sum = torch.empty(2, -(-size // cpu_kernels.CHUNK), count + padding)
        arrays = as_array(logits), as_floats(bias), chunk_max.numpy(), chunk_sum.numpy()
        run(cpu_kernels.mlm_softmax, count + padding, *arrays)
        maximum = chunk_max.amax(0)
        log_sum_exp = maximum + (chunk_sum * (chunk_max - maximum).exp()).sum(0).log()
        chunk_scale = (chunk_max - log_sum_exp).exp()
        chunk_scale[:, count:] = 0
        ctx.save_for_backward(hidden, weight, logits, chunk_scale, functional.pad(labels, (0, padding), value=-1))
        ctx.count = count
        losses, correct = log_sum_exp[:count] - label_logits, label_logits >= maximum[:count]
        ctx.mark_non_differentiable(losses, correct)
        return losses.sum(), losses, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        hidden, weight, exponentials, chunk_scale, labels = ctx.saved_tensors
        d_bias = torch.empty(len(weight))
        d_logits = _overwritable(ctx, exponentials)
        arrays = as_array(d_logits), chunk_scale.numpy(), labels.int().numpy(), d_bias.numpy()
        run(cpu_kernels.mlm_softmax_backward, len(chunk_scale), *arrays)
        d_weight = d_logits @ (hidden * grad).contiguous()
        d_hidden = (transposed_matmul(d_logits, weight) * grad)[: ctx.count]
        return d_hidden.to(hidden.dtype), d_weight, (d_bias * grad).to(hidden.dtype), None
