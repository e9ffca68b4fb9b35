"""LAMB's kernels on a real GPU beside the same steps in float64 by hand: layouts, dtypes, streams and slices."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lamb_by_hand import Options, lamb_by_hand
from lambert.optim import LAMB

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("LAMBERT_TEST_DEVICE", "cuda")
"""Another device runs the same steps, to test the tests."""
SHAPES = [(9_001,), (300, 77), (5,), (1,)]
Context = Callable[[], AbstractContextManager[Any]]


def aligned(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, device=DEVICE)


def misaligned(shape: tuple[int, ...]) -> Tensor:
    """At four bytes past an address that wide loads want."""
    numel = int(np.prod(shape))
    return torch.randn(numel + 1, device=DEVICE)[1:].view(shape)


def steps_agree(
    make: Callable[[tuple[int, ...]], Tensor],
    *,
    gradient_dtype: torch.dtype = torch.float32,
    around: Context = nullcontext,
    tolerance: float = 2e-5,
    **options: Any,
) -> None:
    """Three steps of LAMB beside `lamb_by_hand`. Of weights in half precision the master copies are compared."""
    torch.manual_seed(0)
    start = [make(shape) for shape in SHAPES]
    parameters = [nn.Parameter(one if one.dtype == gradient_dtype else one.to(gradient_dtype)) for one in start]
    expected = [parameter.detach().double().cpu().numpy().copy() for parameter in parameters]
    optimizer = LAMB(parameters, lr=0.01, fused=True, **options)
    gradients: list[Sequence[np.ndarray]] = []
    with around():
        for _ in range(3):
            for parameter in parameters:
                shape = tuple(parameter.shape)
                parameter.grad = make(shape).to(gradient_dtype)
            gradients.append([parameter.grad.double().cpu().numpy() for parameter in parameters])
            optimizer.step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    wanted = lamb_by_hand(expected, gradients, Options(max_grad_norm=options.get("max_grad_norm")))
    for parameter, right in zip(parameters, wanted, strict=True):
        held = optimizer.state[parameter].get("master", parameter)
        np.testing.assert_allclose(held.detach().double().cpu().numpy(), right, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("limit", [None, 0.5])
@pytest.mark.parametrize("make", [aligned, misaligned])
def test_aligned_or_not(make: Callable[[tuple[int, ...]], Tensor], limit: float | None) -> None:
    steps_agree(make, max_grad_norm=limit)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_with_master_weights(dtype: torch.dtype) -> None:
    steps_agree(aligned, gradient_dtype=dtype, master_weights=True)


def test_on_another_stream() -> None:
    if DEVICE != "cuda":
        pytest.skip("streams are a GPU's")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    steps_agree(aligned, around=lambda: torch.cuda.stream(stream))


def test_each_slice_has_its_own_trust_ratio() -> None:
    torch.manual_seed(0)
    whole = nn.Parameter(aligned((30, 20)))
    apart = [nn.Parameter(part.detach().clone()) for part in whole.split((10, 20))]
    together = LAMB([{"params": [whole], "slices": [(0, (10, 20))]}], lr=0.01, fused=True)
    separate = LAMB(apart, lr=0.01, fused=True)
    for _ in range(3):
        whole.grad = aligned((30, 20))
        for parameter, gradient in zip(apart, whole.grad.split((10, 20)), strict=True):
            parameter.grad = gradient.clone()
        together.step()
        separate.step()
    torch.testing.assert_close(whole.detach(), torch.cat([one.detach() for one in apart]), rtol=2e-6, atol=1e-7)
