"""LAMB: Algorithm 2 of "Large Batch Optimization for Deep Learning" (You et al., ICLR 2020, arXiv 1904.00962).

The paper's letters, used in this file only:
    x   the parameters of one layer            g   their gradient
    m,v first and second moments of g          r   the Adam direction m̂ / (√v̂ + ε)
    u   the update direction r + λx            η   the learning rate
A "layer" is one tensor here. Its trust ratio is ‖x‖ / ‖u‖, so an adapted layer moves by exactly η‖x‖
in every step (by η‖u‖ where either norm is 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer


def trust_ratio(x_norm: Tensor, u_norm: Tensor) -> Tensor:
    """‖x‖ / ‖u‖ with identity φ, and 1 where either norm is 0 (0-dimensional tensors in and out).

    A layer that starts at zero would otherwise never move; the authors' own code makes the same choice.
    """
    defined = (x_norm > 0) & (u_norm > 0)
    return torch.where(defined, x_norm / u_norm, torch.ones_like(x_norm))


def lamb_update(
    x: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    *,
    step: int,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    adapt: bool,
) -> Tensor:
    """One LAMB step of one layer: changes x, m and v in place, leaves g alone.

    Args:
        x, g, m, v: tensors of one shape; m and v start at zero.
        step: 1 for the first update (bias correction divides by 1 − βᵗ).
        weight_decay: λ, decoupled from the moments yet inside the normalised direction.
        adapt: False takes the trust ratio as 1, which makes this AdamW.

    Returns:
        The trust ratio, a 0-dimensional tensor.
    """
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    r = m_hat.div_(v_hat.sqrt_().add_(epsilon))
    u = r.add_(x, alpha=weight_decay)
    if adapt:
        ratio = trust_ratio(torch.linalg.vector_norm(x), torch.linalg.vector_norm(u))
    else:
        ratio = torch.ones((), dtype=x.dtype, device=x.device)
    x.sub_(u.mul_(ratio * learning_rate))
    return ratio


class LAMB(Optimizer):
    """Layer-wise Adaptive Moments for Batch training.

    Args:
        params: tensors or parameter groups. Besides `lr`, `betas`, `eps` and `weight_decay` a group may set
            `adapt=False`, which takes its trust ratios as 1.
        lr: learning rate η; the share of its own norm that an adapted layer moves by in one step.
        betas: decay of the first and second moment, each in [0, 1).
        eps: ε added to √v̂, above 0.
        weight_decay: λ, at least 0.

    Raises:
        ValueError: an argument is out of its range (the message names it and its value).
        RuntimeError: a gradient is sparse.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimizer = LAMB([weight], lr=0.1, weight_decay=0.0)
        >>> weight.grad = torch.tensor([1.0, 1.0])
        >>> optimizer.step()
        >>> [round(value, 4) for value in weight.tolist()]  # moved by 0.1 · ‖(3, 4)‖ = 0.5
        [2.6464, 3.6464]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        for name, value, valid in (
            ("lr", lr, lr >= 0),
            ("betas[0]", betas[0], 0 <= betas[0] < 1),
            ("betas[1]", betas[1], 0 <= betas[1] < 1),
            ("eps", eps, eps > 0),
            ("weight_decay", weight_decay, weight_decay >= 0),
        ):
            if not valid:
                raise ValueError(f"LAMB: {name} = {value} is out of range")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": True}
        super().__init__(params, defaults)
        self._trust_ratios: dict[Tensor, Tensor] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._trust_ratios = {}
        for group in self.param_groups:
            group.setdefault("adapt", True)  # groups that AdamW saved

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._trust_ratios[parameter] = self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse:
            raise RuntimeError("LAMB needs dense gradients: build the embedding with sparse=False")
        state = self.state[parameter]
        if not state:
            # The keys and the step tensor are AdamW's, so either optimizer reads the other's state.
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        return lamb_update(
            parameter,
            gradient,
            state["exp_avg"],
            state["exp_avg_sq"],
            step=int(state["step"].item()),
            learning_rate=group["lr"],
            beta1=beta1,
            beta2=beta2,
            epsilon=group["eps"],
            weight_decay=group["weight_decay"],
            adapt=group["adapt"],
        )

    def trust_ratios(self, named_parameters: Iterable[tuple[str, Tensor]]) -> dict[str, float]:
        """The trust ratios of the last step by parameter name, adapted layers only."""
        adapted = {p for group in self.param_groups if group["adapt"] for p in group["params"]}
        return {
            name: float(self._trust_ratios[parameter])
            for name, parameter in named_parameters
            if parameter in adapted and parameter in self._trust_ratios
        }
