"""PyTorch's Muon for the hidden matrices and AdamW for all other parameters, as one optimizer.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) orthogonalizes the momentum of a matrix; embeddings,
output layers and vectors use AdamW. With `match_rms_adamw` (Liu et al. 2025, arXiv 2502.16982) its
updates are scaled to the size of AdamW's, so that both take one learning rate and one weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer

from lambert.optim.norms import is_dtensor

TOGETHER = 33_554_432
"""Elements of the matrices that are orthogonalized together on a GPU: 67 MB for each bfloat16 temporary."""


class MuonAdamW(Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` over the same parameter groups.

    A tensor that holds several layers (query, key and value of BERT here) is orthogonalized as one.

    Args:
        groups: parameter groups; those with `uses_muon` may hold matrices only.
        lr: learning rate of both.
        betas, eps: AdamW's.
        momentum: Muon's, with Nesterov momentum.
        weight_decay: of groups without their own.

    As with PyTorch's fused optimizers, gradients are divided by the attribute `grad_scale`, and nothing changes where
    `found_inf` is not 0; on a GPU the host waits for neither. There, matrices of one shape are orthogonalized together
    (untested on GPU).

    Raises:
        ValueError: a parameter of a `uses_muon` group is not a matrix.
    """

    _step_supports_amp_scaling = True  # torch.amp.GradScaler then hands over `grad_scale` and `found_inf`

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "uses_muon": False}
        super().__init__(groups, defaults)
        parts = {
            True: (_Muon, {"momentum": momentum, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"}),
            False: (AdamW, {"betas": betas, "eps": eps, "fused": True}),
        }
        self._parts: list[Optimizer] = []
        for uses_muon, (kind, options) in parts.items():
            own = [group for group in self.param_groups if group["uses_muon"] is uses_muon]
            if not own:
                continue
            part = kind(own, lr=lr, weight_decay=weight_decay, **options)
            for group, completed in zip(own, part.param_groups, strict=True):
                group.update(completed)
            # One state and the same groups: schedulers and checkpoints see one optimizer.
            part.param_groups, part.state = own, self.state
            self._parts.append(part)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            for name in ("grad_scale", "found_inf"):
                setattr(part, name, getattr(self, name, None))
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's, into both parts.

        Raises:
            ValueError: another optimizer saved it.
        """
        kinds = [
            [group.get("uses_muon") for group in groups] for groups in (self.param_groups, state_dict["param_groups"])
        ]
        if kinds[0] != kinds[1]:
            raise ValueError("MuonAdamW: the state is not of the same groups of MuonAdamW; start without one")
        super().load_state_dict(state_dict)
        for part in self._parts:
            uses_muon = isinstance(part, Muon)
            part.param_groups = [group for group in self.param_groups if group["uses_muon"] is uses_muon]
            part.state = self.state


class _Muon(Muon):
    """`torch.optim.Muon` with `grad_scale` and `found_inf`; on a GPU with few launches."""

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; `MuonAdamW` calls the closure."""
        own = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if _are_stacked(own):
            for group in self.param_groups:
                self._step_group(group)
            return None
        if self.found_inf is not None and bool(self.found_inf.item()):
            return None
        gradients = [p.grad for p in own]
        if self.grad_scale is not None:
            for parameter in own:
                parameter.grad = parameter.grad / self.grad_scale
        super().step()  # type: ignore[no-untyped-call]
        for parameter, gradient in zip(own, gradients, strict=True):
            parameter.grad = gradient
        return None

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
        updates = _orthogonal(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
        size = 0.2 * math.sqrt(max(parameters[0].shape))  # "match_rms_adamw"
        torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        torch._foreach_sub_(parameters, list(updates.to(parameters[0].dtype) * (rate * size)))


def _are_stacked(parameters: list[Tensor]) -> bool:
    """Whether matrices are computed together: on a GPU, where they are whole. On a CPU products do not gain by it."""
    return all(parameter.device.type != "cpu" and not is_dtensor(parameter) for parameter in parameters)


def _orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, epsilon: float) -> Tensor:
    """Newton–Schulz iterations on matrices [n, rows, columns] in bfloat16, as `torch.optim.Muon` does on one."""
    a, b, c = coefficients
    x = matrices.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=epsilon)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def split_hidden_matrices(
    groups: Iterable[dict[str, Any]], is_hidden: Callable[[Tensor], bool]
) -> list[dict[str, Any]]:
    """Splits groups by `uses_muon`.

    Args:
        groups: with `params` as a list of tensors.
        is_hidden: whether a tensor is a matrix inside the network; embeddings and output layers are not.
    """
    split = []
    for group in groups:
        for uses_muon in (True, False):
            own = [tensor for tensor in group["params"] if (tensor.ndim == 2 and is_hidden(tensor)) is uses_muon]
            if own:
                split.append({**group, "params": own, "uses_muon": uses_muon})
    return split
