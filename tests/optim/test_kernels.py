"""Every way of computing the step against the equations in float64: shapes, strides, types, options, threads, bytes."""

from __future__ import annotations

import threading
import tracemalloc
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lamb_by_hand import Options, lamb_by_hand
from lambert.optim import LAMB
from lambert.optim.kernels import compiled, cpu

BLOCK = compiled.BLOCK
WAYS = [True, False]


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def train(parameters: list[nn.Parameter], steps: list[list[Tensor]], optimizer: LAMB) -> None:
    for gradients in steps:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert parameter.grad is not None and torch.equal(parameter.grad, gradient), "p.grad must stay as it is"


def compare(shapes: list[tuple[int, ...]], options: Options, *, fused: bool, steps: int = 3, seed: int = 0) -> None:
    """Largest relative difference of any layer from float64 by hand, with float32 tensors."""
    random = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]
    gradients = [[torch.randn(shape, generator=random) for shape in shapes] for _ in range(steps)]
    by_hand = lamb_by_hand(
        [p.detach().double().numpy() for p in parameters],
        [[g.double().numpy() for g in step] for step in gradients],
        options,
    )
    optimizer = LAMB(parameters, fused=fused, **options.arguments())
    train(parameters, gradients, optimizer)
    for parameter, expected in zip(parameters, by_hand, strict=True):
        error = np.linalg.norm(parameter.detach().double().numpy() - expected)
        assert error <= 2e-6 * max(float(np.linalg.norm(expected)), 1e-9)


SHAPES: list[tuple[int, ...]] = [
    (), (0,), (1,), (BLOCK - 1,), (BLOCK,), (BLOCK + 1,), (3 * BLOCK + 5,), (300, 101), (7, 3, 5, 2), (0, 4),
]  # fmt: skip
OPTIONS = {
    "as published": Options(),
    "no correction": Options(bias_correction=False),
    "not adapted": Options(adapt=False),
    "clipped": Options(max_grad_norm=0.5),
    "clip that does not bite": Options(max_grad_norm=1e6),
    "clip of zero": Options(max_grad_norm=0.0),
    "clip of infinity": Options(max_grad_norm=float("inf")),
    "bounds": Options(norm_bounds=(0.5, 3.0)),
    "upwards": Options(maximize=True),
    "no decay": Options(weight_decay=0.0),
    "no momentum": Options(beta1=0.0, beta2=0.0),
}


@pytest.mark.parametrize("fused", WAYS)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_equals_the_equations(name: str, fused: bool, threads: int) -> None:
    compare(SHAPES, OPTIONS[name], fused=fused)


@pytest.mark.parametrize("fused", WAYS)
@given(
    shapes=st.lists(st.lists(st.integers(0, 40), max_size=4).map(tuple), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
    adapt=st.booleans(),
)
@settings(max_examples=40)
def test_any_shapes_equal_the_equations(fused: bool, shapes: list[tuple[int, ...]], seed: int, adapt: bool) -> None:
    compare(shapes, Options(adapt=adapt), fused=fused, seed=seed)


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("layout", ["channels last", "transposed", "every other", "gradient transposed"])
def test_any_strides_equal_the_equations(layout: str, fused: bool | None) -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(4, 6, 5, 3), torch.randn(4, 6, 5, 3)
    x, g = start.clone(), gradient.clone()
    if layout == "channels last":
        x, g = x.to(memory_format=torch.channels_last), g.to(memory_format=torch.channels_last)
    elif layout == "transposed":
        x = start.transpose(0, 3).contiguous().transpose(0, 3)
        g = gradient.transpose(0, 3).contiguous().transpose(0, 3)
    elif layout == "every other":
        x = torch.empty(8, 6, 5, 3)[::2].copy_(start)
    else:
        g = gradient.transpose(0, 3).contiguous().transpose(0, 3)
    parameter = nn.Parameter(x)
    optimizer = LAMB([parameter], lr=0.01, fused=fused)
    for _ in range(3):
        parameter.grad = g
        optimizer.step()
    (expected,) = lamb_by_hand([start.double().numpy()], [[gradient.double().numpy()]] * 3, Options())
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def bits_after(threads: int, *, gradient: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(40 * BLOCK + 3,), (300, 77), (5,), (9 * BLOCK,), (64, 64), (2 * BLOCK,)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = LAMB(parameters, lr=0.01, fused=True, max_grad_norm=1.0)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape)
        optimizer.step()
    torch.set_num_threads(before)
    return [parameter.detach() for parameter in parameters]


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    alone = bits_after(1)
    for threads in (2, 3, 8):
        for one, other in zip(alone, bits_after(threads), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("keeps", [True, False])
def test_bits_do_not_depend_on_memory_for_the_direction(keeps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bits_after(1)
    kept = [10**9 if keeps else 0] * 8
    monkeypatch.setattr(cpu, "_scratch_sizes", lambda sizes, budget, threads: [min(r, max(sizes)) for r in kept])
    for one, other in zip(expected, bits_after(2), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("threads", [1, 4])
def test_room_for_directions_is_at_most_a_byte_a_parameter(threads: int) -> None:
    for sizes in ([10**7], [10**6] * 30, [5 * 10**6, 10**6, 10**6, 10], [3, 2, 1]):
        kept = cpu._scratch_sizes(sizes, sum(sizes) // 4, threads)
        assert len(kept) == threads and 4 * sum(kept) <= sum(sizes)


def test_no_temporaries_beyond_a_byte_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's and PyTorch's memory on the CPU above what the step began with, and the scratch that stays."""
    monkeypatch.setattr(cpu, "_own", own := threading.local())
    parameters = [nn.Parameter(torch.randn(1000, 1000)) for _ in range(8)]
    optimizer = LAMB(parameters, lr=0.01, fused=True, max_grad_norm=1.0)
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.randn(1000, 1000)
        tracemalloc.start()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            optimizer.step()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    scratch = own.buffer.nbytes
    torch_bytes = sum(max(0, event.self_cpu_memory_usage) for event in profile.events() or [])
    assert 1e6 < scratch <= 8e6
    assert peak + torch_bytes < 2e5


def test_bfloat16_gradients_go_through_the_kernel() -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(3 * BLOCK + 7), torch.randn(3 * BLOCK + 7).bfloat16()
    master = nn.Parameter(start.bfloat16())
    optimizer = LAMB([master], lr=0.01, master_weights=True, fused=True, max_grad_norm=0.5)
    master.grad = gradient
    optimizer.step()
    (expected,) = lamb_by_hand(
        [start.bfloat16().double().numpy()], [[gradient.double().numpy()]], Options(max_grad_norm=0.5)
    )
    np.testing.assert_allclose(optimizer.state[master]["master"].numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_insisting_on_the_kernel_where_it_cannot_run_is_refused(dtype: torch.dtype) -> None:
    parameter = nn.Parameter(torch.ones(3, dtype=dtype))
    parameter.grad = torch.ones(3, dtype=dtype)
    with pytest.raises(RuntimeError, match=r"LAMB\(fused=True\): the kernel needs dense float32 .* got torch"):
        (optimizer := LAMB([parameter], fused=True)).step()
    assert optimizer.state[parameter]["step"] == 0, "a step that was refused does not count"


def test_without_numba_the_plain_path_takes_over_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    monkeypatch.delitem(__import__("sys").modules, "lambert.optim.kernels.compiled")
    monkeypatch.delattr("lambert.optim.kernels.compiled")
    cpu.compiled.cache_clear()
    try:
        parameter = nn.Parameter(torch.ones(3))
        parameter.grad = torch.ones(3)
        optimizer = LAMB([parameter], lr=0.1, weight_decay=0.0)
        with pytest.warns(RuntimeWarning, match="plain tensor operations.*numba.*") as told:
            optimizer.step()
        assert len(told) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer.step()
        torch.testing.assert_close(parameter.detach(), torch.full((3,), 0.9 * 0.9))
    finally:
        cpu.compiled.cache_clear()


@pytest.mark.parametrize("fused", WAYS)
def test_layers_without_a_norm_have_ratio_one(fused: bool) -> None:
    """A layer that starts at zero moves, and one without an update (no gradient yet, no decay) stays."""
    zero, still = nn.Parameter(torch.zeros(30)), nn.Parameter(torch.ones(30))
    zero.grad, still.grad = torch.ones(30), torch.zeros(30)
    optimizer = LAMB([zero, still], lr=0.1, weight_decay=0.0, fused=fused)
    optimizer.step()
    torch.testing.assert_close(zero.detach(), torch.full((30,), -0.1), rtol=1e-5, atol=0)
    assert torch.equal(still.detach(), torch.ones(30))
