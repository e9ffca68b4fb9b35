"""A fused operation, value and gradients, beside eager PyTorch in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Chosen:
    kind = torch.float32


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(Chosen.kind).requires_grad_()


def close(ours: Tensor, exact: Tensor, tolerance: float = 0.01) -> None:
    """Relative error of the norm: 10⁻⁵ in float32, `tolerance` in bfloat16."""
    tolerance = 1e-5 if ours.dtype == torch.float32 and Chosen.kind == torch.float32 else tolerance
    difference = (ours.detach().double() - exact.detach().double()).norm() / exact.detach().double().norm()
    assert difference < tolerance, float(difference)


def against(function: Any, exactly: Any, *tensors: Tensor) -> None:
    """Value and every gradient against float64."""
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
    ours, exact = function(*tensors), exactly(*wide)
    close(ours, exact)
    direction = torch.randn(exact.shape, generator=torch.Generator().manual_seed(9)).to(Chosen.kind)
    ours.backward(direction.to(ours.dtype))
    exact.backward(direction.double())
    for own, other in zip(tensors, wide, strict=True):
        assert own.grad is not None and other.grad is not None
        close(own.grad.to_dense() if own.grad.is_sparse else own.grad, other.grad)
