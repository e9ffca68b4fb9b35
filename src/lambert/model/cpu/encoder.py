"""BERT's encoder by the functions of this folder: the same weights, the same results but for rounding."""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lambert.model.bert import BertModel, Block, Embeddings


def has_loops() -> bool:
    """Whether numba, which compiles the loops, is installed."""
    return importlib.util.find_spec("numba") is not None


def applies_to(weight: Tensor) -> bool:
    """Whether a model with such weights takes this path: bfloat16 on the CPU, outside autocast, with numba."""
    fits = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    return fits and not torch.is_autocast_enabled("cpu") and has_loops()


def run_blocks(model: BertModel, embedded: Tensor, visible: Tensor | None) -> Tensor:
    """All blocks: [B, S, H] → [B, S, H]; `visible` as `SelfAttention.forward` takes it."""
    batch, length, _ = embedded.shape
    if visible is None:
        seen = torch.zeros(batch, 1, length)
    else:
        seen = torch.zeros(visible.squeeze(1).shape).masked_fill_(~visible.squeeze(1), -math.inf)
    hidden = embedded.flatten(0, 1)
    for block in model.blocks:
        hidden = _block(block, hidden, seen)  # type: ignore[arg-type]
    return hidden.view_as(embedded)


def embed(embeddings: Embeddings, token_ids: Tensor, segment_ids: Tensor, position_ids: Tensor) -> Tensor:
    """[B, S] ids → [B, S, H], as `Embeddings.forward`."""
    from lambert.model.cpu import functions

    summed = functions.lookup(embeddings.word.weight, token_ids)
    summed = summed + functions.lookup(embeddings.segment.weight, segment_ids)
    summed = summed + functions.lookup(embeddings.position.weight, position_ids)
    return functions.drop(embeddings.layer_norm(summed), embeddings.dropout.p if embeddings.training else 0.0)


def word_losses(hidden: Tensor, embedding: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`functions.word_losses`."""
    from lambert.model.cpu import functions

    return functions.word_losses(hidden, embedding, bias, labels)


def _block(block: Block, hidden: Tensor, visible: Tensor) -> Tensor:
    """One layer: [T, H] → [T, H]."""
    from lambert.model.cpu import functions

    attention, feed_forward = block.attention, block.feed_forward
    batch, length = visible.shape[0], visible.shape[2]
    dropout = attention.attention_dropout if block.training else 0.0
    projection, output = attention.query_key_value, attention.output
    stacked = functions.linear(hidden, projection.weight, projection.bias)
    context = functions.attention(stacked.view(batch, length, 3, attention.heads, -1), visible, dropout).flatten(0, 1)
    branch = functions.linear(context, output.weight, output.bias)
    norm = attention.layer_norm
    hidden = functions.add_norm(branch, hidden, norm.weight, norm.bias, norm.eps, dropout)
    expand, contract, norm = feed_forward.expand, feed_forward.contract, feed_forward.layer_norm
    branch = functions.feed_forward(hidden, (expand.weight, expand.bias), (contract.weight, contract.bias))
    return functions.add_norm(branch, hidden, norm.weight, norm.bias, norm.eps, dropout)
