"""The optimizers of a run, by name, over BERT's parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lambert.errors import unknown_name
from lambert.optim import LAMB, LANS, LARS, parameter_groups
from lambert.optim.muon import MuonAdamW, split_hidden_matrices

LAYERWISE = ("lamb", "lars", "lans")
"""Optimizers whose learning rate is relative to the norm of each layer."""
OPTIMIZERS = ("lamb", "adamw", "lars", "lans", "muon")
_HIDDEN = (".blocks.", "pooler.", "mlm_head.transform.")
"""Substrings in the names of matrices that are neither embeddings nor output layers."""


def check_optimizer(name: str) -> None:
    """Check that `name` is in `OPTIMIZERS`.

    Raises:
        UserError: unknown name; suggests the nearest one.
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


def make_optimizer(
    name: str,
    groups: list[dict[str, Any]],
    names: Mapping[Tensor, str],
    *,
    betas: tuple[float, float],
    epsilon: float,
) -> Optimizer:
    """Create the optimizer `name`; the training step sets its learning rate.

    Args:
        name: one of `OPTIMIZERS`.
        groups, names: from `named_groups`.
        betas, epsilon: decay rates of both moments, and ε.
    """
    check_optimizer(name)
    if name == "lars":
        return LARS(groups, momentum=betas[0])
    if name in LAYERWISE:
        return (LANS if name == "lans" else LAMB)(groups, betas=betas, eps=epsilon)
    plain = [{key: value for key, value in group.items() if key not in ("adapt", "slices")} for group in groups]
    if name == "muon":
        apart = split_hidden_matrices(plain, lambda tensor: any(part in names[tensor] for part in _HIDDEN))
        return MuonAdamW(apart, betas=betas, eps=epsilon)
    return AdamW(plain, betas=betas, eps=epsilon, fused=True)


def optimizer_tensors(optimizer: Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The optimizer's state as `parameter name + "/" + key` → tensor."""
    return {
        f"{names[parameter]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    optimizer: Optimizer,
    names: Mapping[Tensor, str],
    saved: Mapping[str, Tensor],
    own_part: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """Restore the tensors of `optimizer_tensors`.

    Args:
        own_part: from a parameter and a saved tensor to what this rank keeps of it, on the parameter's device; a number
            (step counts) stays on the CPU.
    """
    by_name = {name: parameter for parameter, name in names.items()}
    on_device = {p for group in optimizer.param_groups if group.get("fused") for p in group["params"]}
    for full_name, value in saved.items():
        name, _, key = full_name.rpartition("/")
        parameter = by_name[name]
        value = own_part(parameter, value)
        if parameter in on_device:  # where fused optimizers keep step counts
            value = value.to(parameter.device)
        optimizer.state[parameter][key] = value
