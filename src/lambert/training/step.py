"""The only optimizer step in the house: accumulate, reduce, clip, update. It touches no files.

The loss is that of the whole global batch: every kind of loss is summed over all its terms, in all micro-batches
of all processes, and divided once by their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lambert.training.parallel import Processes
from lambert.training.precision import MasterWeights, Precision


@dataclass(frozen=True)
class TaskOutput:
    """What a task makes of one micro-batch; the keys are those of the micro-batch's `counts()`."""

    loss_sums: Mapping[str, Tensor]
    """Kind of loss → its sum over this micro-batch, a 0-dimensional tensor with a gradient."""
    correct: Mapping[str, Tensor]
    """Kind of loss → how many of its terms were guessed right."""


class MicroBatch(Protocol):
    """A part of the global batch that fits through the model at once."""

    def counts(self) -> dict[str, int]:
        """Kind of loss → number of terms it sums over in this micro-batch."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same micro-batch on `device`."""
        ...


Batch = TypeVar("Batch", bound=MicroBatch)
Task = Callable[[nn.Module, Batch], TaskOutput]


@dataclass(frozen=True)
class StepResult:
    """Figures of one step over the whole global batch."""

    loss: float
    """Sum of `losses`."""
    losses: dict[str, float]
    """Kind of loss → its mean over the global batch."""
    accuracies: dict[str, float]
    """Kind of loss → share of its terms guessed right."""
    gradient_norm: float
    """L2 norm of the whole gradient before clipping."""


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    micro_batches: Sequence[Batch],
    *,
    task: Task[Batch],
    learning_rate: float,
    clip_norm: float | None,
    dropout_seeds: Sequence[int],
    precision: Precision = Precision.FLOAT32,
    processes: Processes | None = None,
    master: MasterWeights | None = None,
) -> StepResult:
    """One update of `model` from the micro-batches of this process.

    Args:
        micro_batches: this process's share of the global batch.
        task: model and micro-batch → sums of losses and of right guesses.
        clip_norm: largest L2 norm of the whole gradient; None when the optimizer clips or nobody does.
        dropout_seeds: one for each micro-batch; they alone decide what dropout drops.
        processes: the group that shares the global batch; None is a single process.
        master: float32 weights that the optimizer updates in place of the model's own bfloat16 ones.

    Returns:
        Loss and accuracy of the global batch before the update.
    """
    assert len(dropout_seeds) == len(micro_batches) > 0
    processes = processes or Processes()
    model.train()
    device = next(model.parameters()).device
    kinds, totals = _global_counts(micro_batches, processes)
    sums = torch.zeros(2, len(kinds), dtype=torch.float64, device=device)
    for micro_batch, seed in zip(micro_batches, dropout_seeds, strict=True):
        torch.manual_seed(seed)
        with precision.autocast(device):
            output = task(model, micro_batch.to(device))
        loss = sum((output.loss_sums[kind] / totals[kind] for kind in kinds), torch.zeros((), device=device))
        loss.backward()
        for column, kind in enumerate(kinds):
            sums[0, column] += output.loss_sums[kind].detach()
            sums[1, column] += output.correct[kind]
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    processes.sum_tensors([p.grad for p in parameters if p.grad is not None])
    processes.sum_tensors([sums])
    norm = _clip(parameters, clip_norm)
    _set_learning_rate(optimizer, learning_rate)
    optimizer.step()
    if master is not None:
        master.publish()
    optimizer.zero_grad(set_to_none=True)
    return _result(kinds, totals, sums, norm)


def _global_counts(micro_batches: Sequence[Any], processes: Processes) -> tuple[list[str], dict[str, int]]:
    """The kinds of loss, sorted, and how many terms each has in the global batch."""
    local: Counter[str] = Counter()
    for micro_batch in micro_batches:
        local.update(micro_batch.counts())
    kinds = sorted(local)
    totals = processes.sum_integers([local[kind] for kind in kinds])
    return kinds, dict(zip(kinds, totals, strict=True))


def _clip(parameters: list[Tensor], most: float | None) -> Tensor:
    """L2 norm of the gradients, which are scaled down to `most` where they exceed it."""
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    # Reading the norm is free on a CPU, and saves a pass over all gradients when there is nothing to scale.
    if most is not None and (norm.device.type != "cpu" or not norm <= most):
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def _set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _result(kinds: list[str], totals: dict[str, int], sums: Tensor, norm: Tensor) -> StepResult:
    loss_sums, correct = sums.tolist()
    losses = {kind: loss_sums[i] / totals[kind] for i, kind in enumerate(kinds)}
    accuracies = {kind: correct[i] / totals[kind] for i, kind in enumerate(kinds)}
    return StepResult(sum(losses.values()), losses, accuracies, float(norm))
