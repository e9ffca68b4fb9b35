"""What a parameter group may say, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

Slices = tuple[int, tuple[int, ...]]
"""A dimension, and the sizes of the layers that lie behind one another along it."""

ADAPT = (True, False, "decayed")


def is_adapted(group: dict[str, Any]) -> bool:
    """Whether the layers of a group get a trust ratio; `"decayed"` asks for one where there is weight decay."""
    return bool(group["weight_decay"] != 0) if group["adapt"] == "decayed" else bool(group["adapt"])


def clip_limit(group: dict[str, Any]) -> float | None:
    """The group's clip as a finite number above 0; None, 0 and infinity all mean that nothing is clipped."""
    limit = group["clip_norm"]
    return None if limit is None or limit == 0 or limit == math.inf else float(limit)


def check_group(optimizer: str, group: dict[str, Any]) -> None:
    """Refuse options out of their range.

    Raises:
        ValueError: names the optimizer, the option and its value.
    """

    def number(value: Any, valid: Callable[[float], bool]) -> bool:
        return isinstance(value, (int, float, Tensor)) and not isinstance(value, bool) and valid(float(value))

    betas = group["betas"]
    checks: list[tuple[str, Any, bool, str]] = [
        ("lr", group["lr"], number(group["lr"], lambda z: 0 <= z < math.inf), "a number from 0"),
        ("eps", group["eps"], number(group["eps"], lambda z: 0 < z < math.inf), "a number above 0"),
        (
            "weight_decay",
            group["weight_decay"],
            number(group["weight_decay"], lambda z: 0 <= z < math.inf),
            "a number from 0",
        ),
        (
            "betas",
            betas,
            len(betas) == 2 and all(number(b, lambda z: 0 <= z < 1) for b in betas),
            "two from 0 to below 1",
        ),
        ("adapt", group["adapt"], any(group["adapt"] is known for known in ADAPT), 'True, False or "decayed"'),
        (
            "clip_norm",
            group["clip_norm"],
            group["clip_norm"] is None or number(group["clip_norm"], lambda z: z >= 0),
            "None, or a number from 0 (0 and infinity clip nothing)",
        ),
        ("norm_bounds", group["norm_bounds"], _are_bounds(group["norm_bounds"]), "None, or (least, most)"),
        *(
            (flag, group[flag], isinstance(group[flag], bool), "True or False")
            for flag in ("bias_correction", "maximize", "master_weights")
        ),
        ("fused", group["fused"], any(group["fused"] is known for known in (None, True, False)), "None, True or False"),
    ]
    for name, value, is_valid, wanted in checks:
        if not is_valid:
            raise ValueError(f"{optimizer}: {name} = {value!r} is not {wanted}")
    _check_slices(optimizer, group["params"], group["slices"])


def _are_bounds(bounds: Any) -> bool:
    if bounds is None:
        return True
    return isinstance(bounds, (tuple, list)) and len(bounds) == 2 and 0 <= bounds[0] <= bounds[1]


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
