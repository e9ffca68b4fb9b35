"""StableAdamW (Wortsman et al. 2023, arXiv 2304.13013): AdamW with the update clipping of Adafactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lambert.optim.state import loss_of


class StableAdamW(torch.optim.AdamW):
    """AdamW whose learning rate is divided, tensor by tensor, by how far the gradient exceeds its second moment.

    With the bias-corrected moments m̂ and v̂ of Adam a step is η' = η / max(1, RMS), RMS = √mean(g² / max(v̂, ε²)),
    and x ← x − η' (m̂ / (√v̂ + ε) + λx). It takes the place of gradient clipping (`max_grad_norm` 0 in a recipe). A
    tensor that holds several layers (query, key and value of lambert's models) has one RMS.

    Args:
        params: tensors, named tensors, or groups of either.
        lr: learning rate η, a float or a 0-dimensional tensor.
        betas: decay of the first and the second moment.
        eps: ε.
        weight_decay: λ, multiplied by the learning rate as in `torch.optim.AdamW`.

    The state of a parameter is AdamW's: `step`, `exp_avg` and `exp_avg_sq`; either optimizer loads the other's. Works
    with `DTensor` shards, and with `torch.amp.GradScaler` (untested on GPU).
    """

    _step_supports_amp_scaling = True  # torch.amp.GradScaler then hands over `grad_scale` and `found_inf`
    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; returns what `closure` returns."""
        loss = loss_of(closure)
        if self.found_inf is not None and bool(self.found_inf.item()):
            return loss
        own = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for parameter, _ in own:  # all of it before the first change, should memory run out
            if not (state := self.state[parameter]):
                state["step"] = torch.tensor(0.0)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        for parameter, group in own:
            self._step_parameter(parameter, parameter.grad, group)
        return loss

    def _step_parameter(self, x: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2), eps = self.state[x], group["betas"], group["eps"]
        state["step"] += 1
        step = state["step"].item()
        g = g.to(x.dtype) if self.grad_scale is None else g.to(x.dtype) / self.grad_scale
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        v_hat = v / (1 - beta2**step)
        rms = (g.square() / v_hat.clamp(min=eps**2)).mean().sqrt()
        rate = group["lr"] / rms.clamp(min=1)
        direction = (m / (1 - beta1**step)).div_(v_hat.sqrt_().add_(eps)).add_(x, alpha=group["weight_decay"])
        x.sub_(direction.mul_(rate))
