"""The equations as pure functions of tensors: what every kernel is tested against, and what runs where none does.

The letters of "Large Batch Optimization for Deep Learning" (You et al., ICLR 2020, arXiv 1904.00962), here and in the
kernels only:
    x   the parameters of one layer            g   their gradient
    m,v first and second moments of g          r   the Adam direction m̂ / (√v̂ + ε)
    u   the update direction r + λx            η   the learning rate
    φ   what is made of ‖x‖: itself, or held between two bounds
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Numbers:
    """What one layer's step is computed with."""

    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    """λ."""
    m_correction: float
    """1 / (1 − β₁ᵗ), or 1 without bias correction."""
    v_correction: float
    """1 / (1 − β₂ᵗ), or 1 without bias correction."""
    gradient_factor: float
    """What g is multiplied by first: −1 to maximise, times a clip, over a loss scale."""
    adapt: bool
    """False takes the trust ratio as 1."""
    norm_bounds: tuple[float, float] | None
    """Least and most of φ."""


def trust_ratio(x_norm: Tensor, u_norm: Tensor, bounds: tuple[float, float] | None = None) -> Tensor:
    """φ(‖x‖) / ‖u‖, and 1 where either norm is 0; tensors of one shape in and out.

    A layer that starts at zero would otherwise never move; the authors' own code makes the same choice.
    """
    defined = (x_norm > 0) & (u_norm > 0)
    phi = x_norm if bounds is None else x_norm.clamp(*bounds)
    return torch.where(defined, phi / u_norm, torch.ones_like(x_norm))


def lamb_moments(g: Tensor, m: Tensor, v: Tensor, numbers: Numbers) -> None:
    """Algorithm 2, moments: m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², in place."""
    m.lerp_(g, 1 - numbers.beta1)
    v.mul_(numbers.beta2).addcmul_(g, g, value=1 - numbers.beta2)


def lamb_direction(x: Tensor, m: Tensor, v: Tensor, numbers: Numbers) -> Tensor:
    """Algorithm 2, direction: u = m̂ / (√v̂ + ε) + λx, a new tensor."""
    denominator = (v * numbers.v_correction).sqrt_().add_(numbers.epsilon)
    return (m * numbers.m_correction).div_(denominator).add_(x, alpha=numbers.weight_decay)
