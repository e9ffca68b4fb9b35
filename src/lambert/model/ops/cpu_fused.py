"""The operations of `Ops` for training on CPUs, in bfloat16 or float32: autograd functions around the kernels.

Matmuls are PyTorch's; everything between them is one kernel (`cpu_kernels`). Shapes: as in `ops`;
K = 3 for queries, keys and values, D = H / A.
"""

# torch.autograd.Function is not typed.
# mypy: disable-error-code="no-untyped-call,misc,no-any-return"
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from lambert.model import unpadding
from lambert.model.ops import cpu_kernels
from lambert.model.ops.cpu_arrays import (
    DropoutRNG,
    as_array,
    as_floats,
    column_sums,
    new_dropout,
    overwritable,
    run,
    run_with_sums,
    transposed_matmul,
    weight_gradient,
)
from lambert.model.ops.cpu_attention import attention, attention_bias
from lambert.model.unpadding import Unpadded

__all__ = [
    "add_norm",
    "attention",
    "attention_bias",
    "dropout",
    "embedding",
    "feed_forward",
    "geglu",
    "linear",
    "mlm_cross_entropy",
    "norm",
    "unpad",
]

_MIN_SPARSE_ROWS = 1_024
"""bfloat16 embeddings of so many rows get a sparse gradient, cheap to add to the tied decoder's dense one."""
_TOKENS_MULTIPLE = 64
"""Real and masked tokens are padded to a multiple of this: few different sizes leave the allocator no holes, and oneDNN
few matmuls to compile."""


def embedding(input: Tensor, weight: Tensor) -> Tensor:
    """As `Ops.embedding`; the gradient is summed in float32, and sparse where a bfloat16 table is large."""
    return _Embedding.apply(input, weight)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
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


def feed_forward(
    hidden: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, *, checkpoint: bool
) -> Tensor:
    """As `Ops.feed_forward`."""
    rows = hidden.flatten(0, -2)
    return _FeedForward.apply(rows, weight1, bias1, weight2, bias2, checkpoint).view(*hidden.shape[:-1], -1)


def geglu(hidden: Tensor, weight1: Tensor, weight2: Tensor, dropout_p: float, *, checkpoint: bool) -> Tensor:
    """As `Ops.geglu`. The product is always recomputed, at no cost; backward may run only once."""
    rows = hidden.flatten(0, -2)
    return _GeGLU.apply(rows, weight1, weight2, new_dropout(dropout_p)).view(*hidden.shape[:-1], -1)


def norm(hidden: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """As `Ops.norm`."""
    residual, normalized = _Norm.apply(hidden.flatten(0, -2), weight, eps)
    return residual.view(hidden.shape), normalized.view(hidden.shape)


def add_norm(branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, dropout_p: float) -> Tensor:
    """As `Ops.add_norm`."""
    rows = branch.flatten(0, -2), residual.flatten(0, -2)
    return _AddNorm.apply(*rows, weight, bias, eps, new_dropout(dropout_p)).view(residual.shape)


def mlm_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `Ops.mlm_cross_entropy`. Backward may run only once."""
    return _MLMCrossEntropy.apply(hidden, weight, bias, labels)


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
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.has_bias = bias is not None
        return functional.linear(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        grad = grad.contiguous()
        return grad @ weight, weight_gradient(grad, input), column_sums(grad) if ctx.has_bias else None


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


class _GeGLU(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight1: Tensor, weight2: Tensor, rng: DropoutRNG) -> Tensor:
        expanded = functional.linear(hidden, weight1)
        product = expanded.new_empty(len(expanded), weight2.shape[1])
        run(cpu_kernels.geglu, len(expanded), as_array(expanded), rng, as_array(product))
        ctx.save_for_backward(hidden, expanded, weight1, weight2)
        ctx.rng = rng
        return functional.linear(product, weight2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden, expanded, weight1, weight2 = ctx.saved_tensors
        grad, d_expanded = grad.contiguous(), overwritable(ctx, expanded)
        product = grad @ weight2  # so far its gradient
        run(cpu_kernels.geglu_backward, len(grad), as_array(d_expanded), ctx.rng, as_array(product))
        d_weights = weight_gradient(d_expanded, hidden), weight_gradient(grad, product)
        return d_expanded @ weight1, *d_weights, None


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        out, (mean, rstd) = torch.empty_like(hidden), torch.empty(2, len(hidden))
        inputs = as_array(hidden), as_floats(weight), np.float32(eps)
        run(cpu_kernels.norm, len(hidden), *inputs, mean.numpy(), rstd.numpy(), as_array(out))
        ctx.save_for_backward(hidden, mean, rstd, weight)
        return hidden, out

    @staticmethod
    def backward(ctx: Any, residual_grad: Tensor, grad: Tensor) -> Any:
        hidden, mean, rstd, weight = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden)
        gradients = as_array(grad.contiguous()), as_array(residual_grad.contiguous())
        saved = as_array(hidden), mean.numpy(), rstd.numpy(), as_floats(weight)
        (d_weight,) = run_with_sums(cpu_kernels.norm_backward, hidden, 1, *gradients, *saved, as_array(d_hidden))
        return d_hidden, d_weight, None


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
        d_logits = overwritable(ctx, exponentials)
        arrays = as_array(d_logits), chunk_scale.numpy(), labels.int().numpy(), d_bias.numpy()
        run(cpu_kernels.mlm_softmax_backward, len(chunk_scale), *arrays)
        d_weight = d_logits @ (hidden * grad).contiguous()
        d_hidden = (transposed_matmul(d_logits, weight) * grad)[: ctx.count]
        return d_hidden.to(hidden.dtype), d_weight, (d_bias * grad).to(hidden.dtype), None
