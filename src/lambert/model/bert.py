"""The BERT encoder as published (Devlin et al. 2018, arXiv 1810.04805): post-layer-norm, learned positions, GELU.

Shapes: B sequences, S tokens in each, H hidden size, A attention heads, D = H / A, F feed-forward size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lambert.errors import UserError
from lambert.model.attention import Rows
from lambert.model.ops import select_ops
from lambert.model.unpadding import Unpadded

ACTIVATION_CHECKPOINTING = ("none", "selective", "full")
"""What the backward pass recomputes instead of keeping: nothing; attention weights and GELU's outputs, which are large
and cheap (selective, Korthikanti et al. 2022); or everything in a block but its input."""

_LARGEST_SIZE = 2**24
_MOST_LAYERS = 1_000
_SIZES = (
    *("vocabulary_size", "layers", "hidden_size", "attention_heads", "feed_forward_size"),
    *("maximum_positions", "segment_types"),
)


@dataclass(frozen=True)
class BertConfig:
    """The size of a BERT and the hyperparameters fixed at construction."""

    vocabulary_size: int
    """Entries of the vocabulary."""
    layers: int
    """Transformer blocks."""
    hidden_size: int
    """H, the width of every token vector."""
    attention_heads: int
    """A, a divisor of H."""
    feed_forward_size: int
    """F, the width inside the feed-forward layers; 4 · H in every published size."""
    maximum_positions: int = 512
    """Longest sequence in tokens."""
    segment_types: int = 2
    """Sentence A and sentence B; with 1, both have the same."""
    dropout: float = 0.1
    """Probability of dropping a hidden unit or an attention weight while training."""
    attention_dropout: float | None = None
    """Probability for attention weights where it is another than for hidden units."""
    layer_norm_epsilon: float = 1e-12
    """Added to the variance in every layer norm."""
    initializer_range: float = 0.02
    """Standard deviation of the truncated normal that initializes matrices and embeddings."""
    pad_token_id: int = 0
    """Id of [PAD]."""
    tied_decoder: bool = True
    """Whether the MLM decoder is the word embedding, as in BERT."""
    classifier_dropout: float | None = None
    """Probability before the classifier of a sequence where it is another than for hidden units."""

    has_biases: ClassVar[bool] = True
    """Whether linear maps and layer norms have them."""

    def __post_init__(self) -> None:
        if self.attention_dropout == self.dropout:
            object.__setattr__(self, "attention_dropout", None)
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
                remedy="Choose a hidden size that is a multiple of 64, the width of BERT's heads",
            )
        for name, value in (
            ("initializer_range", self.initializer_range),
            ("layer_norm_epsilon", self.layer_norm_epsilon),
        ):
            if not 0 <= value < 1:  # nan too
                raise UserError(f"model {name} = {value}", remedy="Give a number from 0 to below 1")
        if not (isinstance(self.pad_token_id, int) and 0 <= self.pad_token_id < self.vocabulary_size):
            raise UserError(f"model pad_token_id = {self.pad_token_id}", remedy="Give the id of an entry")
        for name in ("dropout", "attention_dropout", "classifier_dropout"):
            probability = getattr(self, name)
            if probability is not None and not 0 <= probability < 1:
                raise UserError(f"{name} = {probability}", remedy="Give a probability from 0 to below 1")


class Embeddings(nn.Module):
    """Word + position + segment vectors, normalized: [*] ids → [*, H]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.position = nn.Embedding(config.maximum_positions, config.hidden_size)
        self.segment = nn.Embedding(config.segment_types, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.dropout_p = config.dropout

    def forward(self, token_ids: Tensor, segment_ids: Tensor, position_ids: Tensor) -> Tensor:
        ops = select_ops(self.word.weight)
        if self.segment.num_embeddings == 1:
            segment_ids = torch.zeros_like(segment_ids)
        summed = ops.embedding(token_ids, self.word.weight) + ops.embedding(segment_ids, self.segment.weight)
        summed = summed + ops.embedding(position_ids, self.position.weight)
        return ops.dropout(self.layer_norm(summed), self.dropout_p if self.training else 0.0)


class FusedLinear(nn.Linear):
    """Several linear layers with the same input in one matmul: [*, I] → [*, layers · O], their outputs concatenated."""

    def __init__(self, inputs: int, outputs: int, *, layers: int, bias: bool = True) -> None:
        super().__init__(inputs, layers * outputs, bias=bias)
        self.param_slices = {"weight": (0, (outputs,) * layers)}
        """Parameters that hold several layers: name → (dimension, sizes), for layer-wise optimizers."""


class SelfAttention(nn.Module):
    """Multi-head self-attention with residual and layer norm: [B, S, H] → [B, S, H].

    Of real tokens only: [T, H] → [T, H].
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.attention_heads
        self.query_key_value = FusedLinear(config.hidden_size, config.hidden_size, layers=3)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.dropout_p = config.dropout
        self.attention_dropout_p = config.dropout if config.attention_dropout is None else config.attention_dropout
        self.checkpoint_attention = False
        """Whether the backward pass recomputes the attention weights."""

    def forward(self, hidden: Tensor, rows: Rows) -> Tensor:
        """`rows` as in `Ops.attention`."""
        ops = select_ops(self.output.weight)
        p, attention_p = (self.dropout_p, self.attention_dropout_p) if self.training else (0.0, 0.0)
        qkv = ops.linear(hidden, self.query_key_value.weight, self.query_key_value.bias)
        context = ops.attention(qkv, self.heads, rows, attention_p, checkpoint=self.checkpoint_attention)
        projected = ops.linear(context, self.output.weight, self.output.bias)
        norm = self.layer_norm
        return ops.add_norm(projected, hidden, norm.weight, norm.bias, norm.eps, p)


class FeedForward(nn.Module):
    """Two linear maps with an exact GELU between them, residual and layer norm: [B, S, H] → [B, S, H]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.hidden_size, config.feed_forward_size)
        self.contract = nn.Linear(config.feed_forward_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.dropout_p = config.dropout
        self.checkpoint_ffn = False
        """Whether the backward pass recomputes the output of GELU."""

    def forward(self, hidden: Tensor) -> Tensor:
        ops, expand, contract, norm = select_ops(self.expand.weight), self.expand, self.contract, self.layer_norm
        contracted = ops.feed_forward(
            hidden, expand.weight, expand.bias, contract.weight, contract.bias, checkpoint=self.checkpoint_ffn
        )
        p = self.dropout_p if self.training else 0.0
        return ops.add_norm(contracted, hidden, norm.weight, norm.bias, norm.eps, p)


class Block(nn.Module):
    """One transformer layer: attention, then feed-forward."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: Tensor, rows: Rows) -> Tensor:
        """`rows` as in `Ops.attention`."""
        result: Tensor = self.feed_forward(self.attention(hidden, rows))
        return result


class Encoder(nn.Module, ABC):
    """What encoders share: token ids [B, S] and an attention mask [B, S] → hidden states [B, S, H].

    A subclass has `embeddings.word`, `blocks`, `embed` and `run_blocks`.
    """

    embeddings: Any
    blocks: nn.ModuleList

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self._checkpoint_blocks = False

    def checkpoint_activations(self, kind: str) -> None:
        """Set activation checkpointing to one of `ACTIVATION_CHECKPOINTING`. Losses and gradients keep their bits."""
        assert kind in ACTIVATION_CHECKPOINTING
        self._checkpoint_blocks = kind == "full"
        for module in self.modules():
            for name in ("checkpoint_attention", "checkpoint_ffn"):
                if hasattr(module, name):
                    setattr(module, name, kind == "selective")

    def forward(
        self,
        token_ids: Tensor,
        segment_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None = None,
        sequence_ids: Tensor | None = None,
        real_tokens: int | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Hidden states; those of padding mean nothing.

        Args:
            attention_mask: [B, S], True at real tokens; None when no sequence is padded or rows are packed.
            position_ids: [B, S] position of each token in its sequence; 0, 1, 2, … along the row when None.
            sequence_ids: [B, S] which packed sequence of its row a token belongs to; attention is block-diagonal.
            real_tokens: how many are True in `attention_mask`. A GPU needs it to leave out the padding.
            kept: [M] indices b · S + s of real tokens; then only their hidden states [M, H] are returned.
        """
        if position_ids is None:
            position_ids = torch.arange(token_ids.shape[1], device=token_ids.device)
        unpadded = None if sequence_ids is not None else self._unpad(attention_mask, real_tokens)
        if unpadded is not None:
            ids = [unpadded.take(each.expand_as(token_ids)) for each in (token_ids, segment_ids, position_ids)]
            places = None if kept is None else unpadded.find(kept, len(token_ids))
            hidden = self.run_blocks(self.embed(*ids), unpadded, ids[2], None, places)
            return hidden if kept is not None else unpadded.pad(hidden, len(token_ids))
        attn_mask = None if attention_mask is None else attention_mask[:, None, None, :]
        if sequence_ids is not None:
            attn_mask = sequence_ids[:, None, :, None] == sequence_ids[:, None, None, :]
        hidden = self.embed(token_ids, segment_ids, position_ids)
        ops = select_ops(self.embeddings.word.weight)
        bias = None if attn_mask is None else ops.attention_bias(attn_mask, hidden)
        return self.run_blocks(hidden, bias, position_ids, attn_mask, kept)

    @abstractmethod
    def embed(self, token_ids: Tensor, segment_ids: Tensor, position_ids: Tensor) -> Tensor:
        """The input of the first block: [*] ids → [*, H]."""

    @abstractmethod
    def run_blocks(
        self, hidden: Tensor, rows: Rows, position_ids: Tensor, mask: Tensor | None, kept: Tensor | None
    ) -> Tensor:
        """All blocks.

        Args:
            rows: as in `Ops.attention`.
            mask: bool [B, 1, 1 or S, S] that `rows` was made of; None where it was made of none.
            kept: [M] indices into the flattened rows of `hidden`; then only the results [M, H] there are returned.
        """

    def run_block(self, block: nn.Module, *inputs: Any) -> Tensor:
        """One block, with full activation checkpointing where that is on."""
        is_checkpointed = self._checkpoint_blocks and torch.is_grad_enabled()
        hidden: Tensor = checkpoint(block, *inputs, use_reentrant=False) if is_checkpointed else block(*inputs)
        return hidden

    def _unpad(self, attention_mask: Tensor | None, real_tokens: int | None) -> Unpadded | None:
        """The real tokens, if they alone are computed."""
        if attention_mask is None:
            return None
        config, weight = self.config, self.embeddings.word.weight
        dropout_p = config.dropout if config.attention_dropout is None else config.attention_dropout
        dropout_p = dropout_p if self.training else 0.0
        return select_ops(weight).unpad(attention_mask, weight, config.attention_heads, dropout_p, real_tokens)


class BertModel(Encoder):
    """BERT's encoder."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    def embed(self, token_ids: Tensor, segment_ids: Tensor, position_ids: Tensor) -> Tensor:
        """As `Encoder.embed`."""
        embedded: Tensor = self.embeddings(token_ids, segment_ids, position_ids)
        return embedded

    def run_blocks(
        self, hidden: Tensor, rows: Rows, position_ids: Tensor, mask: Tensor | None, kept: Tensor | None
    ) -> Tensor:
        """As `Encoder.run_blocks`."""
        for block in self.blocks:
            hidden = self.run_block(block, hidden, rows)
        return hidden if kept is None else hidden.flatten(0, -2).index_select(0, kept)


def initialise(module: nn.Module, config: BertConfig) -> None:
    """BERT's initialization in place: truncated normal matrices, zero biases, unit layer norms."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            std = config.initializer_range
            nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
