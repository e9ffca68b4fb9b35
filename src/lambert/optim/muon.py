"""PyTorch's Muon for the hidden matrices and AdamW for all other parameters, as one optimizer.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) orthogonalizes the momentum of a matrix; embeddings,
output layers and vectors use AdamW. With `match_rms_adamw` (Liu et al. 2025, arXiv 2502.16982) its
updates are scaled to the size of AdamW's, so that both take one learning rate and one weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer


class MuonAdamW(Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` over the same parameter groups.

    A tensor that holds several layers (query, key and value of BERT here) is orthogonalized as one.

    Args:
        groups: parameter groups; those with `uses_muon` may hold matrices only.
        lr: learning rate of both.
        betas, eps: AdamW's.
        momentum: Muon's, with Nesterov momentum.
        weight_decay: of groups without their own.

    Raises:
        ValueError: a parameter of a `uses_muon` group is not a matrix.
    """

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
            True: (Muon, {"momentum": momentum, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"}),
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
