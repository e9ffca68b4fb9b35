"""The equations as pure functions of tensors: the reference for every kernel, and the fallback where none runs.

The letters of "Large Batch Optimization for Deep Learning" (You et al., ICLR 2020, arXiv 1904.00962), here and in the
kernels only:
    x   the parameters of one layer            g   their gradient
    m,v first and second moments of g          r   the Adam direction m̂ / (√v̂ + ε)
    u   the update direction r + λx            η   the learning rate
    φ   ‖x‖, or ‖x‖ clamped to two bounds
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lambert.optim.newton_schulz import orthogonal


@dataclass(frozen=True, slots=True)
class LayerHyperparameters:
    """Hyperparameters of one layer's step."""

    learning_rate: float | Tensor
    """η; a 0-dimensional tensor where only the layer's device knows it."""
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    """λ."""
    correction_step: float
    """t of the bias corrections: the number of this step, or infinity without them (1 where the layer's device counts
    the steps)."""
    gradient_factor: float | Tensor
    """What g is multiplied by first: −1 to maximise, times a clip, over a loss scale; a tensor as η."""
    adapt: bool
    """False takes the trust ratio as 1."""
    norm_bounds: tuple[float, float] | None
    """Min and max of φ; None is φ = ‖x‖."""
    local_rate: float | Tensor = 1.0
    """Of LARS as of 2017: τ‖x‖ / (‖g‖ + λ‖x‖); a tensor as η."""
    corrections: tuple[Tensor, Tensor] | None = None
    """The two bias corrections, where the layer's device counts the steps and plain operations need them."""

    @property
    def m_correction(self) -> float | Tensor:
        """1 / (1 − β₁ᵗ)."""
        return self.corrections[0] if self.corrections else 1 / (1 - math.pow(self.beta1, self.correction_step))

    @property
    def v_correction(self) -> float | Tensor:
        """1 / (1 − β₂ᵗ)."""
        return self.corrections[1] if self.corrections else 1 / (1 - math.pow(self.beta2, self.correction_step))


def trust_ratio(x_norm: Tensor, u_norm: Tensor, bounds: tuple[float, float] | None = None) -> Tensor:
    """φ(‖x‖) / ‖u‖, and 1 where either norm is 0; tensors of one shape in and out.

    A layer that starts at zero would otherwise never move; the authors' own code makes the same choice.
    """
    defined = (x_norm > 0) & (u_norm > 0)
    phi = x_norm if bounds is None else x_norm.clamp(*bounds)
    return torch.where(defined, phi / u_norm, torch.ones_like(x_norm))


@dataclass(frozen=True)
class UpdateRule:
    """An optimizer: x ← x − η · Σ weight · φ(‖x‖)/‖u‖ · u, over one or more directions u."""

    state: tuple[str, ...]
    """Names of the moments, each of the shape of x."""
    update_moments: Callable[[Tensor, Tensor, tuple[Tensor, ...], LayerHyperparameters], None]
    """x, g and moments → moments changed in place."""
    directions: Callable[[Tensor, Tensor, tuple[Tensor, ...], LayerHyperparameters], tuple[Tensor, ...]]
    """x, g and moments → new tensors u."""
    weights: Callable[[LayerHyperparameters], tuple[float, ...]] = lambda hyper: (1.0,)
    """The weight of each direction."""
    direction_count: int = 1
    gradient_scale: Literal["none", "inverse_norm", "lars"] = "none"
    """What g is multiplied by first, layer by layer: 1/‖g‖ (LANS), or τ‖x‖/(‖g‖ + λ‖x‖) (LARS, `local_rate`)."""
    corrects_bias: bool = True
    """`directions` uses the bias corrections."""
    has_kernel: bool = False
    """The compiled loops compute it."""
    keeps_norm: bool = False
    """An adapted layer is scaled back to the norm that it had before the step."""
    is_elementwise: bool = True
    """An element of u follows from that element of x, g and the moments; otherwise a layer is one whole matrix."""


def lamb_moments(x: Tensor, g: Tensor, moments: tuple[Tensor, ...], hyper: LayerHyperparameters) -> None:
    """Algorithm 2, moments: m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g²."""
    m, v = moments
    m.lerp_(g, 1 - hyper.beta1)
    v.mul_(hyper.beta2).addcmul_(g, g, value=1 - hyper.beta2)


def lamb_directions(x: Tensor, g: Tensor, moments: tuple[Tensor, ...], hyper: LayerHyperparameters) -> tuple[Tensor]:
    """Algorithm 2, direction: u = m̂ / (√v̂ + ε) + λx."""
    m, v = moments
    denominator = (v * hyper.v_correction).sqrt_().add_(hyper.epsilon)
    return ((m * hyper.m_correction).div_(denominator).add_(x, alpha=hyper.weight_decay),)


LAMB = UpdateRule(("exp_avg", "exp_avg_sq"), lamb_moments, lamb_directions, has_kernel=True)


def lars_moments(x: Tensor, g: Tensor, moments: tuple[Tensor, ...], hyper: LayerHyperparameters) -> None:
    """Algorithm 1 of the same paper: m ← β₁m + (1 − β₁)(g + λx)."""
    moments[0].lerp_(g.add(x, alpha=hyper.weight_decay), 1 - hyper.beta1)


def lars_directions(x: Tensor, g: Tensor, moments: tuple[Tensor, ...], hyper: LayerHyperparameters) -> tuple[Tensor]:
    """Algorithm 1: u = m."""
    return (moments[0].clone(),)


LARS = UpdateRule(("momentum_buffer",), lars_moments, lars_directions, corrects_bias=False)


def lars_local_rate(x_norm: Tensor, g_norm: Tensor, weight_decay: Tensor, coefficient: Tensor) -> Tensor:
    """LARS of 2017, local rate: τ‖x‖ / (‖g‖ + λ‖x‖), and 1 where either norm is 0; tensors of one shape in and out."""
    defined = (x_norm > 0) & (g_norm > 0)
    return torch.where(defined, coefficient * x_norm / (g_norm + weight_decay * x_norm), 1.0)


def lars_2017_moments(x: Tensor, g: Tensor, moments: tuple[Tensor, ...], hyper: LayerHyperparameters) -> None:
    """LARS of 2017 (arXiv 1708.03888): v ← μv + local rate · (g + λx).

    The learning rate multiplies v, as in PyTorch's SGD. In the paper it is inside: the same at a constant rate.
    """
    moments[0].mul_(hyper.beta1).add_(g.add(x, alpha=hyper.weight_decay) * hyper.local_rate)


LARS_2017 = UpdateRule(
    ("momentum_buffer",), lars_2017_moments, lars_directions, corrects_bias=False, gradient_scale="lars"
)

ADAM_HYPERBALL = UpdateRule(("exp_avg", "exp_avg_sq"), lamb_moments, lamb_directions, keeps_norm=True)
"""LAMB's step without decay, then back to the norm before it (Wen et al. 2026, arXiv 2606.16899)."""


def muon_moments(x: Tensor, g: Tensor, moments: tuple[Tensor, ...], hyper: LayerHyperparameters) -> None:
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), momentum: m ← β₁m + (1 − β₁)g."""
    moments[0].lerp_(g, 1 - hyper.beta1)


def muon_directions(x: Tensor, g: Tensor, moments: tuple[Tensor, ...], hyper: LayerHyperparameters) -> tuple[Tensor]:
    """Muon, direction: the nearest orthogonal matrix to (1 − β₁)g + β₁m, by Newton–Schulz iterations."""
    return (orthogonal(g.lerp(moments[0], hyper.beta1)[None])[0].to(x.dtype),)


MUON_HYPERBALL = UpdateRule(
    ("momentum_buffer",), muon_moments, muon_directions, corrects_bias=False, keeps_norm=True, is_elementwise=False
)


def lans_directions(
    x: Tensor, g: Tensor, moments: tuple[Tensor, ...], hyper: LayerHyperparameters
) -> tuple[Tensor, Tensor]:
    """LANS (Zheng et al. 2020, arXiv 2006.13484): m̂ / (√v̂ + ε) + λx, and g̃ / (√v̂ + ε) + λx with g̃ = g/‖g‖."""
    m, v = moments
    denominator = (v * hyper.v_correction).sqrt_().add_(hyper.epsilon)
    by_momentum = (m * hyper.m_correction).div_(denominator).add_(x, alpha=hyper.weight_decay)
    return by_momentum, g.div(denominator).add_(x, alpha=hyper.weight_decay)


LANS = UpdateRule(
    ("exp_avg", "exp_avg_sq"),
    lamb_moments,
    lans_directions,
    weights=lambda hyper: (hyper.beta1, 1 - hyper.beta1),
    direction_count=2,
    gradient_scale="inverse_norm",
)
