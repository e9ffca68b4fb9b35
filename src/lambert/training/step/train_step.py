"""The optimizer step of all training: accumulate, all-reduce, clip, update. It reads and writes no files.

The loss is that of the global batch: each kind of loss is summed over all its terms, in all micro-batches on all ranks,
and divided once by their number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lambert.errors import Interrupted
from lambert.training.config.precision import MasterWeights, Precision
from lambert.training.distributed.gradient_reduction import FirstGradient, Gradients
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.download import Download
from lambert.training.step.timer import StepTimer
from lambert.utils.memory import is_out_of_memory


@dataclass(frozen=True)
class TaskOutput:
    """Output of a task for one micro-batch; the keys are those of its `counts()`."""

    loss_sums: Mapping[str, Tensor]
    """Kind of loss → its sum over this micro-batch, a 0-dimensional tensor; without a gradient it is only measured."""
    correct: Mapping[str, Tensor]
    """Loss term → number of correct predictions."""


_NO_ROOM = (
    "Smaller micro-batches do not help: free memory that other programs use, or take a smaller `model` or another "
    "`optimizer` (lars and muon keep least); a run resumes from its last checkpoint"
)


class OutOfMemory(MemoryError):
    """A micro-batch did not fit into the memory of some rank."""


class MicroBatch(Protocol):
    """A part of the global batch for one forward and backward pass."""

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
    """Metrics of one step over the global batch."""

    loss: float
    """Sum of those `losses` that are trained on."""
    losses: dict[str, float]
    """Kind of loss → its mean over the global batch."""
    accuracies: dict[str, float]
    """Loss term → accuracy."""
    gradient_norm: float
    """L2 norm of the whole gradient before clipping."""
    not_finite: tuple[int, ...] = ()
    """Indices of this rank's micro-batches with a NaN/Inf loss."""
    first_norm: float | None = None
    """L2 norm of the gradient of rank 0's first micro-batch; None if not measured."""

    @property
    def applied(self) -> bool:
        """Whether the weights were updated: not if any rank had a NaN/Inf loss or gradient."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


class PendingStep:
    """A step whose work is launched. On a GPU its numbers arrive later, on the CPU they are there."""

    def __init__(self, numbers: Tensor, result_of: Callable[[list[float]], StepResult]) -> None:
        self._result_of, self._numbers = result_of, Download(numbers)

    @cached_property
    def result(self) -> StepResult:
        """The metrics of the step; waits for the device if it is not done."""
        return self._result_of(self._numbers.read().tolist())


def train_step(model: nn.Module, optimizer: Optimizer, micro_batches: Sequence[Batch], **options: Any) -> StepResult:
    """`launch_step`, and wait for its result."""
    return launch_step(model, optimizer, micro_batches, **options).result


def launch_step(
    model: nn.Module,
    optimizer: Optimizer,
    micro_batches: Sequence[Batch],
    *,
    task: Task[Batch],
    learning_rate: float,
    max_grad_norm: float | None,
    dropout_seeds: Sequence[int],
    precision: Precision = Precision.FLOAT32,
    processes: ProcessGroup | None = None,
    master: MasterWeights | None = None,
    gradients: Gradients | None = None,
    timer: StepTimer | None = None,
    measures_first: bool = False,
) -> PendingStep:
    """Do one update of `model` from the micro-batches of this rank.

    If any rank has a NaN/Inf loss or gradient, all ranks skip the update, counters included (`StepResult.applied`). An
    optimizer on a GPU that takes `found_inf`, as PyTorch's fused ones do, decides that on the device; with others the
    host waits for the gradient norm.

    Args:
        micro_batches: this rank's part of the global batch.
        task: model and micro-batch → sums of losses and of correct predictions.
        max_grad_norm: largest L2 norm of the whole gradient; None for no clipping, or clipping in the optimizer.
        dropout_seeds: one for each micro-batch; they alone determine the dropout masks.
        processes: the ranks that share the global batch; None for a single rank.
        master: float32 master weights of a bfloat16 model.
        gradients: their accumulation and reduction; None for plain autograd on a single rank.
        timer: measures the sections of the step.
        measures_first: measure the gradient norm of the first micro-batch; changes no other bit.

    Returns:
        The step, whose `result` has loss and accuracy of the global batch before the update.

    Raises:
        OutOfMemory: a micro-batch did not fit on some rank; no weight has changed on any.
        Interrupted: the update did not fit; only the first one on a GPU is sure to have changed no weight.
    """
    assert len(dropout_seeds) == len(micro_batches) > 0
    model.train()
    device = next(model.parameters()).device
    processes, timer = processes or ProcessGroup(), timer or StepTimer(device)
    gradients = gradients or _plain(optimizer)
    assert processes.world_size == 1 or type(gradients) is not Gradients, "plain gradients serve a single rank"
    totals = _global_counts(micro_batches, processes)
    stats: list[Tensor] = []
    trained: set[str] = set()

    def compute(number: int) -> None:
        torch.manual_seed(dropout_seeds[number])
        batch = micro_batches[number].to(device)
        own, kinds_trained = forward_and_backward(model, task, batch, totals, precision, timer)
        stats.append(own)
        trained.update(kinds_trained)

    first = FirstGradient() if measures_first and processes.is_main_process else None
    failed = _out_of_memory(lambda: gradients.accumulate(len(micro_batches), compute, first))
    with timer.section("communication"):
        gradients.reduce()
        _refuse_failures(failed, processes, optimizer)
        sums = gradients.all_reduce_stats(_with_square(stats, first))
    result_of = partial(_result, trained, totals, stats)
    with timer.section("optimizer"), _update_fits():
        return _update(optimizer, learning_rate, max_grad_norm, master, sums, result_of)


def _plain(optimizer: Optimizer) -> Gradients:
    return Gradients(parameter for group in optimizer.param_groups for parameter in group["params"])


def _update(
    optimizer: Optimizer,
    learning_rate: float,
    max_grad_norm: float | None,
    master: MasterWeights | None,
    sums: Tensor,
    result_of: Callable[[list[float]], StepResult],
) -> PendingStep:
    """Clip and update if loss and gradient are finite; clears the gradients either way."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = _clip(parameters, max_grad_norm)
    numbers = torch.cat([sums, norm.to(sums)[None]])
    pending = PendingStep(numbers, result_of)
    skips_on_device = _skips_on_device(optimizer, numbers.device)
    if skips_on_device:
        optimizer.found_inf = numbers.sum().mul(0).ne(0).float()  # type: ignore[attr-defined]
    if skips_on_device or pending.result.applied:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)
        if skips_on_device and not optimizer.state:
            _rehearse(optimizer)
        optimizer.step()
        if master is not None:
            master.copy_to_model()
    optimizer.zero_grad(set_to_none=True)
    return pending


def _skips_on_device(optimizer: Optimizer, device: torch.device) -> bool:
    return device.type == "cuda" and getattr(optimizer, "_step_supports_amp_scaling", False)


def _rehearse(optimizer: Any) -> None:
    """A step that the device skips: if moments or temporaries do not fit, no weight has changed yet."""
    found_inf = optimizer.found_inf
    optimizer.found_inf = torch.ones_like(found_inf)
    optimizer.step()
    optimizer.found_inf = found_inf


def forward_and_backward(
    model: nn.Module, task: Task[Any], batch: Any, totals: Mapping[str, int], precision: Precision, timer: StepTimer
) -> tuple[Tensor, Collection[str]]:
    """Accumulate the gradients of a micro-batch; returns its stats [2 · kinds + 1]: sums of losses and of correct
    predictions, and a slot for a squared norm; and the kinds of loss that have a gradient.

    Args:
        totals: kind of loss → terms it sums over in the global batch, by which it is divided.
        precision: dtype of the forward pass.
    """
    device = next(model.parameters()).device
    with timer.section("forward"), precision.autocast(device):
        output = task(model, batch)
        trained = {kind: value for kind, value in output.loss_sums.items() if value.requires_grad}
        terms = (trained[kind] / max(total, 1) for kind, total in totals.items() if kind in trained)
        loss = sum(terms, torch.zeros((), device=device))
    with timer.section("backward"):
        loss.backward()
    sums = [kinds[kind].detach().double() for kinds in (output.loss_sums, output.correct) for kind in totals]
    return torch.stack([*sums, torch.zeros_like(sums[0])]), trained.keys()


def _with_square(stats: list[Tensor], first: FirstGradient | None) -> list[Tensor]:
    """Store the squared gradient norm of the first micro-batch, if measured, in its stats."""
    square = None if first is None else first.square()
    if square is not None:
        stats[0][-1] = square
    return stats


@contextmanager
def _update_fits() -> Iterator[None]:
    """Turn an out-of-memory error of the update into the end of the run."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise Interrupted(f"the optimizer's update does not fit into memory ({first})", remedy=_NO_ROOM) from None


def _out_of_memory(work: Callable[[], None]) -> str:
    """Run `work`; returns the out-of-memory error, or an empty string."""
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return str(error) or type(error).__name__
    return ""


def _refuse_failures(failed: str, processes: ProcessGroup, optimizer: Optimizer) -> None:
    """If any rank failed, clear the gradients and raise on all ranks."""
    if not processes.all_reduce_max([int(bool(failed))])[0]:
        return
    optimizer.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise OutOfMemory(failed or "another rank ran out of memory")


def _global_counts(micro_batches: Sequence[Any], processes: ProcessGroup) -> dict[str, int]:
    """Kind of loss, sorted → number of terms in the global batch."""
    local: Counter[str] = Counter()
    for micro_batch in micro_batches:
        local.update(micro_batch.counts())
    kinds = sorted(local)
    totals = processes.all_reduce_ints([local[kind] for kind in kinds])
    return dict(zip(kinds, totals, strict=True))


def _clip(parameters: list[Tensor], most: float | None) -> Tensor:
    """L2 norm of the gradients before clipping them to `most`."""
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of sharded gradients
    # On a CPU, reading the norm is free and avoids scaling all gradients by 1.
    if most is not None and (norm.device.type != "cpu" or not norm <= most):
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def _result(
    trained: Collection[str], totals: dict[str, int], stats: Sequence[Tensor], numbers: list[float]
) -> StepResult:
    """Means of the global batch from the reduced stats and, last, the gradient norm."""
    *sums, first_square, norm = numbers

    def means(values: Sequence[float]) -> dict[str, float]:
        pairs = zip(totals.items(), values, strict=True)
        return {kind: value / total if total else math.nan for (kind, total), value in pairs}

    losses, accuracies = means(sums[: len(totals)]), means(sums[len(totals) :])
    loss = sum((value for kind, value in losses.items() if kind in trained and totals[kind]), 0.0)
    broken = () if math.isfinite(loss) else tuple(i for i, own in enumerate(stats) if not own.isfinite().all())
    first_norm = math.sqrt(first_square) if first_square > 0 else None
    return StepResult(loss, losses, accuracies, norm, broken, first_norm)
