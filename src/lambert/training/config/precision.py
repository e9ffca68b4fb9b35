"""Precision of a run: float32, or bfloat16 in two ways, chosen only if it is faster on the hardware."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from enum import Enum

import torch
from torch import Tensor, nn

from lambert.errors import unknown_name
from lambert.model.ops import has_numba


class Precision(Enum):
    """dtypes of weights and compute."""

    FLOAT32 = "float32"
    """Everything in float32."""
    BFLOAT16_AUTOCAST = "bfloat16-autocast"
    """Weights in float32, matmuls in bfloat16."""
    BFLOAT16_MASTER = "bfloat16-master"
    """Weights and activations in bfloat16; the optimizer keeps and updates a float32 copy."""

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """Autocast context for the forward pass."""
        if self is Precision.BFLOAT16_AUTOCAST:
            return torch.autocast(device.type, dtype=torch.bfloat16)
        return nullcontext()


def resolve_precision(name: str, *, bfloat16_gains: bool, pretrains_on: str = "") -> Precision:
    """The precision `name`; `auto` is float32 if bfloat16 is not faster.

    If it is, `auto` is bfloat16-master for pre-training on a GPU, or on a CPU with the fused kernels; else
    bfloat16-autocast.

    Args:
        pretrains_on: type of the device; empty for fine-tuning.

    Raises:
        UserError: unknown precision.
    """
    if name == "auto":
        if not bfloat16_gains:
            return Precision.FLOAT32
        keeps_master = pretrains_on == "cuda" or (pretrains_on == "cpu" and has_numba())
        return Precision.BFLOAT16_MASTER if keeps_master else Precision.BFLOAT16_AUTOCAST
    try:
        return Precision(name)
    except ValueError:
        raise unknown_name("precision", name, ["auto", *(p.value for p in Precision)]) from None


class MasterWeights:
    """Float32 master weights for the optimizer; the model itself becomes bfloat16.

    `gradient_reduction.py` moves the gradients from each of `pairs` to the other.
    """

    def __init__(self, model: nn.Module) -> None:
        self._named = dict(model.named_parameters())
        self._masters: dict[str, Tensor] = {}
        for name, parameter in self._named.items():
            self._masters[name] = nn.Parameter(parameter.detach().to(torch.float32, copy=True))
        model.to(torch.bfloat16)

    def master_of(self, parameter: Tensor) -> Tensor:
        """The float32 master of a model parameter."""
        for name, own in self._named.items():
            if own is parameter:
                return self._masters[name]
        raise KeyError("not a parameter of this model")

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Every model parameter with its master, in model order."""
        return [(parameter, self._masters[name]) for name, parameter in self._named.items()]

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Copy the master weights to the model, rounded to bfloat16."""
        torch._foreach_copy_(list(self._named.values()), list(self._masters.values()))
