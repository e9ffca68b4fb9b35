"""Fine-tuning a BERT on one task, and what it says of other examples.

The recipe is that of BERT's run_classifier.py: batches of 32, three passes, sequences of at most 128 tokens (of a pair
the longer text is cut first), linear warm-up over a tenth of the steps, linear decay, gradient clipped at 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from lambert.corpus.vocabulary import special_tokens
from lambert.errors import UserError
from lambert.finetune.glue.tasks import Example
from lambert.finetune.loop import train_epochs
from lambert.finetune.squad.settings import Progress
from lambert.model.heads import BertForClassification
from lambert.training.config.precision import Precision
from lambert.training.optimizer import check_optimizer, make_optimizer, named_groups
from lambert.training.step.train_step import TaskOutput
from lambert.utils.lr_schedule import LRSchedule

_BETAS, _EPSILON, _CLIP_NORM = (0.9, 0.999), 1e-6, 1.0  # BERT's
_WARMUP_SHARE, _WEIGHT_DECAY = 0.1, 0.01
_PAD_TO_TOKENS = 8


@dataclass(frozen=True)
class GlueSettings:
    """How a model is fine-tuned."""

    learning_rate: float
    """Peak."""
    optimizer: str = "adamw"
    epochs: int = 3
    batch_size: int = 32
    micro_batch_size: int = 32
    """Examples that go through the model at once: speed and memory, and the result by rounding and dropout."""
    sequence_length: int = 128
    """Longest sequence in tokens, special ones included."""
    precision: Precision = Precision.FLOAT32

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)
        for name, least in (("epochs", 1), ("batch_size", 1), ("micro_batch_size", 1), ("sequence_length", 8)):
            if getattr(self, name) < least:
                raise UserError(f"{name} = {getattr(self, name)}", remedy=f"Give a whole number from {least}")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate = {self.learning_rate}", remedy="Give a number above 0")
        if self.precision is Precision.BFLOAT16_MASTER:
            raise UserError("fine-tuning does not run in bfloat16-master", remedy="Choose float32 or bfloat16-autocast")


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """One example as token ids."""

    token_ids: NDArray[np.int64]
    """[tokens]: [CLS] first [SEP], and second [SEP] where there is one."""
    second_starts: int
    """Position from which the segment is 1; the number of tokens where there is one text."""
    label: float


@dataclass(frozen=True)
class SequenceBatch:
    """B sequences, padded to S tokens. A micro-batch of `training.step`."""

    token_ids: Tensor  # [B, S] int64
    segment_ids: Tensor  # [B, S] int64
    attention_mask: Tensor  # [B, S] bool
    labels: Tensor  # [B] float32

    def counts(self) -> dict[str, int]:
        """What the loss is divided by, once over the whole global batch: the sequences."""
        return {"label": len(self.token_ids)}

    def to(self, device: torch.device | str) -> SequenceBatch:
        """The same batch on another device."""
        tensors = (self.token_ids, self.segment_ids, self.attention_mask, self.labels)
        return SequenceBatch(*(tensor.to(device, non_blocking=True) for tensor in tensors))


def make_sequences(examples: Sequence[Example], tokenizer: Tokenizer, length: int) -> list[TokenSequence]:
    """Tokenise as plain text; of a pair that is too long the longer text loses its last token until both fit."""
    specials = special_tokens(tokenizer)
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = True
    firsts = plain.encode_batch([example.first for example in examples], add_special_tokens=False)
    seconds = plain.encode_batch([example.second or "" for example in examples], add_special_tokens=False)
    made = []
    for example, first, second in zip(examples, firsts, seconds, strict=True):
        if example.second is None:
            ids = [specials.classify, *first.ids[: length - 2], specials.separate]
            made.append(TokenSequence(np.array(ids), len(ids), example.label))
            continue
        kept, also_kept = shares(len(first.ids), len(second.ids), length - 3)
        head = [specials.classify, *first.ids[:kept], specials.separate]
        ids = [*head, *second.ids[:also_kept], specials.separate]
        made.append(TokenSequence(np.array(ids), len(head), example.label))
    return made


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens that two texts keep in `room`: the longer one gives way, of equals the second (BERT's rule).

    >>> shares(10, 3, 8), shares(10, 10, 7), shares(2, 3, 8)
    ((5, 3), (4, 3), (2, 3))
    """
    while first + second > room:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


def make_batch(sequences: Sequence[TokenSequence], *, pad_id: int) -> SequenceBatch:
    """Pad to the longest, rounded up to a multiple of 8 tokens."""
    longest = max(len(sequence.token_ids) for sequence in sequences)
    width = -(-longest // _PAD_TO_TOKENS) * _PAD_TO_TOKENS
    token_ids = np.full((len(sequences), width), pad_id, dtype=np.int64)
    segment_ids, attention_mask = np.zeros_like(token_ids), np.zeros(token_ids.shape, dtype=np.bool_)
    for row, sequence in enumerate(sequences):
        tokens = len(sequence.token_ids)
        token_ids[row, :tokens] = sequence.token_ids
        segment_ids[row, sequence.second_starts : tokens] = 1
        attention_mask[row, :tokens] = True
    labels = torch.tensor([sequence.label for sequence in sequences], dtype=torch.float32)
    return SequenceBatch(
        torch.from_numpy(token_ids), torch.from_numpy(segment_ids), torch.from_numpy(attention_mask), labels
    )


def label_task(model: nn.Module, batch: SequenceBatch) -> TaskOutput:
    """Cross-entropy of the classes, or the squared distance from the number, summed over the sequences."""
    scores = model(batch.token_ids, batch.segment_ids, batch.attention_mask).float()
    if scores.shape[1] == 1:
        loss = functional.mse_loss(scores[:, 0], batch.labels, reduction="sum")
        return TaskOutput({"label": loss}, {"label": torch.zeros((), device=loss.device)})
    labels = batch.labels.long()
    right = (scores.argmax(-1) == labels).sum()
    return TaskOutput({"label": functional.cross_entropy(scores, labels, reduction="sum")}, {"label": right})


def fine_tune(
    model: BertForClassification,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    settings: GlueSettings,
    *,
    seed: int,
    progress: Progress | None = None,
) -> float:
    """Train `model` in place, on the device where it lies; gives the mean loss over the last pass.

    Raises:
        UserError: sequences or vocabulary do not fit the model; `Diverged` where the loss stopped being a number.
    """
    check_fit(model, tokenizer, settings)
    sequences = make_sequences(examples, tokenizer, settings.sequence_length)
    total_steps = settings.epochs * math.ceil(len(sequences) / settings.batch_size)
    schedule = LRSchedule(settings.learning_rate, round(_WARMUP_SHARE * total_steps), total_steps)
    groups, names = named_groups(model, weight_decay=_WEIGHT_DECAY)
    optimizer = make_optimizer(settings.optimizer, groups, names, betas=_BETAS, epsilon=_EPSILON)
    pad_id = special_tokens(tokenizer).pad
    return train_epochs(
        model,
        optimizer,
        sequences,
        settings,
        make_batch=partial(make_batch, pad_id=pad_id),
        task=label_task,
        schedule=schedule,
        max_grad_norm=_CLIP_NORM,
        seed=seed,
        progress=progress,
    )


@torch.no_grad()
def predict(
    model: BertForClassification, tokenizer: Tokenizer, examples: Sequence[Example], settings: GlueSettings
) -> list[float]:
    """The class of the highest score, or the number, for each example in its order.

    Raises:
        UserError: sequences or vocabulary do not fit the model.
    """
    check_fit(model, tokenizer, settings)
    sequences = make_sequences(examples, tokenizer, settings.sequence_length)
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index].token_ids))
    device, pad_id = next(model.parameters()).device, special_tokens(tokenizer).pad
    said = [0.0] * len(sequences)
    model.eval()
    for first in range(0, len(order), settings.batch_size):
        places = order[first : first + settings.batch_size]
        batch = make_batch([sequences[place] for place in places], pad_id=pad_id).to(device)
        with settings.precision.autocast(device):
            scores = model(batch.token_ids, batch.segment_ids, batch.attention_mask).float()
        values = scores[:, 0] if scores.shape[1] == 1 else scores.argmax(-1)
        for place, value in zip(places, values.tolist(), strict=True):
            said[place] = float(value)
    return said


def check_fit(model: BertForClassification, tokenizer: Tokenizer, settings: GlueSettings) -> None:
    """Refuse sequences that the model has no positions for and a vocabulary that it has no vectors for."""
    positions, entries = model.config.maximum_positions, tokenizer.get_vocab_size(with_added_tokens=True)
    if settings.sequence_length > positions:
        raise UserError(
            f"sequences of {settings.sequence_length} tokens do not fit a model of {positions} positions",
            remedy=f"Set the sequence length to {positions} or less",
        )
    if entries > model.config.vocabulary_size:
        raise UserError(
            f"the tokenizer has {entries} entries, the model {model.config.vocabulary_size}",
            remedy="Put the vocabulary that the model was trained with into its folder",
        )
