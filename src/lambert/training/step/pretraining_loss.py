"""Pre-training as a task for `train_step`, and its measure on held-out text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from lambert.data.dataloader import PretrainingBatch
from lambert.training.config.precision import Precision
from lambert.training.step.train_step import TaskOutput


def pretraining_task(model: nn.Module, batch: PretrainingBatch) -> TaskOutput:
    """Masked-word and, where it is asked for, next-sentence cross-entropy of one micro-batch, summed."""
    (mlm_loss, mlm_correct), nsp_logits = model(
        batch.token_ids,
        batch.segment_ids,
        batch.attention_mask,
        batch.masked_positions,
        **batch.packing(),
        masked_labels=batch.masked_labels,
    )
    loss_sums, correct = {"mlm": mlm_loss}, {"mlm": mlm_correct}
    labels = batch.next_sentence_labels
    if len(labels):
        loss_sums["nsp"] = functional.cross_entropy(nsp_logits.float(), labels, reduction="sum")
        correct["nsp"] = (nsp_logits.argmax(-1) == labels).sum()
    return TaskOutput(loss_sums, correct)


@dataclass(frozen=True)
class Evaluation:
    """Metrics on held-out text, beside those of the unigram baseline."""

    mlm_loss: float
    """Mean cross-entropy of the masked tokens, nats."""
    mlm_accuracy: float
    nsp_loss: float | None
    """None, as the two that follow, where examples have no second segment."""
    nsp_accuracy: float | None
    nsp_majority_accuracy: float | None
    """Accuracy of always giving the majority class; short sequences often hold one sentence, with a random partner."""
    unigram_loss: float
    """Cross-entropy of the same tokens under the unigram distribution of the training text, nats."""
    unigram_accuracy: float
    """Accuracy of always predicting the most frequent token of the training text."""
    masked_tokens: int
    """How many tokens were masked."""


class UnigramBaseline:
    """Predicts by token frequency alone: counts [V] of the training text, each raised by one."""

    def __init__(self, token_counts: NDArray[np.int64]) -> None:
        smoothed = token_counts.astype(np.float64) + 1
        self.log_probabilities: NDArray[np.float64] = np.log(smoothed / smoothed.sum())
        """[V] natural logarithms."""
        self._most_frequent = int(token_counts.argmax())

    def loss_sum(self, labels: NDArray[np.int64]) -> float:
        """Sum of −log p over `labels`, nats."""
        return float(-self.log_probabilities[labels].sum())

    def correct(self, labels: NDArray[np.int64]) -> int:
        """How many labels are the most frequent token."""
        return int((labels == self._most_frequent).sum())


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[PretrainingBatch], unigram: UnigramBaseline, *, precision: Precision
) -> Evaluation:
    """Measure `model` without dropout on `batches` and put it back into training mode."""
    device = next(model.parameters()).device
    model.eval()
    loss, correct = {"mlm": 0.0, "nsp": 0.0}, {"mlm": 0, "nsp": 0}
    words = pairs = wrong_pairs = unigram_correct = 0
    unigram_loss = 0.0
    for batch in batches:
        with precision.autocast(device):
            output = pretraining_task(model, batch.to(device))
        for kind, value in output.loss_sums.items():
            loss[kind] += float(value)
            correct[kind] += int(output.correct[kind])
        labels = batch.masked_labels.numpy()
        unigram_loss += unigram.loss_sum(labels)
        unigram_correct += unigram.correct(labels)
        words += len(labels)
        pairs += len(batch.next_sentence_labels)
        wrong_pairs += int(batch.next_sentence_labels.sum())
    model.train()
    if not words:
        raise ValueError("evaluation got no batches")
    return Evaluation(
        mlm_loss=loss["mlm"] / words,
        mlm_accuracy=correct["mlm"] / words,
        nsp_loss=loss["nsp"] / pairs if pairs else None,
        nsp_accuracy=correct["nsp"] / pairs if pairs else None,
        nsp_majority_accuracy=max(wrong_pairs, pairs - wrong_pairs) / pairs if pairs else None,
        unigram_loss=unigram_loss / words,
        unigram_accuracy=unigram_correct / words,
        masked_tokens=words,
    )
