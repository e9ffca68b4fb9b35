"""How the gradients of all micro-batches of all processes become one sum.

Three ways: as autograd leaves them (one process, float32 weights); added up in float32 buffers that are summed over the
processes while the last backward pass still runs; or in one fixed binary tree, so that the sum has the same bits on any
number of processes. PyTorch's DistributedDataParallel does the second for weights of one dtype; here bfloat16
gradients of every micro-batch are added up in float32, and the order of the sums can be fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from lambert.training.distributed.process_group import ProcessGroup

BUCKET_BYTES = 25_000_000
"""Of gradients that are summed in one collective; DistributedDataParallel's default."""
Pair = tuple[Tensor, Tensor]
"""A parameter of the model, and the one that the optimizer updates for it: the same, or its float32 copy."""
Compute = Callable[[int], None]
Value = TypeVar("Value")


class FirstGradient:
    """Takes the squared norm of what a process's first micro-batch gives, before anything is added to it."""

    def __init__(self) -> None:
        self._squares: list[Tensor] = []

    @torch.no_grad()
    def take(self, gradients: Sequence[Tensor]) -> None:
        """The gradient, or a part of it."""
        if gradients:
            self._squares.append(nn.utils.get_total_norm(gradients).double().square())

    def square(self) -> Tensor | None:
        """The squared norm of all that was taken, float64 [] on its device; None where nothing was."""
        return torch.stack(self._squares).sum() if self._squares else None


class Gradients:
    """What autograd leaves in the parameters of a single process.

    Args:
        parameters: whose gradients they are; needed where the first one is asked for.
    """

    def __init__(self, parameters: Iterable[Tensor] = ()) -> None:
        self._parameters = list(parameters)

    def accumulate(self, count: int, compute: Compute, first: FirstGradient | None = None) -> None:
        """Call `compute` for each of this process's micro-batches: it runs the backward pass.

        Args:
            first: gets the first micro-batch's gradient, at the latest in `reduce`; nothing where that cannot be had.
        """
        for number in range(count):
            compute(number)
            if number == 0 and first is not None:
                first.take([parameter.grad for parameter in self._parameters if parameter.grad is not None])

    def reduce(self) -> None:
        """Leave in `grad` of every parameter of the optimizer the sum over all processes.

        To be called also by a process whose `accumulate` failed: the others wait for it.
        """

    def all_reduce_stats(self, stats: Sequence[Tensor]) -> Tensor:
        """The sum over all processes of vectors, one for each of this process's micro-batches."""
        return torch.stack(list(stats)).sum(0)


class BufferedGradients(Gradients):
    """Adds gradients up in float32 buffers, which are summed over the processes as soon as they are complete.

    Args:
        pairs: in the order of the model; gradients come about in the reverse order.
        rounds: send gradients as bfloat16; sums are taken in that format.
    """

    def __init__(self, pairs: Sequence[Pair], processes: ProcessGroup, *, rounds: bool = False) -> None:
        self._processes, self._rounds = processes, rounds
        self._buckets = [_Bucket(part) for part in _cut(reversed(pairs))]
        self._launched = 0
        self._waiting: list[Callable[[], None]] = []
        self._is_last = False
        self._first: FirstGradient | None = None
        """Wants what is in the buckets when they are sent."""
        for bucket in self._buckets:
            for index, (own, _) in enumerate(bucket.pairs):
                own.register_post_accumulate_grad_hook(self._collector(bucket, index))

    def accumulate(self, count: int, compute: Compute, first: FirstGradient | None = None) -> None:
        """As of every kind of gradients."""
        self._launched = 0
        self._first = first if count == 1 else None  # buckets are on their way before the backward pass ends
        for bucket in self._buckets:
            bucket.forget()
        for number in range(count):
            self._is_last = number == count - 1
            compute(number)
            if number == 0 < count - 1 and first is not None:
                first.take([slot for bucket in self._buckets for slot in bucket.filled_slots()])

    def reduce(self) -> None:
        """As of every kind of gradients."""
        self._is_last = False
        while self._processes.world_size > 1 and self._launched < len(self._buckets):
            self._launch()
        for wait in self._waiting:
            wait()
        self._waiting = []
        for bucket in self._buckets:
            bucket.hand_over()

    def all_reduce_stats(self, stats: Sequence[Tensor]) -> Tensor:
        """As of every kind of gradients."""
        own = super().all_reduce_stats(stats)
        self._processes.all_reduce([own])
        return own

    def _collector(self, bucket: _Bucket, index: int) -> Callable[[Tensor], None]:
        def collect(parameter: Tensor) -> None:
            bucket.take(index, parameter)
            if self._is_last and self._processes.world_size > 1:
                assert bucket not in self._buckets[: self._launched], "a gradient came after its bucket was sent"
                bucket.missing.discard(index)
                while self._launched < len(self._buckets) and not self._buckets[self._launched].missing:
                    self._launch()

        return collect

    def _launch(self) -> None:
        """Begin to sum the next bucket; all processes take them in the same order."""
        bucket = self._buckets[self._launched]
        self._launched += 1
        bucket.fill_untouched()
        if self._first is not None:
            self._first.take([bucket.flat])
        if not self._rounds:
            self._waiting.append(self._processes.all_reduce_async(bucket.flat))
            return
        rounded = bucket.flat.to(torch.bfloat16)
        wait = self._processes.all_reduce_async(rounded)

        def widen() -> None:
            wait()
            bucket.flat.copy_(rounded)

        self._waiting.append(widen)


class TreeGradients(Gradients):
    """Adds gradients up in one binary tree over all micro-batches of the step, regardless of their rank.

    The range of micro-batches is halved from the top down; a process owns a contiguous part, which is a subtree where
    their number is a power of two that divides the number of micro-batches. A sum of two numbers does not depend on
    their order, so neither does the tree's.
    """

    def __init__(self, pairs: Sequence[Pair], processes: ProcessGroup) -> None:
        self._pairs, self._processes = list(pairs), processes
        self._free: list[_Bucket] = []
        self._leaf = _Bucket(self._pairs)
        self._total: _Bucket | None = None
        for index, (own, _) in enumerate(self._pairs):
            own.register_post_accumulate_grad_hook(lambda parameter, index=index: self._leaf.take(index, parameter))

    def accumulate(self, count: int, compute: Compute, first: FirstGradient | None = None) -> None:
        """As of every kind of gradients."""
        self._total = None

        def leaf(number: int) -> _Bucket:
            self._leaf = self._free.pop() if self._free else _Bucket(self._pairs)
            self._leaf.forget()
            compute(number)
            self._leaf.fill_untouched()
            if number == 0 and first is not None:
                first.take([self._leaf.flat])
            return self._leaf

        self._total = tree_sum(count, leaf, self._add)

    def reduce(self) -> None:
        """As of every kind of gradients."""
        total = self._total or self._leaf  # the latter only where this process has failed
        self._processes.tree_all_reduce(total.flat)
        total.hand_over()
        self._free = [*self._free, total]

    def all_reduce_stats(self, stats: Sequence[Tensor]) -> Tensor:
        """As of every kind of gradients."""
        own = tree_sum(len(stats), lambda number: stats[number].clone(), Tensor.add_)
        self._processes.tree_all_reduce(own)
        return own

    def _add(self, left: _Bucket, right: _Bucket) -> _Bucket:
        left.flat += right.flat
        left.touched |= right.touched
        self._free.append(right)
        return left


def tree_sum(count: int, leaf: Callable[[int], Value], add: Callable[[Value, Value], Value], first: int = 0) -> Value:
    """The sum of leaves `first` … `first + count − 1`, in the tree that halves the range; at most log₂ count (rounded
    up) + 1 of them are there at a time.
    """
    if count == 1:
        return leaf(first)
    half = count // 2
    left = tree_sum(half, leaf, add, first)
    return add(left, tree_sum(count - half, leaf, add, first + half))


class _Bucket:
    """One flat float32 tensor with slot for the gradients of some parameters."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)
        sizes = [target.numel() for _, target in self.pairs]
        self.flat = torch.zeros(sum(sizes), dtype=torch.float32, device=self.pairs[0][1].device)
        self._slots = [
            slot.view(target.shape) for slot, (_, target) in zip(self.flat.split(sizes), self.pairs, strict=True)
        ]
        self.touched: set[int] = set()
        self.missing = set(range(len(self.pairs)))
        """Whose gradients this sum waits for: those that had one in an earlier step, in the first step all."""
        self._ever_touched: set[int] = set()

    def forget(self) -> None:
        """Begin a new sum."""
        self._ever_touched |= self.touched
        self.missing = set(self._ever_touched or range(len(self.pairs)))
        self.touched = set()

    @torch.no_grad()
    def take(self, index: int, parameter: Tensor) -> None:
        """Move the gradient that a backward pass has just made into this buffer."""
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        if gradient.is_sparse:  # of an embedding that nothing else uses
            gradient = gradient.to_dense()
        slot = self._slots[index]
        if index in self.touched:
            slot.add_(gradient)
        else:
            slot.copy_(gradient)
            self.touched.add(index)

    def filled_slots(self) -> list[Tensor]:
        """The gradients that came in this sum."""
        return [self._slots[index] for index in sorted(self.touched)]

    def fill_untouched(self) -> None:
        """Zeros for what got no gradient in this sum."""
        for index, slot in enumerate(self._slots):
            if index not in self.touched:
                slot.zero_()

    def hand_over(self) -> None:
        """Make this buffer the gradients of the parameters that have one."""
        for index in self.touched:
            self.pairs[index][1].grad = self._slots[index]


def _cut(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Runs of parameters of at most `BUCKET_BYTES` of gradients, or of a single larger one."""
    buckets: list[list[Pair]] = [[]]
    filled = 0
    for pair in pairs:
        size = 4 * pair[1].numel()
        if filled and filled + size > BUCKET_BYTES:
            buckets.append([])
            filled = 0
        buckets[-1].append(pair)
        filled += size
    return buckets
