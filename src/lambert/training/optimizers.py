"""The optimizers a run can be told to use, by name, over BERT's two groups of parameters."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lambert.errors import unknown_name
from lambert.optim import LAMB, LANS, LARS, parameter_groups

LAYERWISE = ("lamb", "lars", "lans")
"""Those whose rate is the share of its own norm that a layer moves by."""
OPTIMIZERS = ("lamb", "adamw", "lars", "lans")


def check_optimizer(name: str) -> None:
    """Refuse a name that is not in `OPTIMIZERS`.

    Raises:
        UserError: offers the nearest one.
    """
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)


def named_groups(model: nn.Module, *, weight_decay: float) -> tuple[list[dict[str, Any]], dict[Tensor, str]]:
    """BERT's parameter groups, and the name of every parameter in them."""
    groups = parameter_groups(model, weight_decay=weight_decay)
    names = {parameter: name for group in groups for name, parameter in group["params"]}
    for group in groups:
        group["params"] = [parameter for _, parameter in group["params"]]
    return groups, names


def make_optimizer(name: str, groups: list[dict[str, Any]], *, betas: tuple[float, float], epsilon: float) -> Optimizer:
    """The optimizer called `name`; the step sets its learning rate.

    Args:
        name: one of `OPTIMIZERS`.
        groups: from `named_groups`.
        betas, epsilon: decay of both moments, and ε.
    """
    check_optimizer(name)
    if name == "lars":
        return LARS(groups, momentum=betas[0])
    if name in LAYERWISE:
        return (LANS if name == "lans" else LAMB)(groups, betas=betas, eps=epsilon)
    plain = [{key: value for key, value in group.items() if key not in ("adapt", "slices")} for group in groups]
    return AdamW(plain, betas=betas, eps=epsilon, fused=True)
