"""What is built on the encoder: masked-word and next-sentence heads for pre-training, the span head for SQuAD, and the
classifier for GLUE.

Shapes: B sequences, S tokens in each, H hidden size, V vocabulary size, M masked words in the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lambert.model.bert import BertConfig, BertModel, initialise
from lambert.model.cpu import encoder as cpu


class Pooler(nn.Module):
    """tanh of a linear map of the [CLS] vectors: [B, H] → [B, H]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        return torch.tanh(self.dense(first))


class MLMHead(nn.Module):
    """Scores of every vocabulary entry, for the masked positions only: [M, H] → [M, V].

    The decoder is the word embedding itself (tied) plus a bias of its own.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))

    def forward(self, hidden: Tensor, word_embedding: Tensor) -> Tensor:
        return functional.linear(self._transformed(hidden), word_embedding, self.bias)

    def losses(self, hidden: Tensor, word_embedding: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the cross-entropies with labels [M], in float32, and how many labels are the likeliest word."""
        if cpu.applies_to(word_embedding):
            return cpu.word_losses(self._transformed(hidden), word_embedding, self.bias, labels)
        logits = self(hidden, word_embedding)
        return functional.cross_entropy(logits.float(), labels, reduction="sum"), (logits.argmax(-1) == labels).sum()

    def _transformed(self, hidden: Tensor) -> Tensor:
        normalised: Tensor = self.layer_norm(functional.gelu(self.transform(hidden)))
        return normalised


class BertForPreTraining(nn.Module):
    """Encoder with both pre-training heads."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = BertModel(config)
        self.pooler = Pooler(config)
        self.mlm_head = MLMHead(config)
        self.nsp_head = nn.Linear(config.hidden_size, 2)
        initialise(self, config)

    def forward(
        self,
        token_ids: Tensor,
        segment_ids: Tensor,
        attention_mask: Tensor | None,
        masked_positions: Tensor,
        position_ids: Tensor | None = None,
        sequence_ids: Tensor | None = None,
        first_positions: Tensor | None = None,
        masked_labels: Tensor | None = None,
    ) -> tuple[Tensor | tuple[Tensor, Tensor], Tensor]:
        """Scores at the masked positions and for the next-sentence question.

        Args:
            token_ids, segment_ids: [B, S] integers.
            attention_mask: [B, S], True at real tokens, or None when nothing is padded.
            masked_positions: [M] places in the flattened batch, b · S + s.
            position_ids, sequence_ids: [B, S], where rows hold several examples (`BertModel.forward`).
            first_positions: [E] places of their [CLS] in the flattened batch; the first of each row when None.
            masked_labels: [M] ids at the masked positions, where not their scores are wanted but their losses.

        Returns:
            Masked-word scores [M, V], or with labels `MLMHead.losses`; and next-sentence scores [B or E, 2]
            (class 0: B follows A; 1: B does not).
        """
        hidden = self.encoder(token_ids, segment_ids, attention_mask, position_ids, sequence_ids)
        flat = hidden.flatten(0, 1)
        masked = flat.index_select(0, masked_positions)
        embedding = self.encoder.embeddings.word.weight
        words = (
            self.mlm_head(masked, embedding)
            if masked_labels is None
            else self.mlm_head.losses(masked, embedding, masked_labels)
        )
        first = hidden[:, 0] if first_positions is None else flat.index_select(0, first_positions)
        return words, self.nsp_head(self.pooler(first))


class BertForQuestionAnswering(nn.Module):
    """Encoder with a start and an end score for every token."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = BertModel(config)
        self.span_head = nn.Linear(config.hidden_size, 2)
        initialise(self, config)

    def forward(self, token_ids: Tensor, segment_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Start and end scores, each [B, S]; inputs as in `BertForPreTraining.forward`."""
        logits = self.span_head(self.encoder(token_ids, segment_ids, attention_mask))
        start, end = logits.unbind(-1)
        return start, end


class BertForClassification(nn.Module):
    """Encoder with a score for every class of a sequence; one class is a number to be met (regression)."""

    def __init__(self, config: BertConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = BertModel(config)
        self.pooler = Pooler(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, classes)
        initialise(self, config)

    def forward(self, token_ids: Tensor, segment_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Scores [B, classes]; inputs as in `BertForPreTraining.forward`."""
        hidden = self.encoder(token_ids, segment_ids, attention_mask)
        logits: Tensor = self.classifier(self.dropout(self.pooler(hidden[:, 0])))
        return logits
