"""The BERT encoder as published (Devlin et al. 2018, arXiv 1810.04805): post-layer-norm, learned positions, GELU.

Shapes: B sequences, S tokens in each, H hidden size, A attention heads, D = H / A, F feed-forward size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lambert.errors import UserError
from lambert.model.cpu import encoder as cpu

ACTIVATION_CHECKPOINTING = ("none", "selective", "full")
"""What is computed again in the backward pass rather than kept: nothing; attention weights and what GELU makes, which
take much room and little time (Korthikanti et al. 2022); or all of a block but its input."""

_LARGEST_SIZE = 2**24
_MOST_LAYERS = 1_000
_SIZES = (
    *("vocabulary_size", "layers", "hidden_size", "attention_heads", "feed_forward_size"),
    *("maximum_positions", "segment_types"),
)


@dataclass(frozen=True)
class BertConfig:
    """The size of a BERT and the numbers fixed at its birth."""

    vocabulary_size: int
    """Entries of the WordPiece vocabulary."""
    layers: int
    """Transformer blocks."""
    hidden_size: int
    """H, width of every token vector."""
    attention_heads: int
    """A, which divides H."""
    feed_forward_size: int
    """F, width between the two feed-forward matrices; 4 · H in every published size."""
    maximum_positions: int = 512
    """Longest sequence in tokens."""
    segment_types: int = 2
    """Sentence A and sentence B."""
    dropout: float = 0.1
    """Probability of dropping a hidden unit or an attention weight while training."""
    layer_norm_epsilon: float = 1e-12
    """Added to the variance under the root in every layer norm."""
    initializer_range: float = 0.02
    """Standard deviation of the truncated normal that matrices and embeddings start from."""
    pad_token_id: int = 0
    """Id of [PAD]."""

    def __post_init__(self) -> None:
        for field in _SIZES:
            value = getattr(self, field)
            if not isinstance(value, int) or not 1 <= value <= _LARGEST_SIZE:
                raise UserError(
                    f"model {field} = {value}",
                    remedy=f"Give a whole number from 1 to {_LARGEST_SIZE:,}",
                )
        if self.layers > _MOST_LAYERS:
            raise UserError(f"model layers = {self.layers}", remedy=f"Give at most {_MOST_LAYERS:,}")
        if self.hidden_size % self.attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of attention_heads {self.attention_heads}",
                remedy="Choose a hidden size that is a multiple of 64, BERT's width of a head",
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout = {self.dropout}", remedy="Give a probability from 0 to below 1")


class Embeddings(nn.Module):
    """Word + position + segment vectors, normalised: [B, S] ids → [B, S, H]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.position = nn.Embedding(config.maximum_positions, config.hidden_size)
        self.segment = nn.Embedding(config.segment_types, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, token_ids: Tensor, segment_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        if position_ids is None:
            position_ids = torch.arange(token_ids.shape[1], device=token_ids.device)
        if cpu.applies_to(self.word.weight):
            return cpu.embed(self, token_ids, segment_ids, position_ids)
        summed = self.word(token_ids) + self.segment(segment_ids) + self.position(position_ids)
        normalised: Tensor = self.dropout(self.layer_norm(summed))
        return normalised


class FusedLinear(nn.Linear):
    """Several layers of one input in one product: [*, I] → [*, layers · O], one layer's outputs behind another's."""

    def __init__(self, inputs: int, outputs: int, *, layers: int) -> None:
        super().__init__(inputs, layers * outputs)
        self.param_slices = {"weight": (0, (outputs,) * layers)}
        """Which parameters hold several layers, along which dimension and of which sizes; for layer-wise optimizers."""


class SelfAttention(nn.Module):
    """Multi-head attention with its residual and layer norm: [B, S, H] → [B, S, H]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.attention_heads
        self.query_key_value = FusedLinear(config.hidden_size, config.hidden_size, layers=3)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.attention_dropout = config.dropout
        self.dropout = nn.Dropout(config.dropout)
        self.recomputes = False
        """Whether the weights of the tokens are computed again in the backward pass."""

    def _split(self, projected: Tensor) -> Tensor:
        """[B, S, H] → [B, A, S, D]."""
        batch, length, _ = projected.shape
        return projected.view(batch, length, self.heads, -1).transpose(1, 2)

    def forward(self, hidden: Tensor, attn_mask: Tensor | None) -> Tensor:
        """`visible` is [B, 1, 1 or S, S], True where a token may be looked at; None when every token may."""
        query, key, value = (self._split(part) for part in self.query_key_value(hidden).chunk(3, dim=-1))
        attend = functional.scaled_dot_product_attention
        probability = self.attention_dropout if self.training else 0.0
        context: Tensor = (
            checkpoint(attend, query, key, value, attn_mask, probability, use_reentrant=False)
            if self.recomputes
            else attend(query, key, value, attn_mask, probability)
        )
        projected = self.output(context.transpose(1, 2).flatten(2))
        normalised: Tensor = self.layer_norm(hidden + self.dropout(projected))
        return normalised


class FeedForward(nn.Module):
    """Two matrices with an exact GELU between them, residual and layer norm: [B, S, H] → [B, S, H]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.hidden_size, config.feed_forward_size)
        self.contract = nn.Linear(config.feed_forward_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)
        self.recomputes = False
        """Whether what GELU makes is computed again in the backward pass."""

    def forward(self, hidden: Tensor) -> Tensor:
        expanded = self.expand(hidden)
        contracted = (
            checkpoint(self._contracted, expanded, use_reentrant=False)
            if self.recomputes
            else self._contracted(expanded)
        )
        normalised: Tensor = self.layer_norm(hidden + self.dropout(contracted))
        return normalised

    def _contracted(self, expanded: Tensor) -> Tensor:
        contracted: Tensor = self.contract(functional.gelu(expanded))
        return contracted


class Block(nn.Module):
    """One transformer layer: attention, then feed-forward."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: Tensor, attn_mask: Tensor | None) -> Tensor:
        if cpu.applies_to(self.attention.output.weight):
            return cpu.run_block(self, hidden, attn_mask)
        result: Tensor = self.feed_forward(self.attention(hidden, attn_mask))
        return result


class BertModel(nn.Module):
    """The encoder: token and segment ids [B, S] and an attention mask [B, S] → hidden states [B, S, H]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self._recomputes_blocks = False

    def checkpoint_activations(self, kind: str) -> None:
        """What the backward pass computes again rather than keeps, one of `ACTIVATION_CHECKPOINTING`.

        It changes no loss and no gradient, dropout included.
        """
        assert kind in ACTIVATION_CHECKPOINTING
        self._recomputes_blocks = kind == "full"
        for part in self.modules():
            if isinstance(part, SelfAttention | FeedForward):
                part.recomputes = kind == "selective"

    def forward(
        self,
        token_ids: Tensor,
        segment_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None = None,
        sequence_ids: Tensor | None = None,
    ) -> Tensor:
        """Hidden states.

        Args:
            attention_mask: [B, S], True at real tokens; None says that no sequence is padded, or that rows are packed.
            position_ids: [B, S] place of each token in its sequence; 0, 1, 2, … along the row when None.
            sequence_ids: [B, S] which of several sequences in a row a token belongs to; each attends to itself alone.
        """
        attn_mask = None if attention_mask is None else attention_mask[:, None, None, :]
        if sequence_ids is not None:
            attn_mask = sequence_ids[:, None, :, None] == sequence_ids[:, None, None, :]
        hidden: Tensor = self.embeddings(token_ids, segment_ids, position_ids)
        for block in self.blocks:
            if self._recomputes_blocks and torch.is_grad_enabled():
                hidden = checkpoint(block, hidden, attn_mask, use_reentrant=False)
            else:
                hidden = block(hidden, attn_mask)
        return hidden


def initialise(module: nn.Module, config: BertConfig) -> None:
    """BERT's initialisation in place: truncated normal matrices, zero biases, unit layer norms."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            std = config.initializer_range
            nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
