"""The Triton loops under Triton's interpreter, beside the plain path: what can be tested of them without a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lambert.optim import LAMB

TESTS = Path(__file__).parents[1]

PROGRAM = """
import torch
from torch import nn
from lambert.optim import LAMB
from lambert.optim.kernels import cpu, gpu

cpu.runs = lambda layer: False
taken = []
of = gpu.Tables.of
gpu.Tables.of = lambda self, layers, found_inf: (taken.append(len(layers)), of(self, layers, found_inf))[1]
CHUNK = gpu.loops_for(torch.device("cpu")).CHUNK
SHAPES = [(2 * CHUNK + 5,), (30, 7), (5,), (1,), (CHUNK + 8,), (0, 4)]  # the last is aligned
OPTIONS = [
    {}, {"bias_correction": False}, {"max_grad_norm": 0.5}, {"norm_bounds": (0.5, 3.0)}, {"maximize": True},
    {"adapt": False}, {"slices": [None, (0, (10, 20)), None, None, None, None]}, {"master_weights": True},
]
for options in OPTIONS:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        if dtype != torch.float32 and "master_weights" not in options:
            continue
        optimizers, lists = [], []
        for fused in (True, False):
            torch.manual_seed(0)
            parameters = [nn.Parameter(torch.randn(shape).to(dtype)) for shape in SHAPES]
            parameters[2].data.zero_()
            lists.append(parameters)
            optimizers.append(LAMB(parameters, lr=0.01, fused=fused, **options))
        for _ in range(2):
            for ours, theirs in zip(*lists):
                ours.grad = torch.randn_like(ours)
                theirs.grad = ours.grad.clone()
            for optimizer in optimizers:
                optimizer.step()
        for ours, theirs in zip(*lists):
            a = optimizers[0].state[ours].get("master", ours)
            b = optimizers[1].state[theirs].get("master", theirs)
            torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-7, msg=lambda text: f"{options} {dtype}: {text}")
        if options.get("adapt", True):
            for name, ratio in optimizers[0].trust_ratios().items():
                torch.testing.assert_close(ratio, optimizers[1].trust_ratios()[name], rtol=1e-5, atol=0)
taken = [count for count in taken if count]
assert len(taken) == 2 * (len(OPTIONS) + 2) and set(taken) == {6, 7}, taken
print("equal")
"""

ON_THE_DEVICE = """
import numpy as np
import torch
from torch import nn
from lamb_by_hand import Options, lamb_by_hand
from lambert.optim import LAMB
from lambert.optim.kernels import cpu

cpu.runs = lambda layer: False
SHAPES = [(5_003,), (40, 8), (5,)]
for limit in (None, 0.5):
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    start = [parameter.detach().double().numpy().copy() for parameter in parameters]
    rate = torch.tensor(1.0)
    optimizer = LAMB(parameters, lr=rate, fused=True, max_grad_norm=limit)
    rate.fill_(0.01)
    steps = []
    for number, skipped in enumerate((False, True, False, False)):
        gradients = [torch.randn(shape) for shape in SHAPES]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = 2.0**number * gradient
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0**number), torch.tensor(float(skipped))
        if skipped:
            parameters[1].grad[3] = float("nan")
            before = [t.clone() for p in parameters for t in (p, *optimizer.state[p].values())]
        else:
            steps.append([gradient.double().numpy() for gradient in gradients])
        kept = {name: getattr(torch.Tensor, name) for name in ("item", "__bool__", "__float__", "tolist")}
        for name in kept if number else ():  # the first step makes the table, on the host
            def refuse(self, name=name):
                raise AssertionError(f"{name} waits for the device")
            setattr(torch.Tensor, name, refuse)
        try:
            optimizer.step()
        finally:
            for name, value in kept.items():
                setattr(torch.Tensor, name, value)
        if skipped:
            after = [t for p in parameters for t in (p, *optimizer.state[p].values())]
            assert all(torch.equal(one, other) for one, other in zip(before, after)), "a skipped step changed something"
    assert {float(state["step"]) for state in optimizer.state.values()} == {3.0}
    expected = lamb_by_hand(start, steps, Options(max_grad_norm=limit))
    for parameter, wanted in zip(parameters, expected):
        np.testing.assert_allclose(parameter.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)
print("equal")
"""


@pytest.mark.parametrize("text", [PROGRAM, ON_THE_DEVICE], ids=["plain path", "numbers on the device"])
def test_the_loops_are_right_under_the_interpreter(tmp_path: Path, text: str) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not made for this system")
    program = tmp_path / "program.py"
    program.write_text(text)
    path = os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path}
    ended = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout == "equal\n", ended.stderr[-3000:]


@pytest.mark.gpu
def test_the_loops_equal_the_plain_path_on_a_gpu() -> None:
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(shape, device="cuda")) for shape in [(9_001,), (300, 77), (5,)]]
        optimizer = LAMB(parameters, lr=0.01, fused=fused, max_grad_norm=1.0)
        for _ in range(5):
            for parameter in parameters:
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        results.append([parameter.detach() for parameter in parameters])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-7)


@pytest.mark.gpu
def test_a_step_is_skipped_on_a_gpu_without_waiting_for_it() -> None:
    """Gradients in bfloat16, aligned or not; PyTorch itself raises where the host would wait."""
    torch.manual_seed(0)
    starts = [torch.randn(shape) for shape in [(9_001,), (4_104,), (300, 77)]]
    parameters = [nn.Parameter(start.to("cuda", torch.bfloat16)) for start in starts]
    expected = [nn.Parameter(start.bfloat16()) for start in starts]
    optimizer, oracle = (LAMB(own, lr=0.01, master_weights=True) for own in (parameters, expected))
    for scale, skipped in ((1.0, False), (4.0, True), (2.0, False)):
        for parameter, other in zip(parameters, expected, strict=True):
            other.grad = torch.randn_like(other)
            parameter.grad = scale * other.grad.to("cuda")
        optimizer.grad_scale = torch.tensor(scale, device="cuda")  # type: ignore[attr-defined]
        optimizer.found_inf = torch.tensor(float(skipped), device="cuda")  # type: ignore[attr-defined]
        waits = bool(optimizer.state)  # the first step makes the tables
        torch.cuda.set_sync_debug_mode("error" if waits else "default")
        try:
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        if not skipped:
            oracle.step()
    for parameter, other in zip(parameters, expected, strict=True):
        ours, theirs = optimizer.state[parameter]["master"].cpu(), oracle.state[other]["master"]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
