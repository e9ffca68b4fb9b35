"""PyTorch's Muon for mixed precision, with few launches on a GPU.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) orthogonalizes the momentum of a matrix; embeddings,
output layers and vectors are left to AdamW (`CombinedOptimizer`). With `match_rms_adamw` (Liu et al. 2025, arXiv
2502.16982) its updates are scaled to the size of AdamW's, so that both take one learning rate and one weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lambert.optim.newton_schulz import orthogonal
from lambert.optim.norms import is_dtensor
from lambert.optim.state import loss_of

TOGETHER = 33_554_432
"""Elements of the matrices that are orthogonalized together on a GPU: 67 MB for each bfloat16 temporary."""


class Muon(torch.optim.Muon):
    """`torch.optim.Muon`, with its arguments. On a GPU matrices of one shape are orthogonalized together.

    A matrix that holds several layers (query, key and value of BERT here) is orthogonalized as one. As with PyTorch's
    fused optimizers, gradients are divided by the attribute `grad_scale`, and nothing changes where `found_inf` is not
    0; on a GPU the host waits for neither (untested on GPU).
    """

    _step_supports_amp_scaling = True  # torch.amp.GradScaler then hands over `grad_scale` and `found_inf`
    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every matrix that has a gradient; returns what `closure` returns."""
        loss = loss_of(closure)
        own = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if _are_stacked(own):
            for group in self.param_groups:
                self._step_group(group)
            return loss
        if self.found_inf is not None and bool(self.found_inf.item()):
            return loss
        gradients = [p.grad for p in own]
        if self.grad_scale is not None:
            for parameter in own:
                parameter.grad = parameter.grad / self.grad_scale
        super().step()  # type: ignore[no-untyped-call]
        for parameter, gradient in zip(own, gradients, strict=True):
            parameter.grad = gradient
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's.

        Raises:
            ValueError: another optimizer saved it.
        """
        if any("momentum_buffer" not in state for state in state_dict["state"].values()):
            raise ValueError("Muon: the state has no momentum_buffer: it is of another kind of optimizer")
        super().load_state_dict(state_dict)

    def _step_group(self, group: dict[str, Any]) -> None:
        by_kind: dict[Any, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                kind = (parameter.shape, parameter.dtype, parameter.grad.dtype, parameter.device)
                by_kind.setdefault(kind, []).append(parameter)
        for alike in by_kind.values():
            count = max(1, TOGETHER // alike[0].numel())
            for start in range(0, len(alike), count):
                self._step_together(alike[start : start + count], group)

    def _step_together(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One update of matrices of one shape, stacked."""
        own = [parameter.grad for parameter in parameters if parameter.grad is not None]
        states = [self.state[parameter] for parameter in parameters]
        for state, gradient in zip(states, own, strict=True):
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
        buffers = [state["momentum_buffer"] for state in states]
        gradients, device = torch.stack(own), parameters[0].device
        rate, momentum = group["lr"], group["momentum"]
        if self.grad_scale is not None:
            gradients = gradients / self.grad_scale.to(device).reshape(())
        if self.found_inf is not None:  # then the buffer meets itself, and the learning rate is 0
            is_skipped = self.found_inf.to(device).reshape(()) != 0
            gradients = torch.where(is_skipped, torch.stack(buffers), gradients)
            rate = torch.where(is_skipped, 0.0, rate)
        torch._foreach_lerp_(buffers, list(gradients), 1 - momentum)
        updates = torch.stack(buffers)
        updates = gradients.lerp(updates, momentum) if group["nesterov"] else updates
        updates = orthogonal(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = parameters[0].shape
        size = math.sqrt(max(1, rows / columns))
        if group["adjust_lr_fn"] == "match_rms_adamw":
            size = 0.2 * math.sqrt(max(rows, columns))
        torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        torch._foreach_sub_(parameters, list(updates.to(parameters[0].dtype) * (rate * size)))


def _are_stacked(parameters: list[Tensor]) -> bool:
    """Whether matrices are computed together: on a GPU, where they are whole. On a CPU products do not gain by it."""
    return all(parameter.device.type != "cpu" and not is_dtensor(parameter) for parameter in parameters)
