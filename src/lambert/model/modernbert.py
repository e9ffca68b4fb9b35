"""The ModernBERT encoder as published (Warner et al. 2024, arXiv 2412.13663): the parts in which it is not BERT.

Rotary positions, layer norms before each sublayer, no biases, GeGLU, no segments, and local attention in all layers but
every third.

Shapes: B sequences, S tokens in each, T real tokens, H hidden size, A attention heads, D = H / A, F feed-forward size.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from lambert.errors import UserError
from lambert.model.attention import HAS_WINDOWS, Rows
from lambert.model.bert import BertConfig, Encoder, FusedLinear
from lambert.model.ops import select_ops
from lambert.model.unpadding import Unpadded

_KEPT_MULTIPLE = 64


@dataclass(frozen=True)
class ModernBertConfig(BertConfig):
    """The size of a ModernBERT. Defaults are the published ones; `segment_types` is 1."""

    maximum_positions: int = 8_192
    segment_types: int = 1
    dropout: float = 0.0
    """Probability of dropping an element of the embeddings, or inside a feed-forward layer; that of attention weights
    is also that of attention's output."""
    layer_norm_epsilon: float = 1e-5
    classifier_dropout: float | None = 0.0
    global_every: int = 3
    """Every so many layers, from the first on, a token attends to all tokens; in the others to its window."""
    local_window: int = 128
    """Tokens in the window: half of them on either side."""
    global_rotary_base: float = 160_000.0
    local_rotary_base: float = 10_000.0

    has_biases: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segment_types != 1:
            raise UserError(f"model segment_types = {self.segment_types}", remedy="ModernBERT has 1")
        for name in ("global_every", "local_window"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"model {name} = {value}", remedy="Give a whole number from 1")
        # Beyond the layers there is nothing to tell apart; `layer_types` of a folder does not.
        object.__setattr__(self, "global_every", min(self.global_every, self.layers))
        for name in ("global_rotary_base", "local_rotary_base"):
            value = getattr(self, name)
            if not 1 < value < math.inf:
                raise UserError(f"model {name} = {value}", remedy="Give a number above 1")
        if self.hidden_size // self.attention_heads % 2:
            raise UserError(
                f"attention heads of {self.hidden_size // self.attention_heads} units",
                remedy="Rotary positions need an even number",
            )

    def is_global(self, layer: int) -> bool:
        """Whether layer `layer`, from 0, attends to all tokens."""
        return layer % self.global_every == 0


def layer_norm(config: BertConfig) -> nn.LayerNorm:
    """Without a bias."""
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon, bias=False)


class Embeddings(nn.Module):
    """Word vectors, normalized: [*] ids → [*, H]."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.layer_norm = layer_norm(config)
        self.dropout_p = config.dropout

    def forward(self, token_ids: Tensor) -> Tensor:
        ops = select_ops(self.word.weight)
        _, normalized = ops.norm(
            ops.embedding(token_ids, self.word.weight), self.layer_norm.weight, self.layer_norm.eps
        )
        return ops.dropout(normalized, self.dropout_p if self.training else 0.0)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions and residual: [B, S, H] → [B, S, H].

    Of real tokens only: [T, H] → [T, H].

    Args:
        is_first: the first layer has no layer norm of its own, since the embeddings end with one.
    """

    def __init__(self, config: ModernBertConfig, *, is_first: bool) -> None:
        super().__init__()
        self.heads = config.attention_heads
        self.layer_norm = nn.Identity() if is_first else layer_norm(config)
        self.query_key_value = FusedLinear(config.hidden_size, config.hidden_size, layers=3, bias=False)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.dropout_p = config.dropout if config.attention_dropout is None else config.attention_dropout
        self.checkpoint_attention = False
        """Whether the backward pass recomputes the attention weights."""

    def forward(
        self, hidden: Tensor, rows: Rows, rotation: tuple[Tensor, Tensor], kept: Tensor | None = None
    ) -> Tensor:
        """`rows` as in `Ops.attention`; `rotation` from `rotations`; `kept` as in `Encoder.run_blocks`."""
        ops, p = select_ops(self.output.weight), self.dropout_p if self.training else 0.0
        normalized = hidden
        if isinstance(self.layer_norm, nn.LayerNorm):
            hidden, normalized = ops.norm(hidden, self.layer_norm.weight, self.layer_norm.eps)
        qkv = ops.linear(normalized, self.query_key_value.weight)
        checkpoint = self.checkpoint_attention
        context = ops.attention(qkv, self.heads, rows, p, checkpoint=checkpoint, rotation=rotation)
        if kept is not None:
            hidden, context = (each.flatten(0, -2).index_select(0, kept) for each in (hidden, context))
        return hidden + ops.dropout(ops.linear(context, self.output.weight), p)


class FeedForward(nn.Module):
    """GeGLU (Shazeer 2020, arXiv 2002.05202) with residual: [*, H] → [*, H]."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.layer_norm = layer_norm(config)
        self.expand = FusedLinear(config.hidden_size, config.feed_forward_size, layers=2, bias=False)
        self.contract = nn.Linear(config.feed_forward_size, config.hidden_size, bias=False)
        self.dropout_p = config.dropout
        self.checkpoint_ffn = False
        """Whether the backward pass recomputes the product."""

    def forward(self, hidden: Tensor) -> Tensor:
        ops, norm, p = select_ops(self.expand.weight), self.layer_norm, self.dropout_p if self.training else 0.0
        hidden, normalized = ops.norm(hidden, norm.weight, norm.eps)
        weights = self.expand.weight, self.contract.weight
        return hidden + ops.geglu(normalized, *weights, p, checkpoint=self.checkpoint_ffn)


class Block(nn.Module):
    """One transformer layer: attention, then feed-forward."""

    def __init__(self, config: ModernBertConfig, *, is_first: bool) -> None:
        super().__init__()
        self.attention = Attention(config, is_first=is_first)
        self.feed_forward = FeedForward(config)

    def forward(
        self, hidden: Tensor, rows: Rows, rotation: tuple[Tensor, Tensor], kept: Tensor | None = None
    ) -> Tensor:
        """As `Attention.forward`."""
        result: Tensor = self.feed_forward(self.attention(hidden, rows, rotation, kept))
        return result


class ModernBertModel(Encoder):
    """The encoder: token ids [B, S] and an attention mask [B, S] → hidden states [B, S, H]."""

    config: ModernBertConfig

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(Block(config, is_first=layer == 0) for layer in range(config.layers))
        self.final_norm = layer_norm(config)

    def embed(self, token_ids: Tensor, segment_ids: Tensor, position_ids: Tensor) -> Tensor:
        """The input of the first block; segments and positions have no part in it."""
        embedded: Tensor = self.embeddings(token_ids)
        return embedded

    def run_blocks(
        self, hidden: Tensor, rows: Rows, position_ids: Tensor, mask: Tensor | None, kept: Tensor | None
    ) -> Tensor:
        """As `Encoder.run_blocks`. Behind its attention, the last block computes the kept tokens only."""
        config = self.config
        local = self._local_rows(hidden, rows, mask)
        width = config.hidden_size // config.attention_heads
        everywhere = rows, rotations(position_ids, width, config.global_rotary_base)
        nearby = local, rotations(position_ids, width, config.local_rotary_base)
        # Few different sizes: oneDNN compiles a matmul for each.
        padded = None if kept is None else functional.pad(kept, (0, -len(kept) % _KEPT_MULTIPLE))
        for layer, block in enumerate(self.blocks):
            where = everywhere if config.is_global(layer) else nearby
            hidden = self.run_block(block, hidden, *where, padded if layer == config.layers - 1 else None)
        weight = self.final_norm.weight
        normalized = select_ops(weight).norm(hidden, weight, self.final_norm.eps)[1]
        return normalized if kept is None else normalized[: len(kept)]

    def _unpad(self, attention_mask: Tensor | None, real_tokens: int | None) -> Unpadded | None:
        if not (self.embeddings.word.weight.device.type == "cpu" or HAS_WINDOWS):
            return None
        return super()._unpad(attention_mask, real_tokens)

    def _local_rows(self, hidden: Tensor, rows: Rows, mask: Tensor | None) -> Rows:
        """`rows` for layers in which a token attends to its window only."""
        reach = self.config.local_window // 2
        if isinstance(rows, Unpadded):
            return rows._replace(reach=reach)
        length = hidden.shape[1]
        if length <= reach + 1:
            return rows
        window = band(length, reach, hidden.device)[None, None]
        return select_ops(self.embeddings.word.weight).attention_bias(window if mask is None else mask & window, hidden)


@functools.lru_cache(maxsize=16)
def band(length: int, reach: int, device: torch.device) -> Tensor:
    """bool [S, S], True where two tokens of a row are at most `reach` apart."""
    places = torch.arange(length, device=device)
    return (places[:, None] - places).abs() <= reach


def rotations(position_ids: Tensor, width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines float32 [*, 1, D / 2] of the angles of rotary positions (Su et al. 2021, arXiv 2104.09864).

    Args:
        position_ids: integers [*]: [T], [S] or [B, S].
        width: D.
    """
    steps = torch.arange(0, width, 2, dtype=torch.float32, device=position_ids.device) / width
    angles = position_ids[..., None, None].float() * (1.0 / base**steps)
    return angles.cos(), angles.sin()


def initialise(module: nn.Module, config: ModernBertConfig) -> None:
    """ModernBERT's initialization in place: normal matrices cut at two deviations; those that end a sublayer, and the
    head's, narrower by √(2 · layers)."""
    for name, part in module.named_modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            std = config.initializer_range
            if name.endswith((".output", ".contract", ".transform", ".decoder")):
                std /= math.sqrt(2 * config.layers)
            elif not name.startswith("encoder."):
                std = config.hidden_size**-0.5
            nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
