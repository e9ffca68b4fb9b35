"""GLUE as a fine-tuning task.

The recipe is that of BERT's run_classifier.py: batches of 32, three epochs, sequences of at most 128 tokens (of a pair
the longer text is truncated first).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from lambert.corpus.encoding import plain_text_tokenizer
from lambert.corpus.vocabulary import special_tokens
from lambert.finetune.glue.tasks import Example, GlueTask
from lambert.finetune.inputs import Encoded, SequenceBatch
from lambert.finetune.loop import Rows, TaskPreset
from lambert.finetune.settings import FineTuneSettings
from lambert.model.heads import classification_model
from lambert.training.step.train_step import TaskOutput
from lambert.utils.tokenizer_calls import encode


@dataclass(frozen=True, kw_only=True)
class GlueSettings(FineTuneSettings):
    """How a model is fine-tuned."""

    epochs: int = 3
    micro_batch_size: int = 32
    sequence_length: int = 128


def encode_examples(examples: Sequence[Example], tokenizer: Tokenizer, settings: GlueSettings) -> list[Encoded]:
    """Tokenise as plain text; of a pair that is too long the longer text loses its last token until both fit."""
    specials, plain, length = special_tokens(tokenizer), plain_text_tokenizer(tokenizer), settings.sequence_length
    firsts = encode(plain, [example.first for example in examples], special=False)
    seconds = encode(plain, [example.second or "" for example in examples], special=False)
    encoded = []
    for example, first, second in zip(examples, firsts, seconds, strict=True):
        is_pair = example.second is not None
        lengths = truncated_lengths(len(first.ids), len(second.ids), length - 3) if is_pair else (length - 2, 0)
        head = [specials.classify, *first.ids[: lengths[0]], specials.separate]
        tail = [*second.ids[: lengths[1]], specials.separate] if is_pair else []
        encoded.append(Encoded(np.array(head + tail), len(head), example.label))
    return encoded


def truncated_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens of two texts that fit `room`: the longer one is truncated, of equals the second (BERT's rule).

    >>> truncated_lengths(10, 3, 8), truncated_lengths(10, 10, 7), truncated_lengths(2, 3, 8)
    ((5, 3), (4, 3), (2, 3))
    """
    while first + second > room:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


def class_logits(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """[B, classes] float32; [B, 1] for a regression."""
    logits: Tensor = model(batch.token_ids, batch.segment_ids, batch.attention_mask).float()
    return logits


def label_loss(logits: Tensor, batch: SequenceBatch) -> TaskOutput:
    """Cross-entropy of the classes, or the squared error of a regression, summed over the sequences."""
    if logits.shape[1] == 1:
        loss = functional.mse_loss(logits[:, 0], batch.targets, reduction="sum")
        return TaskOutput({"sequence": loss}, {"sequence": torch.zeros((), device=loss.device)})
    labels = batch.targets.long()
    correct = (logits.argmax(-1) == labels).sum()
    return TaskOutput({"sequence": functional.cross_entropy(logits, labels, reduction="sum")}, {"sequence": correct})


def best_labels(
    examples: Sequence[Example], encoded: Sequence[Encoded], rows: Rows, settings: GlueSettings
) -> dict[str, Any]:
    """`labels`: the most likely class, or the number, for each example in its order."""
    labels = [0.0] * len(examples)
    for index, logits in rows:
        labels[index] = float(logits[0] if len(logits) == 1 else logits.argmax())
    return {"labels": labels}


def glue_preset(task: GlueTask) -> TaskPreset:
    """The fine-tuning task of one of GLUE's tasks."""
    head = partial(classification_model, classes=task.classes)
    return TaskPreset(task.name, head, encode_examples, class_logits, label_loss, best_labels, _texts)


def _texts(example: Example) -> list[str]:
    return [example.first] if example.second is None else [example.first, example.second]
