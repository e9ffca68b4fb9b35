"""Several optimizers as one: a layer-wise optimizer for hidden matrices, say, and AdamW for everything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lambert.optim.state import loss_of


class CombinedOptimizer(Optimizer):
    """Optimizers that each have parameters of their own, as one for schedulers, checkpoints and gradient scalers.

    The groups are those of the parts, so a scheduler that scales each group's `lr` keeps the ratio between parts.
    Gradients are divided by the attribute `grad_scale`, and nothing changes where `found_inf` is not 0, if every part
    does that.

    Args:
        parts: optimizers without a parameter in common. They share their state with this one from then on.

    Raises:
        ValueError: a parameter is in two parts.

    Example:
        >>> hidden, rest = split_groups(groups, is_hidden)
        >>> optimizer = CombinedOptimizer(LAMB(hidden, lr=1e-2), AdamW(rest, lr=2e-3))
    """

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._step_supports_amp_scaling = all(getattr(part, "_step_supports_amp_scaling", False) for part in parts)
        self._share()

    def _share(self) -> None:
        """One state, and the parts' own group objects."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        self.state = defaultdict(dict, {key: value for part in self.parts for key, value in part.state.items()})
        for part in self.parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; returns what `closure` returns."""
        loss = loss_of(closure)
        for part in self.parts:
            for name in ("grad_scale", "found_inf"):
                setattr(part, name, getattr(self, name, None))
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's, each part by its own rules.

        Raises:
            ValueError: the state is not of the same parts with the same groups.
        """
        saved = state_dict["param_groups"]
        if [_kind(group) for group in saved] != [_kind(group) for group in self.param_groups]:
            raise ValueError(
                "CombinedOptimizer: the state is not of the same optimizers with the same groups; start without one"
            )
        for part, groups in self._groups_of_parts(saved):
            ids = {i for group in groups for i in group["params"]}
            state = {i: value for i, value in state_dict["state"].items() if i in ids}
            part.load_state_dict({"param_groups": groups, "state": state})
        self._share()

    def _groups_of_parts(self, groups: list[dict[str, Any]]) -> Iterator[tuple[Optimizer, list[dict[str, Any]]]]:
        start = 0
        for part in self.parts:
            stop = start + len(part.param_groups)
            yield part, groups[start:stop]
            start = stop


def _kind(group: dict[str, Any]) -> tuple[int, bool, bool]:
    """What tells apart groups of different optimizers: the number of parameters, and which moments they have."""
    return len(group["params"]), "betas" in group, "momentum" in group


def parts_of(optimizer: Optimizer) -> tuple[Optimizer, ...]:
    """The parts of a combined optimizer, or the optimizer itself."""
    return optimizer.parts if isinstance(optimizer, CombinedOptimizer) else (optimizer,)


def split_groups(
    groups: list[dict[str, Any]], selects: Callable[[Tensor], bool]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Parameter groups split in two, with their options: parameters that `selects` takes, and all others.

    Args:
        groups: as from `parameter_groups`: `params` of tensors or of (name, tensor) pairs.
        selects: from a tensor to whether it goes into the first.
    """
    chosen: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group in groups:
        entries = list(zip(group["params"], group.get("slices") or [None] * len(group["params"]), strict=True))
        for place, wanted in enumerate((True, False)):
            own = [entry for entry in entries if selects(_tensor(entry[0])) is wanted]
            if own:
                part = {**group, "params": [parameter for parameter, _ in own]}
                if "slices" in group:
                    part["slices"] = [slices for _, slices in own]
                chosen[place].append(part)
    return chosen


def _tensor(parameter: Tensor | tuple[str, Tensor]) -> Tensor:
    return parameter[1] if isinstance(parameter, tuple) else parameter
