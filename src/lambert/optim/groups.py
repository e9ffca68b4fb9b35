"""Parameter groups: which parameters get weight decay and which a trust ratio, two independent choices.

A `ParamFilter` selects the parameters to exclude. `by_name("*bias", "*norm*")`, `by_dimensions(1)` and
`by_module(nn.LayerNorm)` make filters, `any_of(...)` joins them, and any function of the same arguments is one.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

ParamFilter = Callable[[str, Tensor, nn.Module], bool]
"""(name, parameter, the module that holds it) → whether to exclude the parameter."""


def by_name(*patterns: str) -> ParamFilter:
    """Parameters whose full name matches a shell pattern: `*` anything, `?` one character, `[ab]` one of several."""
    return lambda name, parameter, module: any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def by_dimensions(max_dimensions: int) -> ParamFilter:
    """Parameters of at most so many dimensions: 1 selects every bias and every scale of a normalization."""
    return lambda name, parameter, module: parameter.ndim <= max_dimensions


def by_module(*types: type[nn.Module]) -> ParamFilter:
    """Parameters held directly by a module of these types."""
    return lambda name, parameter, module: isinstance(module, types)


def any_of(*filters: ParamFilter) -> ParamFilter:
    """Parameters that any of the filters selects; none without filters."""
    return lambda name, parameter, module: any(one(name, parameter, module) for one in filters)


_NORM_CLASS = re.compile(r"(Layer|RMS|Group|Batch|Instance)Norm|Norm$")


def is_norm(name: str, parameter: Tensor, module: nn.Module) -> bool:
    """Whether a normalization holds the parameter: by its class's name, since every library has its own class."""
    return any(_NORM_CLASS.search(kind.__name__) for kind in type(module).__mro__)


BERT_NO_DECAY: ParamFilter = any_of(by_dimensions(1), is_norm, by_name("bias", "*.bias"))
"""Norms, biases and all other vectors. Google's published LAMB (in the ALBERT code) excludes layer norms and biases
from both; in BERT those are all vectors."""


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    no_decay: ParamFilter = BERT_NO_DECAY,
    no_adaptation: ParamFilter = BERT_NO_DECAY,
) -> list[dict[str, Any]]:
    """A model's parameters in up to four groups, each parameter in exactly one.

    Works for LAMB and, since it ignores `adapt`, for `torch.optim.AdamW`.

    Args:
        model: frozen parameters are skipped; a tied parameter is used once, under its first name.
        weight_decay: λ of the parameters with weight decay; the others get 0.
        no_decay, no_adaptation: parameters excluded from weight decay, and from trust ratios.

    Returns:
        Groups with `params` as (name, tensor) pairs, `weight_decay`, `adapt` and `slices`, without empty ones.
        Slices come from modules whose `param_slices` says which parameters hold several layers: name →
        (dimension, sizes).

    Raises:
        TypeError: `model` is not a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"parameter_groups needs the model itself, whose modules it looks at; got {type(model).__name__}"
        )
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter, module in _held_parameters(model):
        key = not no_decay(name, parameter, module), not no_adaptation(name, parameter, module)
        group = groups.setdefault(
            key,
            {
                "params": [],
                "slices": [],
                "weight_decay": weight_decay if key[0] else 0.0,
                "adapt": key[1],
            },
        )
        group["params"].append((name, parameter))
        group["slices"].append(getattr(module, "param_slices", {}).get(name.rpartition(".")[2]))
    return [groups[key] for key in sorted(groups, reverse=True)]


def _held_parameters(model: nn.Module) -> Iterable[tuple[str, Tensor, nn.Module]]:
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter, modules[name.rpartition(".")[0]]
