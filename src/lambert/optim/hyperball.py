"""Hyperball (Wen et al. 2026, arXiv 2606.16899): a step relative to the norm of a matrix, which stays what it was.

W ← R · Norm(W − η · R · Norm(u)) with R = ‖W‖ and Norm(z) = z/‖z‖: LAMB's step without decay, and a projection back. R
is taken before each step; as every step keeps it, that is the norm of the initial weights up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lambert.optim import equations
from lambert.optim.layerwise import LayerwiseOptimizer, Parameters
from lambert.optim.options import Slices


class _Hyperball(LayerwiseOptimizer):
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to train, with options of their own.

        Raises:
            ValueError: an option is out of its range, or the group has weight decay.
        """
        super().add_param_group(param_group)
        if decay := self.param_groups[-1]["weight_decay"]:
            del self.param_groups[-1]
            raise ValueError(f"{type(self).__name__}: weight_decay = {decay!r}, but norms are kept; give 0")


class AdamHyperball(_Hyperball):
    """Hyperball with Adam's direction m̂ / (√v̂ + ε), for hidden matrices; AdamW takes all other parameters.

    Args:
        params: tensors, named tensors, or groups of either.
        lr: learning rate η: the fraction of its norm that a layer moves before it is scaled back.
        betas, eps: as `LAMB`'s.
        max_grad_norm, maximize, master_weights, slices: as `LAMB`'s.

    A layer of zeros moves by η‖u‖ once and keeps that norm.

    Raises:
        ValueError: an option is out of its range; the message names it and its value.
        RuntimeError: from `step`: a gradient is sparse, or a parameter is a flat shard (FSDP1, ZeRO).
    """

    rule = equations.ADAM_HYPERBALL

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        *,
        max_grad_norm: float | None = None,
        maximize: bool = False,
        master_weights: bool = False,
        slices: Sequence[Slices | None] | None = None,
    ) -> None:
        super().__init__(params, locals())


class MuonHyperball(_Hyperball):
    """Hyperball with Muon's direction, the orthogonalized Nesterov momentum, for hidden matrices.

    Args:
        params: matrices, named matrices, or groups of either. With `slices` each slice is a matrix of its own.
        lr: learning rate η, as `AdamHyperball`'s.
        momentum: β of Muon's momentum.
        max_grad_norm, maximize, master_weights, slices: as `LAMB`'s.

    Raises:
        ValueError: an option is out of its range, or a parameter is not a matrix.
        RuntimeError: from `step`: a gradient is sparse, or a parameter is a shard: whole matrices are needed.
    """

    rule = equations.MUON_HYPERBALL

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 2e-2,
        momentum: float = 0.95,
        *,
        max_grad_norm: float | None = None,
        maximize: bool = False,
        master_weights: bool = False,
        slices: Sequence[Slices | None] | None = None,
    ) -> None:
        super().__init__(params, locals())

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add matrices to train, with options of their own.

        Raises:
            ValueError: an option is out of its range, a parameter is not a matrix, or the group has weight decay.
        """
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if parameter.ndim != 2:
                del self.param_groups[-1]
                raise ValueError(
                    f"MuonHyperball takes matrices; got a parameter of shape {tuple(parameter.shape)}. Give it to "
                    "AdamW (CombinedOptimizer)"
                )
