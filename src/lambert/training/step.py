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

from lambert.training.meter import Meter
from lambert.training.parallel import Processes
from lambert.training.precision import MasterWeights, Precision


@dataclass(frozen=True)
class TaskOutput:
    """What a task makes of one micro-batch; the keys are those of the micro-batch's `counts()`."""

    loss_sums: Mapping[str, Tensor]
    """Kind of loss → its sum over this micro-batch, a 0-dimensional tensor with a gradient."""
    correct: Mapping[str, Tensor]
    """Kind of loss → how many of its terms were guessed right."""


class OutOfMemory(Exception):
    """A micro-batch was too large for the memory of some process."""


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
    meter: Meter | None = None,
) -> StepResult:
    """One update of `model` from the micro-batches of this process.

    Args:
        micro_batches: this process's share of the global batch.
        task: model and micro-batch → sums of losses and of right guesses.
        clip_norm: largest L2 norm of the whole gradient; None when the optimizer clips or nobody does.
        dropout_seeds: one for each micro-batch; they alone decide what dropout drops.
        processes: the group that shares the global batch; None is a single process.
        master: float32 weights that the optimizer updates in place of the model's own bfloat16 ones.
        meter: gets the time of the step's parts.

    Returns:
        Loss and accuracy of the global batch before the update.

    Raises:
        OutOfMemory: a micro-batch did not fit, here or in another process; nowhere has a weight changed.
    """
    assert len(dropout_seeds) == len(micro_batches) > 0
    model.train()
    device = next(model.parameters()).device
    processes, meter = processes or Processes(), meter or Meter(device)
    kinds, totals = _global_counts(micro_batches, processes)
    sums = torch.zeros(2, len(kinds), dtype=torch.float64, device=device)
    failed = ""
    try:
        for micro_batch, seed in zip(micro_batches, dropout_seeds, strict=True):
            torch.manual_seed(seed)
            sums += _forward_and_backward(model, task, micro_batch.to(device), totals, precision, meter)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failed = str(error) or type(error).__name__
    with meter.part("communication"):
        _refuse_failures(failed, sums, processes, optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    with meter.part("communication"):
        processes.sum_tensors([p.grad for p in parameters if p.grad is not None])
    with meter.part("optimizer"):
        norm = _clip(parameters, clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        if master is not None:
            master.publish()
        optimizer.zero_grad(set_to_none=True)
    return _result(kinds, totals, sums, norm)


def _forward_and_backward(
    model: nn.Module, task: Task[Any], batch: Any, totals: Mapping[str, int], precision: Precision, meter: Meter
) -> Tensor:
    """Adds a micro-batch's gradients; returns its sums of losses and of right guesses, [2, kinds of loss]."""
    device = next(model.parameters()).device
    with meter.part("forward"), precision.autocast(device):
        output = task(model, batch)
        terms = (output.loss_sums[kind] / total for kind, total in totals.items())
        loss = sum(terms, torch.zeros((), device=device))
    with meter.part("backward"):
        loss.backward()
    sums = [[kinds[kind].detach() for kind in totals] for kinds in (output.loss_sums, output.correct)]
    return torch.stack([torch.stack(row).double() for row in sums])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU, whose error has no type of its own."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def _refuse_failures(failed: str, sums: Tensor, processes: Processes, optimizer: Optimizer) -> None:
    """Sums over all processes, and with them who failed: then all forget the gradients they have and raise."""
    failures = torch.full((1,), float(bool(failed)), dtype=torch.float64, device=sums.device)
    processes.sum_tensors([sums, failures])
    if not failed and (processes.count == 1 or not failures.item()):
        return
    optimizer.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise OutOfMemory(failed or "another process ran out of memory")


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


def _result(kinds: list[str], totals: dict[str, int], sums: Tensor, norm: Tensor) -> StepResult:
    loss_sums, correct = sums.tolist()
    losses = {kind: loss_sums[i] / totals[kind] for i, kind in enumerate(kinds)}
    accuracies = {kind: correct[i] / totals[kind] for i, kind in enumerate(kinds)}
    return StepResult(sum(losses.values()), losses, accuracies, float(norm))
