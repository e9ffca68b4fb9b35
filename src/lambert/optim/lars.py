"""LARS as the LAMB paper states it: Algorithm 1 of You et al., ICLR 2020, arXiv 1904.00962."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lambert.optim import equations
from lambert.optim.layerwise import LayerwiseOptimizer, Parameters
from lambert.optim.options import Slices


class LARS(LayerwiseOptimizer):
    """Layer-wise Adaptive Rate Scaling: m ← βm + (1 − β)(g + λx), x ← x − η · φ(‖x‖)/‖m‖ · m.

    An adapted layer moves by exactly η‖x‖ in every step, as with LAMB. This is not the older LARS (arXiv 1708.03888),
    which scales the gradient before momentum and has a trust coefficient.

    Args:
        params: tensors, named tensors, or groups of either.
        lr: learning rate η.
        momentum: β, from 0 to below 1.
        weight_decay: λ.
        adapt, max_grad_norm, norm_bounds, maximize, master_weights, slices: as `LAMB`'s.

    Raises:
        ValueError: an option is out of its range; the message names it and its value.
        RuntimeError: from `step`: a gradient is sparse, or a parameter is a flat shard (FSDP1, ZeRO).
    """

    rule = equations.LARS

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
        *,
        adapt: bool | Literal["decayed"] = True,
        max_grad_norm: float | None = None,
        norm_bounds: tuple[float, float] | None = None,
        maximize: bool = False,
        master_weights: bool = False,
        slices: Sequence[Slices | None] | None = None,
    ) -> None:
        super().__init__(params, locals())
