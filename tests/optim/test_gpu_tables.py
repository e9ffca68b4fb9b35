"""What LAMB hands to its GPU kernels, seen by stand-ins for them: addresses, copies, devices, and when none can run."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lambert.optim import LAMB
from lambert.optim.engine import kernel_of
from lambert.optim.kernels import cpu, gpu

CHUNK = 64


class Kernels:
    """Keeps the grid of each launch; `active` is the device that a guard has made current."""

    def __init__(self) -> None:
        self.launched: list[str] = []
        self.active: torch.device | None = None
        self.module: Any = SimpleNamespace(
            tl=SimpleNamespace(float32="float32", bfloat16="bfloat16", float16="float16"),
            CHUNK=CHUNK,
            NUMBERS=14,
            VALUES=10,
            WARPS=8,
        )
        for name in ("prepare", "update_moments", "add_up", "apply_update"):
            setattr(self.module, name, self)

    @contextlib.contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        self.active = device
        yield
        self.active = None

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            assert self.active == torch.device("cpu"), "a launch outside the guard of its device"
            self.launched.append(f"{grid[0]}")

        return launch


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    """Stand-ins that take layers on the CPU."""
    fakes = Kernels()
    monkeypatch.setattr(gpu, "load", lambda device: (fakes.module, ""))
    monkeypatch.setattr(gpu, "is_interpreted", lambda: True)
    monkeypatch.setattr(gpu, "on", fakes.on)
    monkeypatch.setattr(cpu, "runs", lambda layer: False)
    gpu.loops_for.cache_clear()
    yield fakes
    gpu.loops_for.cache_clear()


class Uploads(TorchDispatchMode):
    """Keeps what is copied asynchronously."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default and len(args) > 2 and args[2]:
            self.copies.append(args[1])
        return func(*args, **(kwargs or {}))


def make(**options: Any) -> tuple[list[nn.Parameter], LAMB]:
    parameters = [nn.Parameter(torch.randn(shape)) for shape in ((3 * CHUNK,), (5,), (CHUNK, 2))]
    groups = [{"params": parameters[:2]}, {"params": parameters[2:], "weight_decay": 0.0}]
    return parameters, LAMB(groups, lr=0.01, **options)


def step(parameters: list[nn.Parameter], optimizer: LAMB, *, renew: bool = True) -> list[Tensor]:
    """One step; returns what was uploaded."""
    for parameter in parameters:
        if renew:
            parameter.grad = torch.randn_like(parameter)
    with Uploads() as uploads:
        optimizer.step()
    return uploads.copies


def table_of(optimizer: LAMB) -> Any:
    return optimizer._tables._kept[torch.device("cpu")]


def check_addresses(parameters: list[nn.Parameter], optimizer: LAMB) -> None:
    """The device's table says where everything is now."""
    table, states = table_of(optimizer), [optimizer.state[p] for p in parameters]
    for place, index in enumerate(table.order):
        parameter, state = parameters[index], states[index]
        assert parameter.grad is not None
        own = [parameter, state["exp_avg"], state["exp_avg_sq"], state["step"]]
        assert table.addresses[place].tolist() == [tensor.data_ptr() for tensor in own]
        assert table.gradients[place] == parameter.grad.data_ptr()
        assert table.sizes[place] == parameter.numel()


def test_a_step_uploads_in_one_copy_and_only_what_has_changed(kernels: Kernels) -> None:
    parameters, optimizer = make()
    step(parameters, optimizer)
    table = table_of(optimizer)
    assert step(parameters, optimizer, renew=False) == []
    keep = [parameter.grad for parameter in parameters]
    (copied,) = step(parameters, optimizer)  # gradients elsewhere
    check_addresses(parameters, optimizer)
    optimizer.param_groups[0]["lr"] = 0.5
    (second,) = step(parameters, optimizer, renew=False)
    assert copied.data_ptr() != second.data_ptr(), "the first copy may still be under way"
    assert table.values.view(-1, 10)[:, 0].tolist() == [0.5, 0.01]
    assert table_of(optimizer) is table and len(keep) == 3


@pytest.mark.parametrize("change", ["data", "state", "fewer gradients", "slices", "gradient type", "alignment"])
def test_whatever_moves_is_found_again(kernels: Kernels, change: str) -> None:
    parameters, optimizer = make(master_weights=True)
    step(parameters, optimizer)
    if change == "data":
        parameters[0].data = parameters[0].data.clone()
    elif change == "state":
        optimizer.load_state_dict(optimizer.state_dict())
    elif change == "slices":
        optimizer.param_groups[1]["slices"] = [(0, (CHUNK // 2, CHUNK // 2))]
    elif change == "gradient type":
        parameters[0].data = parameters[0].data.bfloat16()
        parameters[0].grad = torch.randn_like(parameters[0])
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    if change == "alignment":
        parameters[0].grad = torch.randn(3 * CHUNK + 1)[1:]
    if change == "fewer gradients":
        parameters.pop(0).grad = None
    step(parameters, optimizer, renew=False)
    table = table_of(optimizer)
    if change == "slices":
        assert sorted(table.sizes.tolist()) == [5, CHUNK, CHUNK, 3 * CHUNK]
    elif change == "gradient type":
        assert {kind for kind, *_ in table.parts} == {torch.float32, torch.bfloat16}
    else:
        check_addresses(parameters, optimizer)
    aligned = sum(count for _, is_aligned, _, count in table.parts if is_aligned)
    assert aligned == {"alignment": 2, "fewer gradients": 2}.get(change, 5)
    assert sum(count for *_, count in table.parts) == table.chunks == len(table.chunk_layer)


def test_gradients_are_not_kept(kernels: Kernels) -> None:
    parameters, optimizer = make()
    for _ in range(3):
        step(parameters, optimizer)
    alive = [weakref.ref(parameter.grad) for parameter in parameters]
    optimizer.zero_grad(set_to_none=True)
    gc.collect()
    assert [reference() for reference in alive] == [None] * len(parameters)


def test_each_launch_is_in_the_guard_of_its_device(kernels: Kernels) -> None:
    parameters, optimizer = make()
    step(parameters, optimizer)  # the stand-ins check it
    # prepare, update and apply for aligned and other layers, add_up
    assert kernels.launched == ["3", "5", "1", "3", "5", "1"]


def test_the_guard_makes_the_tensors_device_current() -> None:
    guard = gpu.on(torch.device("cuda", 1))
    assert isinstance(guard, torch.cuda.device) and guard.idx == 1


def test_a_graph_keeps_the_memory_it_copies_from(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, optimizer = make()
    step(parameters, optimizer)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    (copied,) = step(parameters, optimizer)
    address = copied.data_ptr()
    del copied
    expected = [parameter.grad.data_ptr() for parameter in parameters if parameter.grad is not None]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    keep = [parameter.grad for parameter in parameters]
    for _ in range(3):
        step(parameters, optimizer)
    assert len(step(parameters, optimizer, renew=False)) == 1, "a replay may have copied in between"
    table = table_of(optimizer)
    (kept,) = table.captured
    parameters.pop().grad = None
    step(parameters, optimizer)
    assert table is not table_of(optimizer) and optimizer._tables._in_graphs == [table]
    assert kept.data_ptr() == address and set(expected) <= set(kept.tolist()) and len(keep) == 3


def test_without_a_compiler_for_tritons_driver_plain_operations_take_over_and_say_so_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Triton imports, and fails at its first launch."""

    class Broken:
        def __getitem__(self, grid: Any) -> Any:
            def launch(*arguments: Any, **options: Any) -> None:
                raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")

            return launch

    broken = ModuleType("lambert.optim.kernels.triton_loops")
    broken.add_up = Broken()  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, broken.__name__, broken)
    monkeypatch.setattr("lambert.optim.kernels.triton_loops", broken, raising=False)
    monkeypatch.setattr(gpu, "is_interpreted", lambda: True)
    monkeypatch.setattr(cpu, "runs", lambda layer: False)
    caches = (gpu.load, gpu.loops_for)
    for cached in caches:
        cached.cache_clear()
    try:
        parameters, optimizer = make(weight_decay=0.0)
        with pytest.warns(RuntimeWarning, match=r"plain tensor operations.*C compiler.*Install.*gcc") as told:
            step(parameters, optimizer)
        step(parameters, optimizer)
        assert len(told) == 1 and {float(s["step"]) for s in optimizer.state.values()} == {2.0}
        assert gpu.load(torch.device("cpu"))[1].endswith("environment variable.)"), "one line"
    finally:
        for cached in caches:
            cached.cache_clear()


def test_running_out_of_memory_says_nothing_about_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is repeated with less, and may use the kernel then."""

    def full(*arguments: Any, **options: Any) -> Tensor:
        raise torch.OutOfMemoryError

    gpu.load.cache_clear()
    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(torch.OutOfMemoryError):
        gpu.load(torch.device("cpu"))
    assert gpu.load.cache_info().currsize == 0


def test_insisting_on_the_kernel_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "load", lambda device: (None, "triton is not installed"))
    gpu.loops_for.cache_clear()
    layer: Any = SimpleNamespace(x=SimpleNamespace(device=torch.device("cuda", 0)), tensors=())
    monkeypatch.setattr(cpu, "runs", lambda layer: False)
    monkeypatch.setattr(gpu, "runs", lambda layer: False)
    with pytest.raises(RuntimeError, match=r"LAMB\(fused=True\): triton is not installed. Install Triton"):
        kernel_of(layer, True, LAMB.rule)
