"""The pieces of a BERT layer as functions of bfloat16 or float32 tensors on the CPU, with gradients of their own.

Products are PyTorch's; everything between them is one loop (`loops`). Shapes: B sequences, S tokens in each, T = B · S,
H hidden size, A heads, D = H / A, F feed-forward size, V vocabulary, M masked words.
"""

# torch.autograd.Function is not typed.
# mypy: disable-error-code="no-untyped-call,misc,no-any-return"
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from lambert.model.cpu import loops
from lambert.model.cpu.arrays import as_array, as_floats, column_sums, rounded, shared, weight_gradient

Dropout = tuple[np.uint32, np.uint32, np.uint32, np.float32]
"""Two words of a seed, the draws below which an element is dropped, and 1 / (1 − p)."""

_SPARSE_ROWS_AT_LEAST = 1_024
"""In bfloat16 tables of so many rows get a sparse gradient, which costs nothing beside the tied decoder's dense one."""

_MASKED_WORDS_MULTIPLE = 64
"""Masked words are filled up to a multiple of this."""


def new_dropout(probability: float) -> Dropout:
    """A fresh dropout, drawn from PyTorch's generator; with probability 0 everything is kept."""
    if probability == 0:
        return np.uint32(0), np.uint32(0), np.uint32(0), np.float32(1)
    seed0, seed1 = torch.randint(0, 1 << 32, (2,)).tolist()
    threshold = round(probability * 2**32)
    return np.uint32(seed0), np.uint32(seed1), np.uint32(threshold), np.float32(1 / (1 - probability))


def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """Rows [*, H] of table [N, H]. Its gradient is added up in float32, and sparse where a bfloat16 table is large."""
    return _Lookup.apply(table, ids)


def linear(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[T, I] → [T, O]; weight [O, I]."""
    return _Linear.apply(hidden, weight, bias)


def feed_forward(
    hidden: Tensor, expand: tuple[Tensor, Tensor], contract: tuple[Tensor, Tensor], *, recomputes: bool = False
) -> Tensor:
    """[T, H] → [T, H]: two matrices (weight, bias) with GELU between them, which may be computed again backward."""
    return _FeedForward.apply(hidden, *expand, *contract, recomputes)


def attention(stacked: Tensor, attn_mask: Tensor, dropout: float, *, recomputes: bool = False) -> Tensor:
    """Queries, keys and values [B, S, 3, A, D] → contexts [B, S, A · D].

    Args:
        visible: float32 [B, 1 or S, S], 0 where a token may be looked at and −inf elsewhere.
        recomputes: compute the weights again in the backward pass rather than keep them.
    """
    return _Attention.apply(stacked, attn_mask, new_dropout(dropout), recomputes)


def add_norm(branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float, dropout: float) -> Tensor:
    """Layer norm of residual + dropout of branch, all [T, H]; weight and bias [H]."""
    return _AddNorm.apply(branch, residual, weight, bias, epsilon, new_dropout(dropout))


def drop(values: Tensor, dropout: float) -> Tensor:
    """Dropout of any shape."""
    return values if dropout == 0 else _Drop.apply(values, new_dropout(dropout))


def word_losses(hidden: Tensor, embedding: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropies of M masked words, and how many were guessed right.

    Args:
        hidden: [M, H]; `embedding` [V, H]; `bias` [V]; `labels` int64 [M].

    Returns:
        A float32 loss with a gradient, and an int64 count.
    """
    return _WordLosses.apply(hidden, embedding, bias, labels)


def _taken(ctx: Any, saved: Tensor) -> Tensor:
    """A saved tensor that the gradients overwrite, which can happen only once."""
    if getattr(ctx, "taken", False):
        raise RuntimeError("these gradients can be computed only once: run the forward pass again")
    ctx.taken = True
    return saved


class _Lookup(Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape = table.shape
        return functional.embedding(ids, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (ids,) = ctx.saved_tensors
        rows, width = ctx.shape
        grad = grad.contiguous()
        if rows < _SPARSE_ROWS_AT_LEAST or grad.dtype != torch.bfloat16:
            sums = torch.zeros(rows, width).index_add_(0, ids.flatten(), grad.view(-1, width).float())
            return sums.to(grad.dtype), None
        known, places = ids.unique(return_inverse=True)
        sums = torch.zeros(len(known), width).index_add_(0, places.flatten(), grad.flatten(0, 1).float())
        values = sums.to(grad.dtype)
        sparse = torch.sparse_coo_tensor(known[None], values, ctx.shape, is_coalesced=True, check_invariants=False)
        return sparse, None


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return functional.linear(hidden, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden, weight = ctx.saved_tensors
        grad = grad.contiguous()
        return grad @ weight, weight_gradient(grad, hidden), column_sums(grad)


class _FeedForward(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, recomputes: bool
    ) -> Tensor:
        before = functional.linear(hidden, weight1, bias1)
        after = _gelu(before)
        ctx.save_for_backward(hidden, before, None if recomputes else after, weight1, weight2)
        return functional.linear(after, weight2, bias2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden, before, after, weight1, weight2 = ctx.saved_tensors
        grad = grad.contiguous()
        after = _gelu(before) if after is None else after
        d_weight2, d_bias2 = weight_gradient(grad, after), column_sums(grad)
        inner = grad @ weight2
        source, bits = as_array(before), as_array(inner)

        def work(begin: int, end: int) -> NDArray[np.float32]:
            sums = np.zeros(bits.shape[1], np.float32)
            loops.gelu_backward(source, bits, sums, begin, end)
            return sums

        d_bias1 = rounded(shared(len(bits), work), grad.dtype)
        return inner @ weight1, weight_gradient(inner, hidden), d_bias1, d_weight2, d_bias2, None


def _gelu(before: Tensor) -> Tensor:
    after = torch.empty_like(before)
    source, target = as_array(before), as_array(after)
    shared(len(before), lambda begin, end: loops.gelu(source, target, begin, end))
    return after


class _Attention(Function):
    @staticmethod
    def forward(ctx: Any, stacked: Tensor, attn_mask: Tensor, dropout: Dropout, recomputes: bool) -> Tensor:
        batch, length, kinds, heads, width = stacked.shape
        parted = torch.empty(kinds, batch, heads, length, width, dtype=stacked.dtype)
        source, target = as_array(stacked.contiguous()), as_array(parted)
        shared(batch, lambda begin, end: loops.part_heads(source, target, begin, end))
        weights, dropped = _attention_weights(parted, attn_mask, dropout)
        context = torch.bmm(dropped.flatten(0, 1), parted[2].flatten(0, 1))
        ctx.save_for_backward(parted, attn_mask, None if recomputes else weights)
        ctx.dropout = dropout
        return _joined(context.view(1, batch, heads, length, width)).view(batch, length, heads * width)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        parted, attn_mask, weights = ctx.saved_tensors
        _, batch, heads, length, width = parted.shape
        d_context = torch.empty(1, batch, heads, length, width, dtype=grad.dtype)
        source, target = as_array(grad.contiguous()).reshape(batch, length, 1, heads, width), as_array(d_context)
        shared(batch, lambda begin, end: loops.part_heads(source, target, begin, end))
        d_context = d_context[0].flatten(0, 1)
        query, key, value = (part.flatten(0, 1) for part in parted)
        if weights is None:
            dropped, _ = _attention_weights(parted, attn_mask, ctx.dropout)
        else:
            dropped = _taken(ctx, weights)
        d_scores = torch.bmm(d_context, value.transpose(1, 2)).view_as(dropped)
        before, d_before, scale = as_array(dropped), as_array(d_scores), np.float32(width**-0.5)
        shared(batch, lambda a, b: loops.softmax_backward(before, d_before, scale, ctx.dropout, a, b))
        d_scores = d_scores.flatten(0, 1)
        gradients = torch.empty_like(parted)
        flat = gradients.flatten(1, 2)
        torch.bmm(d_scores, key, out=flat[0])
        torch.bmm(d_scores.transpose(1, 2), query, out=flat[1])
        torch.bmm(dropped.flatten(0, 1).transpose(1, 2), d_context, out=flat[2])
        return _joined(gradients), None, None, None


def _attention_weights(parted: Tensor, attn_mask: Tensor, dropout: Dropout) -> tuple[Tensor, Tensor]:
    """[3, B, A, S, D] → weights [B, A, S, S], and the same with dropout."""
    _, batch, heads, length, width = parted.shape
    query, key = (part.flatten(0, 1) for part in parted[:2])
    scores = torch.bmm(query, key.transpose(1, 2)).view(batch, heads, length, length)
    dropped = torch.empty_like(scores)
    seen, scale = as_floats(attn_mask), np.float32(width**-0.5)
    weights, out = as_array(scores), as_array(dropped)
    shared(batch, lambda begin, end: loops.softmax(weights, seen, scale, dropout, out, begin, end))
    return scores, dropped


def _joined(parted: Tensor) -> Tensor:
    """[K, B, A, S, D] → [B, S, K, A, D]."""
    kinds, batch, heads, length, width = parted.shape
    stacked = torch.empty(batch, length, kinds, heads, width, dtype=parted.dtype)
    source, target = as_array(parted), as_array(stacked)
    shared(batch, lambda begin, end: loops.join_heads(source, target, begin, end))
    return stacked


class _AddNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float, dropout: Dropout
    ) -> Tensor:
        rows = branch.shape[0]
        out, unit = torch.empty_like(branch), torch.empty_like(branch)
        root = torch.empty(rows)
        arrays = (
            as_array(branch),
            as_array(residual),
            as_floats(weight),
            as_floats(bias),
            np.float32(epsilon),
            dropout,
        )
        targets = (as_array(unit), root.numpy(), as_array(out))
        shared(rows, lambda begin, end: loops.add_norm(*arrays, *targets, begin, end))
        ctx.save_for_backward(unit, root, weight)
        ctx.dropout = dropout
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        unit, root, weight = ctx.saved_tensors
        grad = grad.contiguous()
        d_branch, d_residual = torch.empty_like(grad), torch.empty_like(grad)
        arrays = (as_array(grad), as_array(unit), root.numpy(), as_floats(weight), ctx.dropout)
        targets = (as_array(d_branch), as_array(d_residual))

        def work(begin: int, end: int) -> NDArray[np.float32]:
            sums = np.zeros((2, grad.shape[1]), np.float32)
            loops.add_norm_backward(*arrays, *targets, sums[0], sums[1], begin, end)
            return sums

        d_weight, d_bias = rounded(shared(len(grad), work), grad.dtype)
        return d_branch, d_residual, d_weight, d_bias, None, None


class _Drop(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, dropout: Dropout) -> Tensor:
        ctx.dropout = dropout
        return _dropped(values, dropout)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _dropped(grad.contiguous(), ctx.dropout), None


def _dropped(values: Tensor, dropout: Dropout) -> Tensor:
    out = torch.empty_like(values)
    source, target = as_array(values).reshape(-1), as_array(out).reshape(-1)
    shared(len(source), lambda begin, end: loops.drop(source, target, dropout, begin, end))
    return out


class _WordLosses(Function):
    """Scores are held turned, [V, M]: so both products with the embedding, forward and for its gradient, run at full
    rate, and the exponentials are taken once, each stripe of the vocabulary relative to its own largest score."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        words, count = embedding.shape[0], hidden.shape[0]
        # A few sizes that come again and again leave the allocator no holes.
        room = -count % _MASKED_WORDS_MULTIPLE
        hidden = functional.pad(hidden, (0, 0, 0, room))
        scores = functional.linear(embedding, hidden)
        biases = bias.detach().float()
        of_labels = scores[labels, torch.arange(count)].float() + biases[labels]
        most, sums = torch.empty(2, -(-words // loops.STRIPE), count + room)
        bits, known = as_array(scores), as_floats(bias)
        shared(count + room, lambda begin, end: loops.word_losses(bits, known, most.numpy(), sums.numpy(), begin, end))
        largest = most.amax(0)
        total = largest + (sums * (most - largest).exp()).sum(0).log()
        factors = (most - total).exp()
        factors[:, count:] = 0
        ctx.save_for_backward(hidden, embedding, scores, factors, functional.pad(labels, (0, room), value=-1))
        ctx.count = count
        correct = (of_labels >= largest[:count]).sum()
        ctx.mark_non_differentiable(correct)
        return (total[:count] - of_labels).sum(), correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        hidden, embedding, scores, factors, labels = ctx.saved_tensors
        words = embedding.shape[0]
        d_bias = torch.empty(words)
        places = labels.int().numpy()
        gradients = _taken(ctx, scores)
        bits = as_array(gradients)
        arrays = (bits, factors.numpy(), places, d_bias.numpy())
        shared(len(factors), lambda begin, end: loops.word_gradients(*arrays, begin, end))
        scaled = (hidden * grad).contiguous()
        d_embedding = gradients @ scaled
        d_hidden = ((gradients.t() @ embedding) * grad)[: ctx.count]
        return d_hidden.to(hidden.dtype), d_embedding, (d_bias * grad).to(hidden.dtype), None
