"""LANS: Zheng et al., "Accelerated Large Batch Optimization of BERT Pretraining in 54 minutes", arXiv 2006.13484."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lambert.optim import equations
from lambert.optim.layerwise import LayerwiseOptimizer, Parameters
from lambert.optim.options import Slices


class LANS(LayerwiseOptimizer):
    """LAMB with normalized gradients and Nesterov momentum: two directions, each with its own trust ratio.

    Each layer's gradient is divided by its own norm first, so the loss scale and any clip cancel out.

    Args:
        params: tensors, named tensors, or groups of either.
        lr, betas, eps, weight_decay: as `LAMB`'s.
        adapt, norm_bounds, maximize, master_weights, slices: as `LAMB`'s.

    Raises:
        ValueError: an option is out of its range; the message names it and its value.
        RuntimeError: from `step`: a gradient is sparse, or a parameter is a flat shard (FSDP1, ZeRO).
    """

    rule = equations.LANS

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        adapt: bool | Literal["decayed"] = True,
        norm_bounds: tuple[float, float] | None = None,
        maximize: bool = False,
        master_weights: bool = False,
        slices: Sequence[Slices | None] | None = None,
    ) -> None:
        super().__init__(params, locals())
