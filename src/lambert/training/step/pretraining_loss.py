"""The pre-training loss for `train_step`, and its evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lambert.data.dataloader import IGNORED, PretrainingBatch
from lambert.model.compilation import uncompiled
from lambert.training.config.precision import Precision
from lambert.training.config.unigram import UnigramBaseline
from lambert.training.step.train_step import TaskOutput


def pretraining_task(model: nn.Module, batch: PretrainingBatch) -> TaskOutput:
    """MLM and, with sentence pairs, NSP cross-entropy of one micro-batch, summed.

    `mask` is the part of the MLM loss at [MASK] tokens, without a gradient, for comparison with evaluations.
    """
    (mlm_loss, mlm_losses, mlm_correct), nsp_logits = model(
        batch.token_ids,
        batch.segment_ids,
        batch.attention_mask,
        batch.masked_positions,
        **batch.packing(),
        masked_labels=batch.masked_labels,
        real_tokens=batch.real_tokens,
    )
    loss_sums, correct = {"mlm": mlm_loss}, {"mlm": mlm_correct.sum()}
    if batch.is_mask is not None:
        loss_sums["mask"] = mlm_losses.where(batch.is_mask, 0.0).sum()
        correct["mask"] = (mlm_correct & batch.is_mask).sum()
    labels = batch.next_sentence_labels
    if len(labels):
        loss_sums["nsp"] = functional.cross_entropy(nsp_logits.float(), labels, reduction="sum")
        correct["nsp"] = (nsp_logits.argmax(-1) == labels).sum()
    return TaskOutput(loss_sums, correct)


@dataclass(frozen=True)
class Evaluation:
    """Metrics on the validation set, and those of the unigram baseline."""

    mlm_loss: float
    """Mean cross-entropy of the masked tokens, nats."""
    mlm_accuracy: float
    nsp_loss: float | None
    """None, like the two that follow, if examples have no second segment."""
    nsp_accuracy: float | None
    nsp_majority_accuracy: float | None
    """Accuracy of the majority class; at short lengths many examples are a single sentence with a random next one."""
    unigram_loss: float
    """Cross-entropy of the same tokens under the unigram distribution of the training text, nats."""
    unigram_accuracy: float
    """Accuracy of always predicting the most frequent token of the training text."""
    masked_tokens: int
    """Number of masked tokens."""


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[PretrainingBatch], unigram: UnigramBaseline, *, precision: Precision
) -> Evaluation:
    """Evaluate `model` without dropout on `batches`, then return it to training mode."""
    device = next(model.parameters()).device
    model.eval()
    kinds, nothing = ("mlm", "nsp"), torch.zeros((), device=device)
    measured: list[Tensor] = []  # of each batch, on the device: reading them one by one would wait for it every time
    masked = pairs = wrong_pairs = unigram_correct = 0
    unigram_loss = 0.0
    for batch in batches:
        with precision.autocast(device), uncompiled(model):
            output = pretraining_task(model, batch.to(device))
        sums = [part.get(kind, nothing) for part in (output.loss_sums, output.correct) for kind in kinds]
        measured.append(torch.stack([value.double() for value in sums]))
        labels = batch.masked_labels[batch.masked_labels != IGNORED].numpy()
        unigram_loss += unigram.loss_sum(labels)
        unigram_correct += unigram.correct(labels)
        masked += len(labels)
        pairs += len(batch.next_sentence_labels)
        wrong_pairs += int(batch.next_sentence_labels.sum())
    model.train()
    if not masked:
        raise ValueError("evaluation got no batches")
    mlm_loss, nsp_loss, mlm_correct, nsp_correct = (
        sum(column) for column in zip(*torch.stack(measured).tolist(), strict=True)
    )
    return Evaluation(
        mlm_loss=mlm_loss / masked,
        mlm_accuracy=mlm_correct / masked,
        nsp_loss=nsp_loss / pairs if pairs else None,
        nsp_accuracy=nsp_correct / pairs if pairs else None,
        nsp_majority_accuracy=max(wrong_pairs, pairs - wrong_pairs) / pairs if pairs else None,
        unigram_loss=unigram_loss / masked,
        unigram_accuracy=unigram_correct / masked,
        masked_tokens=masked,
    )
