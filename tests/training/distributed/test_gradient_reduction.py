"""Gradient all-reduce over micro-batches and ranks: in the right order, each byte sent once, overlapping backward."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import warm
from lambert.training.distributed import gradient_reduction as module
from lambert.training.distributed.gradient_reduction import (
    BufferedGradients,
    FirstGradient,
    Gradients,
    TreeGradients,
    tree_sum,
)
from lambert.training.distributed.process_group import ProcessGroup


@dataclass(frozen=True)
class Counted(ProcessGroup):
    """Two identical ranks: an all-reduce doubles a tensor. Records what is sent."""

    world_size: int = 2
    sent: list[Tensor] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def all_reduce_async(self, tensor: Tensor) -> Callable[[], None]:
        self.sent.append(tensor.clone())
        self.log.append("sent")

        def wait() -> None:
            tensor.mul_(2)

        return wait

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            tensor.mul_(2)


def by_hand(leaves: Sequence[Tensor]) -> Tensor:
    """Reference for the sum in the tree that halves the range."""
    if len(leaves) == 1:
        return leaves[0]
    return by_hand(leaves[: len(leaves) // 2]) + by_hand(leaves[len(leaves) // 2 :])


@pytest.mark.parametrize(
    ("count", "order"),
    [(1, "0"), (2, "(0+1)"), (3, "(0+(1+2))"), (4, "((0+1)+(2+3))"), (6, "((0+(1+2))+(3+(4+5)))")],
)
def test_the_order_of_a_tree(count: int, order: str) -> None:
    assert tree_sum(count, str, lambda left, right: f"({left}+{right})") == order


@pytest.mark.parametrize("count", [2, 4, 8, 64])
def test_a_process_of_a_power_of_two_owns_a_subtree(count: int) -> None:
    """Summing each rank's part, then the parts, equals the tree over all micro-batches, bit for bit."""
    generator = torch.Generator().manual_seed(count)
    leaves = [torch.randn(50, generator=generator) * 10.0 ** (number % 7) for number in range(64)]
    parts = [by_hand([leaves[place] for place in ProcessGroup(rank, count).rank_range(64)]) for rank in range(count)]
    assert torch.equal(by_hand(parts), by_hand(leaves))
    assert not torch.equal(torch.stack(leaves).sum(0), by_hand(leaves))  # else the order would say nothing


def two_layers() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    return model, [(parameter, parameter) for parameter in model.parameters()]


def inputs(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(4, 6, generator=generator) * 10.0 ** (number % 3) for number in range(count)]


def own_gradients(model: nn.Module, batches: Sequence[Tensor]) -> list[list[Tensor]]:
    """Batch → parameter → its gradient, each from a backward pass of its own."""
    return [list(torch.autograd.grad(model(batch).square().sum(), list(model.parameters()))) for batch in batches]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_tree_of_micro_batches_is_bit_for_bit_the_one_by_hand(count: int) -> None:
    model, pairs = two_layers()
    batches = inputs(count)
    expected = [by_hand(list(leaves)) for leaves in zip(*own_gradients(model, batches), strict=True)]
    gradients = TreeGradients(pairs, ProcessGroup())
    for _ in range(2):  # buffers are used again
        gradients.accumulate(count, lambda number: model(batches[number]).square().sum().backward())
        gradients.reduce()
        for (own, _), sum_ in zip(pairs, expected, strict=True):
            assert own.grad is not None and torch.equal(own.grad, sum_)
            own.grad = None
    assert len(gradients._free) <= math.ceil(math.log2(count)) + 1


def test_each_byte_is_sent_once_a_step_and_in_the_order_of_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUCKET_BYTES", 100)
    model, pairs = two_layers()
    batches = inputs(3)
    processes = Counted()
    gradients = BufferedGradients(pairs, processes)
    expected = [2 * sum(leaves) for leaves in zip(*own_gradients(model, batches), strict=True)]
    first_layer = next(model.parameters())
    first_layer.register_post_accumulate_grad_hook(lambda _: processes.log.append("first layer"))
    for _ in range(2):
        processes.sent.clear()
        processes.log.clear()
        gradients.accumulate(3, lambda number: model(batches[number]).square().sum().backward())
        gradients.reduce()
        assert sum(tensor.nbytes for tensor in processes.sent) == sum(4 * own.numel() for own, _ in pairs)
        assert len(processes.sent) == len(gradients._buckets) > 2
        # Nothing is sent in the first two backward passes; in the last one, all but the first layer's before its end.
        assert processes.log[:2] == ["first layer"] * 2 and processes.log.index("sent") < processes.log.index(
            "first layer", 2
        )
        for (own, _), sum_ in zip(pairs, expected, strict=True):
            torch.testing.assert_close(own.grad, sum_, rtol=1e-6, atol=0)
            own.grad = None


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "buffered", "tree"])
def test_the_first_micro_batchs_gradient_is_taken_alone(kind: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a rank with a single micro-batch, whose buckets are launched during its only backward pass."""
    monkeypatch.setattr(module, "BUCKET_BYTES", 100)
    model, pairs = two_layers()
    other = nn.Parameter(torch.ones(5))
    pairs = [*pairs, (other, other)]  # without a gradient, but in the step before
    batches = inputs(count)
    expected = sum(float(gradient.double().square().sum()) for gradient in own_gradients(model, batches)[0])
    gradients = {
        "plain": lambda: Gradients([own for own, _ in pairs]),
        "buffered": lambda: BufferedGradients(pairs, Counted()),
        "tree": lambda: TreeGradients(pairs, ProcessGroup()),
    }[kind]()
    for uses in (True, False):
        for own, _ in pairs:
            own.grad = None

        def compute(number: int, uses: bool = uses) -> None:
            (model(batches[number]).square().sum() + (other.sum() if uses else 0)).backward()

        first = FirstGradient()
        gradients.accumulate(count, compute, first)
        gradients.reduce()
        square = first.square()
        assert square is not None and float(square) == pytest.approx(expected + (5 if uses else 0), rel=1e-6)
        gradients.accumulate(count, compute)
        gradients.reduce()
    assert FirstGradient().square() is None


def test_rounded_gradients_are_sent_as_bfloat16() -> None:
    model, pairs = two_layers()
    batches = inputs(2)
    processes = Counted()
    gradients = BufferedGradients(pairs, processes, rounds=True)
    gradients.accumulate(2, lambda number: model(batches[number]).square().sum().backward())
    gradients.reduce()
    assert {tensor.dtype for tensor in processes.sent} == {torch.bfloat16}
    for (own, _), leaves in zip(pairs, zip(*own_gradients(model, batches), strict=True), strict=True):
        assert own.grad is not None and own.grad.dtype == torch.float32
        assert torch.equal(own.grad, 2 * sum(leaves).bfloat16().float())


@pytest.mark.parametrize("kind", ["buffered", "tree"])
def test_who_gets_no_gradient_has_none(kind: str) -> None:
    model, pairs = two_layers()
    other = nn.Parameter(torch.ones(5))
    pairs = [*pairs, (other, other)]
    make = {"buffered": BufferedGradients, "tree": TreeGradients}[kind]
    gradients = make(pairs, ProcessGroup() if kind == "tree" else Counted())
    batch = inputs(1)[0]
    for uses in (False, True, False):

        def compute(_: int, uses: bool = uses) -> None:
            (model(batch).square().sum() + (other.sum() if uses else 0)).backward()

        gradients.accumulate(2, compute)
        gradients.reduce()
        assert (other.grad is not None) == uses
        if uses:
            assert torch.equal(other.grad, torch.full((5,), 2.0 if kind == "tree" else 4.0))
        for own, _ in pairs:
            own.grad = None


def test_a_sparse_gradient_becomes_dense() -> None:
    words = nn.Embedding(9, 4, sparse=True)
    gradients = BufferedGradients([(words.weight, words.weight)], ProcessGroup())
    gradients.accumulate(2, lambda number: words(torch.tensor([number, 3, 3])).sum().backward())
    gradients.reduce()
    expected = torch.zeros(9, 4)
    expected[0] = expected[1] = 1.0
    expected[3] = 4.0
    assert words.weight.grad is not None and torch.equal(words.weight.grad, expected)


def test_a_bfloat16_models_gradients_are_added_up_in_float32() -> None:
    """256 times 1 and one thousandth: in bfloat16 the sum would stay at 256."""
    own = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    target = torch.zeros(1)
    gradients = BufferedGradients([(own, target)], ProcessGroup())
    gradients.accumulate(300, lambda number: (own * 1.0078125).sum().backward())
    gradients.reduce()
    assert target.grad is not None and float(target.grad) == 300 * 1.0078125 and own.grad is None


LENGTHS = (1, 3, 4, 7, 1_000)


def _sum_in_processes(rank: int, count: int, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    processes = ProcessGroup(rank, count)
    sums = []
    for length in LENGTHS:
        own = vector(rank, length)
        processes.tree_all_reduce(own)
        sums.append(own)
    torch.cat(sums).numpy().tofile(f"{out}-{rank}")
    torch.distributed.destroy_process_group()


def vector(rank: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * rank + length)
    return torch.randn(length, generator=generator) * 10.0**rank


@pytest.mark.integration
@pytest.mark.parametrize("count", [2, 4])
def test_the_tree_over_processes_is_the_one_by_hand_everywhere(tmp_path: Path, count: int) -> None:
    warm.run_all(_sum_in_processes, count, str(tmp_path / "meet"), str(tmp_path / "sums"))
    expected = torch.cat([by_hand([vector(rank, length) for rank in range(count)]) for length in LENGTHS])
    for rank in range(count):
        found = torch.from_file(str(tmp_path / f"sums-{rank}"), size=sum(LENGTHS))
        assert torch.equal(found, expected), f"process {rank}"


@pytest.mark.parametrize("kind", [BufferedGradients, TreeGradients])
def test_a_model_that_nobody_uses_is_freed(kind: type[BufferedGradients] | type[TreeGradients]) -> None:
    """A hook that held the gradients kept every model of a process: several are made to time steps."""

    def train() -> list[weakref.ref[Tensor]]:
        model = nn.Linear(3, 2)
        gradients = kind([(parameter, parameter) for parameter in model.parameters()], ProcessGroup())
        gradients.accumulate(1, lambda number: model(torch.ones(1, 3)).sum().backward())
        return [weakref.ref(parameter) for parameter in model.parameters()]

    weights = train()
    gc.collect()
    assert [weight() for weight in weights] == [None, None]


@pytest.mark.parametrize("kind", [BufferedGradients, TreeGradients])
@pytest.mark.parametrize("bucket_bytes", [100, 10**6])
@pytest.mark.parametrize("uses", [(0, 1, 0, 1), (1, 1, 1, 1), (0, 0, 0, 0)])
def test_gradients_kept_until_all_are_there_have_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, kind: type[Gradients], bucket_bytes: int, uses: tuple[int, ...]
) -> None:
    """As on a GPU; in bfloat16 to float32, and with a layer that only some micro-batches use."""
    monkeypatch.setattr(module, "BUCKET_BYTES", bucket_bytes)
    build = module._Bucket.__init__

    def run(keeps: bool) -> list[Tensor | None]:
        def kept(self: module._Bucket, *args: object) -> None:
            build(self, *args)  # type: ignore[arg-type]
            self.keeps_arrived = keeps

        monkeypatch.setattr(module._Bucket, "__init__", kept)
        model = two_layers()[0].bfloat16()
        masters = [nn.Parameter(parameter.detach().float()) for parameter in model.parameters()]
        gradients = kind(list(zip(model.parameters(), masters, strict=True)), ProcessGroup())  # type: ignore[call-arg]

        def compute(number: int) -> None:
            rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(number)).bfloat16()
            hidden = model[:4](rows) if uses[number] else model[:2](rows)
            model[4](hidden).sum().backward()

        for _ in range(2):
            gradients.accumulate(len(uses), compute)
            gradients.reduce()
        assert not any(parameter.grad is not None for parameter in model.parameters())
        return [master.grad for master in masters]

    for ours, expected in zip(run(True), run(False), strict=True):
        assert (ours is None) == (expected is None)
        assert ours is None or (expected is not None and torch.equal(ours, expected))
