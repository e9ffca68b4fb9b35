"""BERT's encoder by the functions of this folder: the same weights, the same results but for rounding."""

from __future__ import annotations

import importlib.util
import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lambert.model.bert import Block, Embeddings


LEAST_HIDDEN_SIZE = 128


@lru_cache(maxsize=1)
def has_loops() -> bool:
    """Whether numba, which compiles the loops, is installed."""
    return importlib.util.find_spec("numba") is not None


def applies_to(weight: Tensor) -> bool:
    """Whether a model with such weights [*, H] computes this way.

    It does where gradients are wanted, of float32 or bfloat16 on the CPU outside autocast, with numba, and from a
    hidden size on that makes up for the seconds of compiling.
    """
    fits = weight.device.type == "cpu" and weight.dtype in (torch.bfloat16, torch.float32)
    wanted = torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return fits and wanted and weight.shape[-1] >= LEAST_HIDDEN_SIZE and has_loops()


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


def run_block(block: Block, hidden: Tensor, attn_mask: Tensor | None) -> Tensor:
    """One layer: [B, S, H] → [B, S, H]; `visible` as `SelfAttention.forward` takes it."""
    from lambert.model.cpu import functions

    attention, feed_forward = block.attention, block.feed_forward
    batch, length, _ = hidden.shape
    seen = torch.zeros(batch, 1, length)
    if attn_mask is not None:
        seen = torch.zeros(attn_mask.squeeze(1).shape).masked_fill_(~attn_mask.squeeze(1), -math.inf)
    dropout = attention.attention_dropout if block.training else 0.0
    rows = hidden.flatten(0, 1)
    projection, output = attention.query_key_value, attention.output
    stacked = functions.linear(rows, projection.weight, projection.bias).view(batch, length, 3, attention.heads, -1)
    context = functions.attention(stacked, seen, dropout, recomputes=attention.recomputes).flatten(0, 1)
    branch = functions.linear(context, output.weight, output.bias)
    norm = attention.layer_norm
    rows = functions.add_norm(branch, rows, norm.weight, norm.bias, norm.eps, dropout)
    expand, contract, norm = feed_forward.expand, feed_forward.contract, feed_forward.layer_norm
    matrices = ((expand.weight, expand.bias), (contract.weight, contract.bias))
    branch = functions.feed_forward(rows, *matrices, recomputes=feed_forward.recomputes)
    return functions.add_norm(branch, rows, norm.weight, norm.bias, norm.eps, dropout).view_as(hidden)
