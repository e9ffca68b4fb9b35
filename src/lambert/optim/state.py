"""What `step` and `load_state_dict` of the optimizers share: closures, and the state of a parameter between steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lambert.optim.layers import flat
from lambert.optim.norms import local_part


def loss_of(closure: Callable[[], Any] | None) -> Any:
    """What the closure of `step` returns, called with gradients; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def state_of(state: dict[str, Any], parameter: Tensor, moments: Sequence[str], *, master: bool) -> dict[str, Any]:
    """Fills in what `state` lacks: moments start at zero, the master copy at the parameter.

    Keys and the step tensor are AdamW's, so that either optimizer reads the other's.
    """
    if "step" not in state:
        state["step"] = torch.zeros((), dtype=torch.float32)
    for key in moments:
        if key not in state:
            state[key] = torch.zeros_like(parameter, dtype=_wide(parameter.dtype))
    if master and "master" not in state and parameter.dtype != _wide(parameter.dtype):
        state["master"] = parameter.detach().to(_wide(parameter.dtype), copy=True)
    if not master:
        state.pop("master", None)
    return state


def keep_step(state: dict[str, Any], device: torch.device) -> Tensor:
    """The number of earlier steps on `device`: that of the loops that count for themselves, otherwise the CPU."""
    step: Tensor = state["step"]
    if step.device != device:
        step = state["step"] = step.to(device)
    return step


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The precision that moments and master weights of such a parameter are kept in."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def restore_widths(optimizer: Optimizer, state_dict: dict[str, Any], moments: Sequence[str]) -> None:
    """Restores the precision that `Optimizer.load_state_dict` casts to the parameters', in new tensors."""
    saved_ids = [i for group in state_dict["param_groups"] for i in group["params"]]
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for i, parameter in zip(saved_ids, own, strict=True):
        saved = state_dict["state"].get(i, {})
        if "step" in saved:
            optimizer.state[parameter]["step"] = torch.tensor(float(saved["step"]), dtype=torch.float32)
        for key in (*moments, "master"):
            if key in saved:
                wide = saved[key].detach().to(parameter.device, _wide(parameter.dtype), copy=True)
                optimizer.state[parameter][key] = wide


def resync_master(parameter: Tensor, state: dict[str, Any]) -> None:
    """Takes over into the master copy what was changed in the parameter since the last step, in whatever way.

    Values that the copy rounds to are kept: a checkpoint restores both. On a GPU nothing waits for the answer.
    """
    master = state.get("master")
    if master is None:
        return
    rounded = master.to(parameter.dtype)
    if parameter.device.type == "cpu" and _same(local_part(rounded), local_part(parameter)):
        return
    master.copy_(torch.where(rounded == parameter, master, parameter.to(master.dtype)))


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two 16-bit tensors of one shape have the same bits, or where memory does not allow that, equal numbers.

    PyTorch compares four of them as one integer in a fifth of the time.
    """
    flats = flat([a, b])
    if flats is not None and not a.numel() % 4 and not b.storage_offset() % 4:
        return torch.equal(flats[0].view(torch.int64), flats[1].view(torch.int64))
    return torch.equal(a, b)
