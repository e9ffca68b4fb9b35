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

PROGRAM = """
import torch
from torch import nn
from lambert.optim import LAMB
from lambert.optim.kernels import cpu, gpu

cpu.runs = lambda layer: False
taken = []
fused_step = gpu.fused_step
gpu.fused_step = lambda layers, rows: (taken.append(len(layers)), fused_step(layers, rows))
CHUNK = gpu.loops().CHUNK
SHAPES = [(2 * CHUNK + 5,), (30, 7), (5,), (1,), (CHUNK,)]
OPTIONS = [
    {}, {"bias_correction": False}, {"max_grad_norm": 0.5}, {"norm_bounds": (0.5, 3.0)}, {"maximize": True},
    {"adapt": False}, {"slices": [None, (0, (10, 20)), None, None, None]}, {"master_weights": True},
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
        for _ in range(3):
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
assert len(taken) == 3 * (len(OPTIONS) + 2) and set(taken) == {5, 6}, taken
print("equal")
"""


def test_the_loops_equal_the_plain_path_under_the_interpreter(tmp_path: Path) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not made for this system")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"TRITON_INTERPRET": "1"}
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
