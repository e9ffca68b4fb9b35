"""Classes, several labels or a number for a text or a pair of texts.

The recipe is that of BERT's run_classifier.py: batches of 32, three epochs; of a pair the longer text is truncated
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from lambert.corpus.encoding import plain_text_tokenizer
from lambert.corpus.vocabulary import special_tokens
from lambert.finetune.inputs import Encoded, SequenceBatch
from lambert.finetune.labelled.task import Example, Scale, Task
from lambert.finetune.loop import Rows, TaskPreset
from lambert.finetune.settings import FineTuneSettings
from lambert.model.heads import classification_model
from lambert.training.step.train_step import TaskOutput
from lambert.utils.tokenizer_calls import encode


@dataclass(frozen=True, kw_only=True)
class LabelledSettings(FineTuneSettings):
    """How a model is fine-tuned on labelled examples."""

    epochs: int = 3
    micro_batch_size: int = 32
    sequence_length: int = 128


def encode_examples(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    settings: LabelledSettings,
    *,
    multi_label: int = 0,
    scale: Scale | None = None,
) -> list[Encoded]:
    """Tokenise as plain text; of a pair that is too long the longer text loses its last token until both fit.

    Args:
        multi_label: number of labels, of which an example has any number; 0: it has one, or a number.
        scale: by which the numbers are standardized; None leaves them as they are.
    """
    specials, plain, length = special_tokens(tokenizer), plain_text_tokenizer(tokenizer), settings.sequence_length
    firsts = encode(plain, [example.first for example in examples], special=False)
    seconds = encode(plain, [example.second or "" for example in examples], special=False)
    encoded = []
    for example, first, second in zip(examples, firsts, seconds, strict=True):
        is_pair = example.second is not None
        lengths = truncated_lengths(len(first.ids), len(second.ids), length - 3) if is_pair else (length - 2, 0)
        head = [specials.classify, *first.ids[: lengths[0]], specials.separate]
        tail = [*second.ids[: lengths[1]], specials.separate] if is_pair else []
        target = _ones(example.label, multi_label) if isinstance(example.label, tuple) else example.label
        if scale is not None and isinstance(target, float):
            target = (target - scale.mean) / scale.deviation
        encoded.append(Encoded(np.array(head + tail), len(head), target))
    return encoded


def _ones(labels: tuple[int, ...], classes: int) -> tuple[float, ...]:
    return tuple(float(index in labels) for index in range(classes))


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
    """Cross-entropy of the classes, the mean of the labels' cross-entropies, or the squared error of a regression;
    summed over the sequences."""
    if batch.targets.dim() == 2:
        losses = functional.binary_cross_entropy_with_logits(logits, batch.targets, reduction="none").mean(-1)
        correct = ((logits > 0) == (batch.targets > 0)).all(-1)
        return TaskOutput({"sequence": losses.sum()}, {"sequence": correct.sum()})
    if logits.shape[1] == 1:
        loss = functional.mse_loss(logits[:, 0], batch.targets, reduction="sum")
        return TaskOutput({"sequence": loss}, {"sequence": torch.zeros((), device=loss.device)})
    labels = batch.targets.long()
    correct = (logits.argmax(-1) == labels).sum()
    return TaskOutput({"sequence": functional.cross_entropy(logits, labels, reduction="sum")}, {"sequence": correct})


def best_labels(
    examples: Sequence[Example],
    encoded: Sequence[Encoded],
    rows: Rows,
    settings: LabelledSettings,
    *,
    scale: Scale | None = None,
) -> dict[str, Any]:
    """For each example in its order.

    Returns:
        `labels`: the most likely class, the number, or the indices of all labels likelier than not; and `losses`:
        minus the log-probability of the given label, the mean over all labels, or the squared error.
    """
    labels: list[Any] = [0.0] * len(examples)
    losses = [0.0] * len(examples)
    for index, logits in rows:
        values, given = logits.astype(np.float64), examples[index].label
        if isinstance(given, tuple):
            signs = np.array(_ones(given, len(values))) * 2 - 1
            labels[index] = np.flatnonzero(values > 0).tolist()
            losses[index] = float(np.logaddexp(0, -signs * values).mean())
        elif len(values) == 1:
            number = float(values[0]) if scale is None else scale.mean + scale.deviation * float(values[0])
            labels[index], losses[index] = number, (number - given) ** 2
        else:
            labels[index] = float(values.argmax())
            losses[index] = float(np.logaddexp.reduce(values) - values[int(given)])
    return {"labels": labels, "losses": losses}


def sequence_preset(task: Task) -> TaskPreset:
    """The fine-tuning of a task whose labels are of whole texts or pairs."""
    head = partial(classification_model, classes=task.classes)
    several = len(task.labels) if task.kind == "multi-label" else 0
    encode_all = partial(encode_examples, multi_label=several, scale=task.scale)
    decode = partial(best_labels, scale=task.scale)
    kept: dict[str, Any] = {}
    if task.scale is not None:
        kept = {"finish": partial(undo_scale, scale=task.scale), "made_from": {"scale": asdict(task.scale)}}
    return TaskPreset(task.name, head, encode_all, class_logits, label_loss, decode, _texts, **kept)


@torch.no_grad()
def undo_scale(model: nn.Module, scale: Scale) -> None:
    """Change the last layer so that the model gives numbers of the labels' own scale."""
    head: Any = model.classifier
    head.weight.copy_(head.weight.double() * scale.deviation)
    head.bias.copy_(head.bias.double() * scale.deviation + scale.mean)


def _texts(example: Example) -> list[str]:
    return [example.first] if example.second is None else [example.first, example.second]
