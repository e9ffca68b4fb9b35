"""Options of a parameter group, and their checks."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from torch import Tensor

Slices = tuple[int, tuple[int, ...]]
"""A dimension, and the sizes of the layers stacked along it."""


_KEPT_BY_TORCH = {"params", "param_names", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}


def is_adapted(group: dict[str, Any]) -> bool:
    """Whether the layers of a group get a trust ratio; `"decayed"` gives one where there is weight decay."""
    return bool(group["weight_decay"] != 0) if group["adapt"] == "decayed" else bool(group["adapt"])


def clip_limit(group: dict[str, Any]) -> float | None:
    """The group's `max_grad_norm` as a finite number above 0; None where nothing is clipped."""
    limit = group.get("max_grad_norm")
    return None if limit is None or limit == 0 or limit == math.inf else float(limit)


def check_group(optimizer: str, group: dict[str, Any], known: Collection[str]) -> None:
    """Refuses options out of their range, and misspelled ones.

    Args:
        known: the optimizer's options. A group may hold other keys, unless they look like a typo of one of these.

    Raises:
        ValueError: names the optimizer, the option and its value.
    """
    for name in group.keys() - set(known) - _KEPT_BY_TORCH:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if near:
            raise ValueError(f"{optimizer}: a group has no option {name}; did you mean {near[0]}?")
    for name, (is_valid, wanted) in _VALID.items():
        if name in group and not is_valid(group[name]):
            raise ValueError(f"{optimizer}: {name} = {group[name]!r} is not {wanted}")
    _check_slices(optimizer, group["params"], group["slices"])


def _is_number(value: Any, valid: Callable[[float], bool]) -> bool:
    return isinstance(value, (int, float, Tensor)) and not isinstance(value, bool) and valid(float(value))


def _is_decay(value: Any) -> bool:
    return _is_number(value, lambda z: 0 <= z < 1)


def _is_from_zero(value: Any) -> bool:
    return _is_number(value, lambda z: 0 <= z < math.inf)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2


def _is_one_of(*choices: Any) -> Callable[[Any], bool]:
    """By identity: 1 is not True."""
    return lambda value: any(value is choice for choice in choices)


_VALID: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": (_is_from_zero, "a number from 0"),
    "eps": (lambda value: _is_number(value, lambda z: 0 < z < math.inf), "a number above 0"),
    "weight_decay": (_is_from_zero, "a number from 0"),
    "betas": (lambda value: _is_pair(value) and all(map(_is_decay, value)), "two numbers from 0 to below 1"),
    "trust_coefficient": (
        lambda value: value is None or _is_number(value, lambda z: 0 < z < math.inf),
        "None, or a number above 0",
    ),
    "momentum": (_is_decay, "a number from 0 to below 1"),
    "adapt": (lambda value: value in ("decayed",) or isinstance(value, bool), 'True, False or "decayed"'),
    "max_grad_norm": (
        lambda value: value is None or _is_number(value, lambda z: z >= 0),
        "None, or a number from 0 (0 and infinity clip nothing)",
    ),
    "norm_bounds": (
        lambda value: value is None or (_is_pair(value) and 0 <= value[0] <= value[1]),
        "None, or (min, max)",
    ),
    "bias_correction": (_is_one_of(True, False), "True or False"),
    "maximize": (_is_one_of(True, False), "True or False"),
    "master_weights": (_is_one_of(True, False), "True or False"),
    "fused": (_is_one_of(None, True, False), "None, True or False"),
}


def _check_slices(optimizer: str, parameters: Sequence[Tensor], slices: Sequence[Slices | None] | None) -> None:
    if slices is None:
        return
    if len(slices) != len(parameters):
        raise ValueError(f"{optimizer}: slices has {len(slices)} entries for {len(parameters)} parameters of the group")
    for parameter, entry in zip(parameters, slices, strict=True):
        if entry is None:
            continue
        shape = tuple(parameter.shape)
        dimension, sizes = entry
        if not 0 <= dimension < len(shape) or sum(sizes) != shape[dimension] or min(sizes) < 1:
            raise ValueError(
                f"{optimizer}: slices {entry!r} do not make up a parameter of shape {shape}; give "
                "(dimension, sizes) whose sizes add up to that dimension"
            )
