"""LARS in both forms: Algorithm 1 of the LAMB paper (You et al. 2020, arXiv 1904.00962), and that of 2017."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from lambert.optim import equations
from lambert.optim.layerwise import LayerwiseOptimizer, Parameters
from lambert.optim.options import Slices


class LARS(LayerwiseOptimizer):
    """Layer-wise Adaptive Rate Scaling: m ← βm + (1 − β)(g + λx), x ← x − η · φ(‖x‖)/‖m‖ · m.

    An adapted layer moves by exactly η‖x‖ in every step, as with LAMB. λx stands beside raw gradients: where λ‖x‖ is
    above ‖g‖, as in BERT with 0.01, a step mostly shrinks the layer (docs/lamb.md).

    With `trust_coefficient` it is the LARS of 2017 (You et al., arXiv 1708.03888), which scales the gradient before
    momentum: v ← μv + τ‖x‖/(‖g‖ + λ‖x‖) · (g + λx), x ← x − ηv. Its rates are τ⁻¹ times larger: 1 to 30 for τ = 0.001.

    Args:
        params: tensors, named tensors, or groups of either.
        lr: learning rate η.
        momentum: β or μ, from 0 to below 1.
        weight_decay: λ.
        trust_coefficient: τ of the form of 2017, 0.001 there; None is Algorithm 1 of the LAMB paper.
        adapt, max_grad_norm, norm_bounds, maximize, master_weights, slices: as `LAMB`'s.

    Raises:
        ValueError: an option is out of its range; the message names it and its value.
        RuntimeError: from `step`: a gradient is sparse, or a parameter is a flat shard (FSDP1, ZeRO).
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
        *,
        trust_coefficient: float | None = None,
        adapt: bool | Literal["decayed"] = True,
        max_grad_norm: float | None = None,
        norm_bounds: tuple[float, float] | None = None,
        maximize: bool = False,
        master_weights: bool = False,
        slices: Sequence[Slices | None] | None = None,
    ) -> None:
        super().__init__(params, locals())

    @property
    def rule(self) -> equations.UpdateRule:
        """That of 2017 with a trust coefficient, else that of the LAMB paper."""
        return equations.LARS if self.param_groups[0]["trust_coefficient"] is None else equations.LARS_2017

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to train, with options of their own.

        Raises:
            ValueError: an option is out of its range, or some groups have a trust coefficient and others have none.
        """
        super().add_param_group(param_group)
        if len({group["trust_coefficient"] is None for group in self.param_groups}) > 1:
            del self.param_groups[-1]
            raise ValueError("LARS: trust_coefficient is None in some groups only; give all groups one, or none")
