"""The operations that blocks are made of, and the one place that chooses who computes them.

`eager` is plain PyTorch: any device, any dtype, and the oracle of the tests. `cpu_fused` trains on CPUs: PyTorch's
matmuls with numba kernels between them, the same results but for rounding.

Shapes: B sequences, S tokens in each, T real tokens, H hidden size, A attention heads, F feed-forward size,
V vocabulary size, M masked tokens, * any leading dimensions.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from lambert.model.attention import Rows
from lambert.model.ops import eager
from lambert.model.unpadding import Unpadded

MIN_HIDDEN_SIZE = 128
"""Narrower models do not gain back the seconds that compiling takes."""


class Ops(Protocol):
    """What each implementation offers. Every operation has gradients for its floating-point tensors."""

    def embedding(self, input: Tensor, weight: Tensor) -> Tensor:
        """Rows [*, H] of weight [V, H]; input holds integers [*]."""

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """[*, I] → [*, O]; weight [O, I]."""

    def dropout(self, input: Tensor, p: float) -> Tensor:
        """Each element is 0 with probability p, else divided by 1 − p."""

    def unpad(
        self, attention_mask: Tensor, weight: Tensor, heads: int, dropout_p: float, real_tokens: int | None
    ) -> Unpadded | None:
        """The real tokens of padded rows, if they alone are to be computed; else None.

        Args:
            attention_mask: bool [B, S], True at real tokens.
            weight: [*, H] of a layer of the model.
            dropout_p: that of the attention weights.
            real_tokens: how many there are, where the host knows.
        """

    def attention_bias(self, attn_mask: Tensor, hidden: Tensor) -> Tensor:
        """What `attention` adds to the scores, made once for all blocks.

        Args:
            attn_mask: bool [B, 1, 1 or S, S], True where a token may attend.
            hidden: [B, S, H], the input of the first block.
        """

    def attention(
        self,
        qkv: Tensor,
        heads: int,
        rows: Rows,
        dropout_p: float,
        *,
        checkpoint: bool,
        rotation: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Scaled dot-product attention: queries, keys and values [B, S, 3 · H] → contexts [B, S, H].

        Args:
            rows: the result of `attention_bias`; or, for qkv [T, 3 · H] → [T, H], where the tokens stand; or None when
                every token may attend everywhere in its row.
            checkpoint: recompute the attention weights in the backward pass instead of keeping them.
            rotation: of rotary positions, as in `attention.rotate`.
        """

    def feed_forward(
        self, hidden: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, *, checkpoint: bool
    ) -> Tensor:
        """GELU between two linear maps: [*, H] → [*, H]; weights [F, H] and [H, F].

        Args:
            checkpoint: recompute the output of GELU in the backward pass instead of keeping it.
        """

    def geglu(self, hidden: Tensor, weight1: Tensor, weight2: Tensor, dropout_p: float, *, checkpoint: bool) -> Tensor:
        """GELU of one linear map times another, dropout, and a third: [*, H] → [*, H].

        Args:
            weight1: [2 · F, H], that of the GELU first; weight2 [H, F].
            checkpoint: recompute the product in the backward pass instead of keeping it.
        """

    def norm(self, hidden: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """`hidden` [*, H] itself and its layer norm without a bias; weight [H].

        With both from here, the gradients of a residual connection and of the branch that it bypasses are added in one.
        """

    def add_norm(
        self, branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float, dropout_p: float
    ) -> Tensor:
        """LayerNorm(residual + dropout(branch)), all [*, H]; weight and bias [H]."""

    def mlm_cross_entropy(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy of the MLM logits `hidden · weightᵀ + bias`, and which predictions are correct.

        Args:
            hidden: [M, H]; weight [V, H]; bias [V]; labels int64 [M], for `eager` −100 where a token does not count.

        Returns:
            The float32 sum over the M tokens, in nats; without gradients, its terms [M] and bool [M].
        """


@lru_cache(maxsize=1)
def has_numba() -> bool:
    """Whether numba, which compiles the fused kernels, is installed."""
    return importlib.util.find_spec("numba") is not None


def why_eager(device: str, hidden_size: int, *, autocast: bool) -> str | None:
    """Why a model of this size trains with `eager` on a device type; None when it trains with `cpu_fused`."""
    if device != "cpu":
        return f"the fused kernels are for CPUs, this is {device}"
    if autocast:
        return "the fused kernels do not run under autocast"
    if hidden_size < MIN_HIDDEN_SIZE:
        return f"the fused kernels pay from a hidden size of {MIN_HIDDEN_SIZE}"
    return None if has_numba() else "the fused kernels need numba"


def select_ops(weight: Tensor) -> Ops:
    """The implementation for a layer with such a weight [*, H], here and now.

    Without gradients it is always `eager`: evaluation and inference need no compiling.
    """
    fits = torch.is_grad_enabled() and weight.dtype in (torch.bfloat16, torch.float32)
    autocast = torch.is_autocast_enabled("cpu")
    if not fits or why_eager(weight.device.type, weight.shape[-1], autocast=autocast) is not None:
        return eager
    from lambert.model.ops import cpu_fused  # numba takes a second to import

    return cpu_fused
