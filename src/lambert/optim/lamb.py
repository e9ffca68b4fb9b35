"""LAMB: Algorithm 2 of "Large Batch Optimization for Deep Learning" (You et al., ICLR 2020, arXiv 1904.00962).

The equations are in `equations.py`; here is the optimizer around them. A "layer" is one tensor, or one of the slices
that a group declares in it. Its trust ratio is φ(‖x‖) / ‖u‖, so an adapted layer moves by exactly η‖x‖ in every step
(by η‖u‖ where either norm is 0).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

from torch import Tensor, nn

from lambert.optim import equations
from lambert.optim.layerwise import LayerwiseOptimizer, Parameters
from lambert.optim.options import Slices
from lambert.optim.presets import preset_arguments


class LAMB(LayerwiseOptimizer):
    """Layer-wise Adaptive Moments for Batch training.

    `LAMB(model.parameters(), lr=…)` is Algorithm 2 as published, for every tensor alike. `parameter_groups` leaves
    layer norms and biases out, as the BERT recipe does. Every option can differ between groups.

    Args:
        params: tensors, named tensors, or groups of either.
        lr: learning rate η, also as a 0-dimensional tensor; the share of its own norm by which an adapted layer moves.
        betas: decay of the first and the second moment, each from 0 to below 1.
        eps: ε, added to √v̂, above 0.
        weight_decay: λ, added as λx to the direction before it is normalised.
        adapt: whether layers get a trust ratio; `"decayed"` asks for it where `weight_decay` is not 0.
        bias_correction: divide m by 1 − β₁ᵗ and v by 1 − β₂ᵗ; it never touches the learning rate.
        max_grad_norm: scale gradients down to this L2 norm, taken over all groups that give the same number; None, 0
            and infinity clip nothing. `p.grad` is left as it is.
        norm_bounds: least and most of φ(‖x‖); None is the norm itself.
        maximize: go up instead of down.
        master_weights: keep a float32 copy of parameters of less precision and update that; it is part of the state.
        slices: for each parameter of the group None, or (dimension, sizes): the layers that lie behind one another
            along that dimension, such as `(0, (h, h, h))` for query, key and value in one matrix of 3h rows.
        fused: True insists on the compiled kernel, False leaves it alone, None takes it where it can run: float32
            parameters on a CPU.

    State of a parameter: `step`, `exp_avg` and `exp_avg_sq` as AdamW's, so that either optimizer reads the other's, and
    `master` where asked for. Moments are float32 for parameters of less precision.

    Raises:
        ValueError: an option is out of its range (the message names it and its value).
        RuntimeError: a gradient is sparse, or a parameter a flat shard (FSDP1, ZeRO), from `step`.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimizer = LAMB([weight], lr=0.1, weight_decay=0.0)
        >>> weight.grad = torch.tensor([1.0, 1.0])
        >>> optimizer.step()
        >>> [round(value, 4) for value in weight.tolist()]  # moved by 0.1 · ‖(3, 4)‖ = 0.5
        [2.6464, 3.6464]
    """

    rule = equations.LAMB

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        adapt: bool | Literal["decayed"] = True,
        bias_correction: bool = True,
        max_grad_norm: float | None = None,
        norm_bounds: tuple[float, float] | None = None,
        maximize: bool = False,
        master_weights: bool = False,
        slices: Sequence[Slices | None] | None = None,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "adapt": adapt,
            "bias_correction": bias_correction,
            "max_grad_norm": max_grad_norm,
            "norm_bounds": norm_bounds,
            "maximize": maximize,
            "master_weights": master_weights,
            "slices": slices,
            "fused": fused,
        }
        super().__init__(params, defaults)

    @classmethod
    def from_preset(
        cls, name: str, params: nn.Module | Iterable[Any], lr: float | Tensor = 1e-3, **options: Any
    ) -> Self:
        """LAMB as somebody else has it: `paper`, `bert`, `google`, `apex`, `nvlamb` or `optax`.

        Args:
            params: the model (which `bert` and `google` need), or whatever `LAMB` takes.
            options: any of `LAMB`'s, in place of the preset's.

        Raises:
            ValueError: there is no such preset, or an option is out of its range.
        """
        arguments, options = preset_arguments(name, params, options)
        return cls(arguments, lr, **options)
