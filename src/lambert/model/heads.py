"""An encoder with a head: MLM and NSP for pre-training, start and end logits for SQuAD, a classifier of
sequences or tokens.

Shapes: B sequences, S tokens in each, H hidden size, V vocabulary size, M masked tokens in the whole batch.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from lambert.model import bert, huggingface, modernbert
from lambert.model.architectures import encoder
from lambert.model.bert import BertConfig
from lambert.model.modernbert import ModernBertConfig
from lambert.model.ops import select_ops


class Pooler(nn.Module):
    """tanh of a linear map of the [CLS] vectors: [B, H] → [B, H]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, cls_hidden: Tensor) -> Tensor:
        return torch.tanh(self.dense(cls_hidden))


class MLMHead(nn.Module):
    """MLM logits or losses of the masked tokens only. The decoder is the word embedding (tied) plus a bias.

    With `tied_decoder` false it has a matrix of its own.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size, bias=config.has_biases)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon, bias=config.has_biases)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        if not config.tied_decoder:
            self.decoder = nn.Linear(config.hidden_size, config.vocabulary_size, bias=False)

    def forward(
        self, hidden: Tensor, word_embedding: Tensor, labels: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Logits [M, V] of hidden states [M, H]; or with labels [M] their summed cross-entropy in float32, its terms
        [M] and which predictions are correct [M], both without gradients."""
        matrix = self.decoder.weight if hasattr(self, "decoder") else word_embedding
        transformed = self.layer_norm(functional.gelu(self.transform(hidden)))
        if labels is None:
            return functional.linear(transformed, matrix, self.bias)
        return select_ops(word_embedding).mlm_cross_entropy(transformed, matrix, self.bias, labels)


class PredictionHead(nn.Module):
    """ModernBERT's layer before every classifier: linear, GELU, layer norm: [*, H] → [*, H]."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.layer_norm = modernbert.layer_norm(config)

    def forward(self, hidden: Tensor) -> Tensor:
        transformed: Tensor = self.layer_norm(functional.gelu(self.transform(hidden)))
        return transformed


def _initialise(module: nn.Module, config: BertConfig) -> None:
    if isinstance(config, ModernBertConfig):
        modernbert.initialise(module, config)
    else:
        bert.initialise(module, config)


class _Pretrained(nn.Module):
    """An encoder with a head that Hugging Face folders have, too."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder(config)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """The model of a finished run or of a Hugging Face BERT folder, without dropout until `train()` is called.

            model = BertForPreTraining.from_pretrained("runs/mine")

        Warns:
            UserWarning: the folder has no weights for a head, which keeps its random initialization.

        Raises:
            UserError: the folder, its config or its weights are missing, damaged or of another architecture.
        """
        folder = huggingface.model_folder(Path(path))
        model, report = huggingface.load_model(folder, cls)
        if report.freshly_initialised:
            names = ", ".join(report.freshly_initialised)
            warnings.warn(f"{folder} has no weights for {names}: they are randomly initialized", stacklevel=2)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` as `transformers` reads them; the tokenizer is not included.

        Raises:
            UserError: a file cannot be written.
        """
        huggingface.save_model(self, Path(folder))


class PreTrainingModel(_Pretrained):
    """An encoder with an MLM head, and in `BertForPreTraining` an NSP head."""

    is_compiled = False
    """Whether `compile_layers` has compiled it."""
    mlm_head: MLMHead

    def reconfigure(self, config: BertConfig) -> None:
        """Compute with another configuration of the same shape: another base of the rotary positions."""
        self.config = self.encoder.config = config

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
        real_tokens: int | None = None,
    ) -> tuple[Tensor | tuple[Tensor, Tensor, Tensor], Tensor]:
        """MLM logits or losses of the masked tokens, and NSP logits.

        Args:
            token_ids, segment_ids: [B, S] integers.
            attention_mask: [B, S], True at real tokens, or None when nothing is padded.
            masked_positions: [M] indices into the flattened batch, b · S + s.
            position_ids, sequence_ids: [B, S], for packed rows (`Encoder.forward`).
            real_tokens: as in `Encoder.forward`.
            first_positions: [E] indices of their [CLS] in the flattened batch; the first of each row when None.
            masked_labels: [M] original ids of the masked tokens; with them losses are returned instead of logits.

        Returns:
            MLM logits [M, V], or with labels the losses of `MLMHead.forward`; and NSP logits [B or E, 2] (class 0: B
            follows A; 1: B is random), [B or E, 0] of a model without an NSP head.
        """
        embedding = self.encoder.embeddings.word.weight
        inputs = token_ids, segment_ids, attention_mask, position_ids, sequence_ids, real_tokens
        if self._leaves_out_the_rest(embedding):
            masked = self.encoder(*inputs, kept=masked_positions)
            sequences = len(token_ids if first_positions is None else first_positions)
            return self.mlm_head(masked, embedding, masked_labels), masked.new_empty(sequences, 0)
        hidden = self.encoder(*inputs)
        flat = hidden.flatten(0, 1)
        masked = flat.index_select(0, masked_positions)
        mlm = self.mlm_head(masked, embedding, masked_labels)
        first = hidden[:, 0] if first_positions is None else flat.index_select(0, first_positions)
        return mlm, self._nsp_logits(first)

    def _leaves_out_the_rest(self, weight: Tensor) -> bool:
        """Whether the encoder need not end at other tokens than the masked ones."""
        return False

    def _nsp_logits(self, first: Tensor) -> Tensor:
        return first[:, :0]


class BertForPreTraining(PreTrainingModel):
    """BERT with both pre-training heads."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.pooler = Pooler(config)
        self.mlm_head = MLMHead(config)  # in this order: random weights are drawn in that of the modules
        self.nsp_head = nn.Linear(config.hidden_size, 2)
        _initialise(self, config)

    def _nsp_logits(self, first: Tensor) -> Tensor:
        logits: Tensor = self.nsp_head(self.pooler(first))
        return logits


class ModernBertForMaskedLM(PreTrainingModel):
    """ModernBERT with its MLM head."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.mlm_head = MLMHead(config)
        _initialise(self, config)

    def _leaves_out_the_rest(self, weight: Tensor) -> bool:
        return weight.device.type == "cpu"  # a GPU would compile the last block for every number of masked tokens


def pretraining_model(config: BertConfig) -> PreTrainingModel:
    """The model of an architecture that is pre-trained, with random weights."""
    return ModernBertForMaskedLM(config) if isinstance(config, ModernBertConfig) else BertForPreTraining(config)


class BertForQuestionAnswering(_Pretrained):
    """Encoder with a start and an end logit for every token."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.span_head = nn.Linear(config.hidden_size, 2)
        _initialise(self, config)

    def forward(self, token_ids: Tensor, segment_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Start and end logits, each [B, S]; inputs as in `BertForPreTraining.forward`."""
        logits = self.span_head(self.encoder(token_ids, segment_ids, attention_mask))
        start, end = logits.unbind(-1)
        return start, end


class BertForSequenceClassification(_Pretrained):
    """Encoder with a logit for every class of a sequence; one class means regression."""

    def __init__(self, config: BertConfig, classes: int) -> None:
        super().__init__(config)
        self.pooler = Pooler(config)
        self.dropout = nn.Dropout(config.dropout if config.classifier_dropout is None else config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, classes)
        _initialise(self, config)

    def forward(self, token_ids: Tensor, segment_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Logits [B, classes]; inputs as in `BertForPreTraining.forward`."""
        hidden = self.encoder(token_ids, segment_ids, attention_mask)
        logits: Tensor = self.classifier(self.dropout(self.pooler(hidden[:, 0])))
        return logits


class BertForTokenClassification(_Pretrained):
    """Encoder with a logit for every class of a token."""

    def __init__(self, config: BertConfig, classes: int) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.dropout if config.classifier_dropout is None else config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, classes)
        _initialise(self, config)

    def forward(self, token_ids: Tensor, segment_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Logits [B, S, classes]; inputs as in `BertForPreTraining.forward`."""
        logits: Tensor = self.classifier(self.dropout(self.encoder(token_ids, segment_ids, attention_mask)))
        return logits


class ModernBertForQuestionAnswering(_Pretrained):
    """ModernBERT with a start and an end logit for every token."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.head = PredictionHead(config)
        self.dropout = nn.Dropout(config.classifier_dropout or 0.0)
        self.classifier = nn.Linear(config.hidden_size, 2)
        _initialise(self, config)

    def forward(self, token_ids: Tensor, segment_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `BertForQuestionAnswering.forward`."""
        hidden = self.head(self.encoder(token_ids, segment_ids, attention_mask))
        start, end = self.classifier(self.dropout(hidden)).unbind(-1)
        return start, end


class ModernBertForSequenceClassification(_Pretrained):
    """ModernBERT with a logit for every class of a sequence; one class means regression."""

    def __init__(self, config: ModernBertConfig, classes: int) -> None:
        super().__init__(config)
        self.head = PredictionHead(config)
        self.dropout = nn.Dropout(config.classifier_dropout or 0.0)
        self.classifier = nn.Linear(config.hidden_size, classes)
        _initialise(self, config)

    def forward(self, token_ids: Tensor, segment_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """As `BertForSequenceClassification.forward`."""
        hidden = self.encoder(token_ids, segment_ids, attention_mask)
        logits: Tensor = self.classifier(self.dropout(self.head(hidden[:, 0])))
        return logits


class ModernBertForTokenClassification(_Pretrained):
    """ModernBERT with a logit for every class of a token."""

    def __init__(self, config: ModernBertConfig, classes: int) -> None:
        super().__init__(config)
        self.head = PredictionHead(config)
        self.dropout = nn.Dropout(config.classifier_dropout or 0.0)
        self.classifier = nn.Linear(config.hidden_size, classes)
        _initialise(self, config)

    def forward(self, token_ids: Tensor, segment_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """As `BertForTokenClassification.forward`."""
        hidden = self.head(self.encoder(token_ids, segment_ids, attention_mask))
        logits: Tensor = self.classifier(self.dropout(hidden))
        return logits


def question_answering_model(config: BertConfig) -> nn.Module:
    """Encoder with start and end logits, with random weights."""
    if isinstance(config, ModernBertConfig):
        return ModernBertForQuestionAnswering(config)
    return BertForQuestionAnswering(config)


def classification_model(config: BertConfig, classes: int) -> nn.Module:
    """Encoder with a logit for every class of a sequence, with random weights."""
    if isinstance(config, ModernBertConfig):
        return ModernBertForSequenceClassification(config, classes)
    return BertForSequenceClassification(config, classes)


def token_classification_model(config: BertConfig, classes: int) -> nn.Module:
    """Encoder with a logit for every class of a token, with random weights."""
    if isinstance(config, ModernBertConfig):
        return ModernBertForTokenClassification(config, classes)
    return BertForTokenClassification(config, classes)
