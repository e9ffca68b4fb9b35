"""The operations of `Ops` in plain PyTorch; what they share with `torch.nn.functional` is taken from there."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import dropout, embedding, linear
from torch.utils import checkpoint as activation_checkpoint

from lambert.model.attention import attention, attention_bias, unpad

_VOCABULARY_MULTIPLE = 64

__all__ = [
    "add_norm",
    "aligned_vocabulary",
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


def feed_forward(
    hidden: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, *, checkpoint: bool
) -> Tensor:
    """As `Ops.feed_forward`."""
    expanded = linear(hidden, weight1, bias1)
    if not checkpoint:
        return _contract(expanded, weight2, bias2)
    contracted: Tensor = activation_checkpoint.checkpoint(_contract, expanded, weight2, bias2, use_reentrant=False)
    return contracted


def _contract(expanded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return linear(functional.gelu(expanded), weight, bias)


def geglu(hidden: Tensor, weight1: Tensor, weight2: Tensor, dropout_p: float, *, checkpoint: bool) -> Tensor:
    """As `Ops.geglu`."""
    expanded = linear(hidden, weight1)
    if not checkpoint:
        return _contract_product(expanded, weight2, dropout_p)
    contracted: Tensor = activation_checkpoint.checkpoint(
        _contract_product, expanded, weight2, dropout_p, use_reentrant=False
    )
    return contracted


def _contract_product(expanded: Tensor, weight: Tensor, dropout_p: float) -> Tensor:
    inner, gate = expanded.chunk(2, dim=-1)
    return linear(dropout(functional.gelu(inner) * gate, dropout_p), weight)


def norm(hidden: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """As `Ops.norm`."""
    return hidden, functional.layer_norm(hidden, weight.shape, weight, None, eps)


def add_norm(branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, dropout_p: float) -> Tensor:
    """As `Ops.add_norm`."""
    return functional.layer_norm(residual + dropout(branch, dropout_p), weight.shape, weight, bias, eps)


def mlm_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `Ops.mlm_cross_entropy`."""
    if hidden.device.type == "cuda":
        weight, bias = aligned_vocabulary(weight, bias)
    logits = linear(hidden, weight, bias)
    losses = functional.cross_entropy(logits.float(), labels, reduction="none")
    return losses.sum(), losses.detach(), logits.argmax(-1) == labels


def aligned_vocabulary(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [V, H] and bias [V] with V rounded up to a multiple of 64 by entries that no softmax gives a probability.

    BERT's 30,522 logits in bfloat16 break the alignment to 16 bytes that the fast matmuls of GPUs need. The gradients
    of `torch.cat` are views, so only the forward pass copies the weight.
    """
    more = -len(weight) % _VOCABULARY_MULTIPLE
    if not more:
        return weight, bias
    padding = weight.new_zeros(more, weight.shape[1]), bias.new_full((more,), -math.inf)
    return torch.cat((weight, padding[0])), torch.cat((bias, padding[1]))
