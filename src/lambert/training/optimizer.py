"""The optimizers of a run, by name, over BERT's parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lambert.errors import unknown_name
from lambert.optim import (
    LAMB,
    LANS,
    LARS,
    AdamHyperball,
    CombinedOptimizer,
    Muon,
    MuonHyperball,
    StableAdamW,
    parameter_groups,
    split_groups,
)

OPTIMIZERS = (
    "lamb", "adamw", "lars", "lans", "muon", "lamb+adamw", "lars+adamw", "lans+adamw", "adam-hyperball",
    "muon-hyperball", "stableadamw",
)  # fmt: skip
"""Those with `+adamw`, muon and both hyperballs update hidden matrices only, and AdamW all other parameters."""
_HIDDEN = (".blocks.", "pooler.", "mlm_head.transform.")
"""Substrings in the names of matrices that are neither embeddings nor output layers."""


def is_layerwise(name: str) -> bool:
    """Whether the learning rate of an optimizer is relative to the norm of each layer."""
    return name not in ("adamw", "stableadamw", "muon")


def is_combined(name: str) -> bool:
    """Whether AdamW updates embeddings, output layers and vectors beside the optimizer `name`."""
    return "+" in name or name == "muon" or name.endswith("-hyperball")


def needs_whole_matrices(name: str) -> bool:
    """Whether the optimizer cannot update a shard of a matrix."""
    return name.startswith("muon")


def default_weight_decay(name: str) -> float:
    """λ where no recipe says it: BERT's 0.01, but none for LARS, whose λx stands beside raw gradients."""
    return 0.0 if name.startswith("lars") else 0.01


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
    adamw_lr_ratio: float = 1.0,
) -> Optimizer:
    """Create the optimizer `name`; the training step sets its learning rate, times `lr_scale` in groups that have it.

    Args:
        name: one of `OPTIMIZERS`.
        groups, names: from `named_groups`.
        betas, epsilon: decay rates of both moments, and ε.
        adamw_lr_ratio: AdamW's learning rate beside another optimizer, as a fraction of that one's.
    """
    check_optimizer(name)
    adaptive: dict[str, Any] = {"betas": betas, "eps": epsilon}
    if name == "adamw":
        return AdamW(_plain(groups), **adaptive, fused=True)
    if name == "stableadamw":
        return StableAdamW(_plain(groups), **adaptive)
    main = name.removesuffix("+adamw")
    rest: list[dict[str, Any]] = []
    if is_combined(name):
        groups, rest = split_groups(groups, lambda tensor: tensor.ndim == 2 and _is_hidden(names[tensor]))
    if main.endswith("hyperball"):
        groups = [{**group, "weight_decay": 0.0} for group in groups]
    own: Optimizer
    if main == "muon":
        own = Muon(_plain(groups), adjust_lr_fn="match_rms_adamw")
    elif main == "muon-hyperball":
        own = MuonHyperball(groups)
    elif main == "lars":
        own = LARS(groups, momentum=betas[0])
    else:
        own = {"lamb": LAMB, "lans": LANS, "adam-hyperball": AdamHyperball}[main](groups, **adaptive)
    if not rest:
        return own
    return CombinedOptimizer(own, AdamW(_plain(rest, lr_scale=adamw_lr_ratio), **adaptive, fused=True))


def _is_hidden(name: str) -> bool:
    return any(part in name for part in _HIDDEN)


def _plain(groups: list[dict[str, Any]], **options: float) -> list[dict[str, Any]]:
    """The groups without what only layer-wise optimizers read."""
    return [{key: v for key, v in group.items() if key not in ("adapt", "slices")} | options for group in groups]


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
