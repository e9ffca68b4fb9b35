"""State dicts of other optimizers, and of older versions of these: translated, or refused.

What makes the next step is the moments, their step count, and the betas that made them. All of it is found wherever the
other optimizer keeps it: PyTorch has `step` beside the moments, apex and timm have it in the group.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_OWN_OPTION = "adapt"
"""An option that only this package's groups have."""
_SPARE = ("max_exp_avg_sq", "master")
"""Tensors beside the moments that had no part in making them: AMSGrad's maximum, another copy of the weights."""


def translated(
    optimizer: str, groups: Sequence[dict[str, Any]], state_dict: dict[str, Any], moments: Sequence[str]
) -> dict[str, Any]:
    """The state dict with every option of `groups`, and for each parameter `step`, the moments and `master` alone.

    Args:
        optimizer: its name, for messages.
        groups: the groups that it has; their options stay where `state_dict` is another optimizer's, but for betas.
        moments: names of the moments that it needs.

    Raises:
        ValueError: a moment or the step count is missing, of the wrong shape or for another parameter; or the other
            optimizer did what this one cannot go on with.
    """
    saved_groups = state_dict["param_groups"]
    if [len(group["params"]) for group in saved_groups] != [len(group["params"]) for group in groups]:
        raise ValueError(
            f"{optimizer}: the state has groups of {[len(group['params']) for group in saved_groups]} parameters, the "
            f"optimizer of {[len(group['params']) for group in groups]}; make both from the same groups"
        )
    known = {i for group in saved_groups for i in group["params"]}
    if unknown := [str(i) for i in state_dict["state"] if i not in known]:
        raise ValueError(f"{optimizer}: the state has moments of {', '.join(unknown[:3])}, which no group of it holds")
    new_groups: list[dict[str, Any]] = []
    state: dict[Any, dict[str, Any]] = {}
    dropped: set[str] = set()
    for index, (own, saved) in enumerate(zip(groups, saved_groups, strict=True)):
        _check_order(optimizer, own, saved)
        new_groups.append(_options(optimizer, own, saved))
        for number, (i, parameter) in enumerate(zip(saved["params"], own["params"], strict=True)):
            if found := state_dict["state"].get(i):
                name = own["param_names"][number] if "param_names" in own else f"{index}.{number}"
                where = f"{optimizer}: the state of parameter {name}"
                state[i] = _state(where, parameter, found, saved, moments)
                dropped |= found.keys() - state[i].keys()
    if dropped:
        warnings.warn(f"{optimizer} has no use for {', '.join(sorted(dropped))} of the state: left out", stacklevel=4)
    return {**state_dict, "param_groups": new_groups, "state": state}


def _options(optimizer: str, own: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """The options of a group: all that are saved if this package saved them, else its own with the saved betas."""
    kept = {name: value for name, value in own.items() if name not in ("params", "param_names")}
    if _OWN_OPTION in saved:
        return kept | saved
    if bool(saved.get("maximize", False)) != own["maximize"]:
        raise ValueError(f"{optimizer}: the state was made with maximize={saved.get('maximize', False)}; give the same")
    others = {name for name in kept.keys() & saved.keys() - {"betas", "fused"} if not _equal(kept[name], saved[name])}
    if others:
        said = ", ".join(f"{name}={kept[name]} (not {saved[name]})" for name in sorted(others))
        warnings.warn(f"{optimizer} takes moments, steps and betas of the state and keeps its own {said}", stacklevel=5)
    betas = {"betas": tuple(float(beta) for beta in saved["betas"])} if "betas" in kept.keys() & saved.keys() else {}
    return kept | betas | {"params": saved["params"]}


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) if one is not None and other is not None else one is other


def _check_order(optimizer: str, own: dict[str, Any], saved: dict[str, Any]) -> None:
    names, others = own.get("param_names", []), saved.get("param_names", [])
    if names != others and sorted(names) == sorted(others):
        raise ValueError(f"{optimizer}: the state has the same parameters in another order; make both from one model")


def _state(
    where: str, parameter: Tensor, found: dict[str, Any], group: dict[str, Any], moments: Sequence[str]
) -> dict[str, Any]:
    """`step`, moments and `master` of one parameter."""
    if missing := [name for name in moments if name not in found]:
        raise ValueError(
            f"{where} has {', '.join(map(str, found))} and no {', '.join(missing)}: it is of another kind of optimizer"
        )
    shaped = [name for name, value in found.items() if isinstance(value, Tensor) and value.shape == parameter.shape]
    if (others := sorted({*shaped} - {*moments, *_SPARE, "step"})) and parameter.ndim:
        raise ValueError(
            f"{where} has {', '.join(others)} beside {', '.join(moments)}: it is of another kind of optimizer"
        )
    new = {name: found[name] for name in (*moments, "master") if name in found}
    for name, value in new.items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape != parameter.shape:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{where} has {name} of {shape}, not floating-point numbers of {tuple(parameter.shape)}")
    if group.get("grad_averaging", True) in (False, 0):  # apex's and timm's: the moment is a sum, not an average
        new["exp_avg"] = new["exp_avg"].double() * (1 - group["betas"][0])
    return {"step": _step(where, found, group, [new[name] for name in moments]), **new}


def _step(where: str, found: dict[str, Any], group: dict[str, Any], moments: Sequence[Tensor]) -> Tensor:
    """The number of steps that made the moments, wherever it is kept."""
    saved = found.get("step", group.get("step"))
    if saved is None:
        raise ValueError(f"{where} has no step count, neither beside the moments nor in its group; add it as 'step'")
    step = float(saved)
    if not math.isfinite(step) or step < 0 or step != int(step):
        raise ValueError(f"{where} has step {step}, which is no count")
    if step == 0 and any(bool(moment.any()) for moment in moments):
        raise ValueError(f"{where} has moments after no step; give the step count that made them as 'step'")
    return torch.tensor(step, dtype=torch.float32)
