"""Gradient accumulation over micro-batches, and all-reduce over ranks.

Three ways: plain autograd (one rank, float32 weights); float32 buckets that are all-reduced during the last backward
pass; or a deterministic tree all-reduce, which gives the same bits for any world size. PyTorch's
DistributedDataParallel does the second for weights of one dtype. Here bfloat16 gradients are accumulated in float32,
and the summation order can be fixed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from lambert.training.distributed.process_group import ProcessGroup

BUCKET_BYTES = 25_000_000
"""Gradient bytes in one all-reduce; DistributedDataParallel's default."""
Pair = tuple[Tensor, Tensor]
"""A model parameter, and the parameter that the optimizer updates: the same, or its float32 copy."""
Compute = Callable[[int], None]
Value = TypeVar("Value")


class FirstGradient:
    """Measures the squared gradient norm of a rank's first micro-batch, before others are added."""

    def __init__(self) -> None:
        self._squares: list[Tensor] = []

    @torch.no_grad()
    def take(self, gradients: Sequence[Tensor]) -> None:
        """Add the gradient, or a part of it."""
        if gradients:
            self._squares.append(nn.utils.get_total_norm(gradients).double().square())

    def square(self) -> Tensor | None:
        """Squared norm of all parts taken, float64 [] on their device; None without any."""
        return torch.stack(self._squares).sum() if self._squares else None


class Gradients:
    """Plain autograd gradients of a single rank.

    Args:
        parameters: the parameters; only needed with `first`.
    """

    def __init__(self, parameters: Iterable[Tensor] = ()) -> None:
        self._parameters = list(parameters)

    def accumulate(self, count: int, compute: Compute, first: FirstGradient | None = None) -> None:
        """Call `compute`, which runs the backward pass, for each of this rank's micro-batches.

        Args:
            first: gets the gradient of the first micro-batch, at the latest in `reduce`, if it is available.
        """
        for number in range(count):
            compute(number)
            if number == 0 and first is not None:
                first.take([parameter.grad for parameter in self._parameters if parameter.grad is not None])

    def reduce(self) -> None:
        """All-reduce the gradients into `grad` of the optimizer's parameters.

        Call it even if `accumulate` failed on this rank: the others wait for it.
        """

    def all_reduce_stats(self, stats: Sequence[Tensor]) -> Tensor:
        """Sum vectors, one for each micro-batch, over all micro-batches and ranks."""
        return torch.stack(list(stats)).sum(0)


class BufferedGradients(Gradients):
    """Accumulates gradients in float32 buckets, each all-reduced as soon as it is complete.

    Args:
        pairs: in model order; gradients become ready in reverse order.
        rounds: all-reduce in bfloat16.
    """

    def __init__(self, pairs: Sequence[Pair], processes: ProcessGroup, *, rounds: bool = False) -> None:
        self._processes, self._rounds = processes, rounds
        self._buckets = [_Bucket(part) for part in _bucketed(reversed(pairs))]
        self._launched = 0
        self._waiting: list[Callable[[], None]] = []
        self._is_last = False
        self._first: FirstGradient | None = None
        """Measures the buckets when they are launched."""
        for number, bucket in enumerate(self._buckets):
            for index, (own, _) in enumerate(bucket.pairs):
                own.register_post_accumulate_grad_hook(_weak_hook(self._collect, number, index))

    def accumulate(self, count: int, compute: Compute, first: FirstGradient | None = None) -> None:
        """See `Gradients`."""
        self._launched = 0
        self._first = first if count == 1 else None  # buckets are launched before the backward pass ends
        for bucket in self._buckets:
            bucket.forget()
        for number in range(count):
            self._is_last = number == count - 1
            compute(number)
            for bucket in self._buckets:
                bucket.accumulate_arrived()
            if number == 0 < count - 1 and first is not None:
                first.take([slot for bucket in self._buckets for slot in bucket.filled_slots()])

    def reduce(self) -> None:
        """See `Gradients`."""
        self._is_last = False
        while self._processes.world_size > 1 and self._launched < len(self._buckets):
            self._launch()
        for wait in self._waiting:
            wait()
        self._waiting = []
        for bucket in self._buckets:
            bucket.hand_over()

    def all_reduce_stats(self, stats: Sequence[Tensor]) -> Tensor:
        """See `Gradients`."""
        own = super().all_reduce_stats(stats)
        self._processes.all_reduce([own])
        return own

    def _collect(self, number: int, index: int, parameter: Tensor) -> None:
        bucket = self._buckets[number]
        bucket.take(index, parameter)
        if self._is_last and self._processes.world_size > 1:
            assert number >= self._launched, "a gradient arrived after its bucket was launched"
            bucket.missing.discard(index)
            while self._launched < len(self._buckets) and not self._buckets[self._launched].missing:
                self._launch()

    def _launch(self) -> None:
        """Start the all-reduce of the next bucket; all ranks use the same order."""
        bucket = self._buckets[self._launched]
        self._launched += 1
        bucket.accumulate_arrived()
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
    """Deterministic tree all-reduce: one binary tree over all micro-batches of the step, regardless of their rank.

    The range of micro-batches is halved from the top down. Each rank owns a contiguous part, which is a subtree if the
    world size is a power of two that divides the number of micro-batches. Addition of two numbers is commutative, so
    the result does not depend on which rank computes it.
    """

    def __init__(self, pairs: Sequence[Pair], processes: ProcessGroup) -> None:
        self._pairs, self._processes = list(pairs), processes
        self._free: list[_Bucket] = []
        self._leaf = _Bucket(self._pairs)
        self._total: _Bucket | None = None
        for index, (own, _) in enumerate(self._pairs):
            own.register_post_accumulate_grad_hook(_weak_hook(self._collect, index))

    def _collect(self, index: int, parameter: Tensor) -> None:
        self._leaf.take(index, parameter)

    def accumulate(self, count: int, compute: Compute, first: FirstGradient | None = None) -> None:
        """See `Gradients`."""
        self._total = None

        def leaf(number: int) -> _Bucket:
            self._leaf = self._free.pop() if self._free else _Bucket(self._pairs)
            self._leaf.forget()
            compute(number)
            self._leaf.accumulate_arrived()
            self._leaf.fill_untouched()
            if number == 0 and first is not None:
                first.take([self._leaf.flat])
            return self._leaf

        self._total = tree_sum(count, leaf, self._add)

    def reduce(self) -> None:
        """See `Gradients`."""
        total = self._total or self._leaf  # the leaf only if this rank failed
        self._processes.tree_all_reduce(total.flat)
        total.hand_over()
        self._free = [*self._free, total]

    def all_reduce_stats(self, stats: Sequence[Tensor]) -> Tensor:
        """See `Gradients`."""
        own = tree_sum(len(stats), lambda number: stats[number].clone(), Tensor.add_)
        self._processes.tree_all_reduce(own)
        return own

    def _add(self, left: _Bucket, right: _Bucket) -> _Bucket:
        left.flat += right.flat
        left.touched |= right.touched
        self._free.append(right)
        return left


def _weak_hook(collect: Callable[..., None], *numbers: int) -> Callable[[Tensor], None]:
    """A hook of a parameter that does not keep the gradients alive: the collector does not see cycles through hooks."""
    method = weakref.WeakMethod(collect)

    def hook(parameter: Tensor) -> None:
        if (found := method()) is not None:
            found(*numbers, parameter)

    return hook


def tree_sum(count: int, leaf: Callable[[int], Value], add: Callable[[Value, Value], Value], first: int = 0) -> Value:
    """Sum leaves `first` … `first + count − 1` in a binary tree that halves the range. At most ⌈log₂ count⌉ + 1 partial
    sums exist at a time.
    """
    if count == 1:
        return leaf(first)
    half = count // 2
    left = tree_sum(half, leaf, add, first)
    return add(left, tree_sum(count - half, leaf, add, first + half))


class _Bucket:
    """A flat float32 tensor with one slot (a view) for each parameter's gradient.

    On a GPU gradients are kept until all have arrived, and accumulated together: a launch for each would take longer
    than its work.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)
        sizes = [target.numel() for _, target in self.pairs]
        self.flat = torch.zeros(sum(sizes), dtype=torch.float32, device=self.pairs[0][1].device)
        self._slots = [
            slot.view(target.shape) for slot, (_, target) in zip(self.flat.split(sizes), self.pairs, strict=True)
        ]
        self.touched: set[int] = set()
        self.missing = set(range(len(self.pairs)))
        """Parameters still to come: those with a gradient in an earlier step; in the first step all."""
        self._ever_touched: set[int] = set()
        self.keeps_arrived = self.flat.device.type != "cpu"
        self._arrived: dict[int, Tensor] = {}
        """Gradients of this backward pass that are not accumulated yet."""

    def forget(self) -> None:
        """Start a new accumulation."""
        self._ever_touched |= self.touched
        self.missing = set(self._ever_touched or range(len(self.pairs)))
        self.touched = set()
        self._arrived = {}

    @torch.no_grad()
    def take(self, index: int, parameter: Tensor) -> None:
        """Accumulate the gradient of the last backward pass into its slot."""
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        if gradient.is_sparse:  # of an embedding whose weights are not tied
            gradient = gradient.to_dense()
        if self.keeps_arrived:
            self._arrived[index] = gradient
            if len(self._arrived) == len(self._slots):
                self.accumulate_arrived()
            return
        slot = self._slots[index]
        if index in self.touched:
            slot.add_(gradient)
        else:
            slot.copy_(gradient)
            self.touched.add(index)

    @torch.no_grad()
    def accumulate_arrived(self) -> None:
        """Accumulate the gradients that are kept, at the end of a backward pass at the latest."""
        arrived, self._arrived = self._arrived, {}
        new = [index for index in arrived if index not in self.touched]
        again = [index for index in arrived if index in self.touched]
        if new:
            torch._foreach_copy_([self._slots[index] for index in new], [arrived[index] for index in new])
            self.touched.update(new)
        if len(again) == len(self._slots):  # in their own dtype, half of float32, in one piece
            self.flat.add_(torch.cat([arrived[index].reshape(-1) for index in range(len(self._slots))]))
        elif again:
            wide = [torch.empty_like(self._slots[index]) for index in again]
            torch._foreach_copy_(wide, [arrived[index] for index in again])
            torch._foreach_add_([self._slots[index] for index in again], wide)

    def filled_slots(self) -> list[Tensor]:
        """The slots filled in this accumulation."""
        return [self._slots[index] for index in sorted(self.touched)]

    def fill_untouched(self) -> None:
        """Zero the slots without a gradient."""
        for index, slot in enumerate(self._slots):
            if index not in self.touched:
                slot.zero_()

    def hand_over(self) -> None:
        """Set the filled slots as the gradients of their parameters."""
        for index in self.touched:
            self.pairs[index][1].grad = self._slots[index]


def _bucketed(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Split parameters into buckets of at most `BUCKET_BYTES`, or of one larger parameter."""
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
