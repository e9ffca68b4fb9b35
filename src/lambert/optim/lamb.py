"""LAMB: Algorithm 2 of "Large Batch Optimization for Deep Learning" (You et al., ICLR 2020, arXiv 1904.00962).

The equations are in `equations.py`. A "layer" is one tensor, or one of the slices that a group declares in it. Its
trust ratio is φ(‖x‖) / ‖u‖, so an adapted layer moves by exactly η‖x‖ in every step (by η‖u‖ where either norm is 0).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from torch import Tensor, nn

from lambert.optim import equations
from lambert.optim.groups import parameter_groups
from lambert.optim.layerwise import LayerwiseOptimizer, Parameters
from lambert.optim.options import Slices


class LAMB(LayerwiseOptimizer):
    """Layer-wise Adaptive Moments for Batch training.

    `LAMB(model.parameters(), lr=…)` is Algorithm 2 as published, applied to every tensor. Use `parameter_groups` to
    exclude norms and vectors from weight decay and trust ratios, as the BERT recipe does. Every option can differ
    between groups. Works with FSDP2 and tensor parallelism (`DTensor`), `torch.amp.GradScaler` and schedulers.

    Args:
        params: tensors, named tensors, or groups of either.
        lr: learning rate η, a float or a 0-dimensional tensor; an adapted layer moves by this fraction of its norm.
        betas: decay of the first and the second moment, each from 0 to below 1.
        eps: ε, added to √v̂, above 0.
        weight_decay: λ, added as λx to the direction before it is normalized.
        adapt: whether layers get a trust ratio; `"decayed"` gives one where `weight_decay` is not 0.
        bias_correction: divide m by 1 − β₁ᵗ and v by 1 − β₂ᵗ; the learning rate is never changed.
        max_grad_norm: clip gradients to this L2 norm, taken over all groups with the same value; None, 0 and infinity
            clip nothing. `p.grad` is not modified.
        norm_bounds: (min, max) of φ(‖x‖); None means φ(‖x‖) = ‖x‖.
        maximize: ascend instead of descend.
        master_weights: keep and update a float32 copy of lower-precision parameters; it is part of the state.
        slices: for each parameter of the group None, or (dimension, sizes): the layers stacked along that dimension,
            such as `(0, (h, h, h))` for query, key and value in one matrix of 3h rows.
        fused: True requires a compiled kernel, False disables it, None uses one where it can run: dense float32
            parameters, with numba on a CPU or Triton on a GPU.

    The state of a parameter is `step`, `exp_avg` and `exp_avg_sq`, as AdamW's, so that either optimizer loads the
    other's, and `master` with `master_weights`. Moments of lower-precision parameters are float32.

    Raises:
        ValueError: an option is out of its range; the message names it and its value.
        RuntimeError: from `step`: a gradient is sparse, or a parameter is a flat shard (FSDP1, ZeRO).

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
        super().__init__(params, locals())

    @classmethod
    def from_preset(
        cls, name: str, params: nn.Module | Iterable[Any], lr: float | Tensor = 1e-3, **options: Any
    ) -> Self:
        """LAMB as in another implementation: `paper`, `bert`, `google`, `apex`, `nvlamb` or `optax`.

        Args:
            name: the preset; docs/lamb.md has the source of each.
            params: the model (required by `bert` and `google`), or anything that `LAMB` takes.
            lr: learning rate η.
            options: any of `LAMB`'s; they override the preset's.

        Raises:
            ValueError: there is no such preset, or an option is out of its range.
        """
        arguments, options = _preset_arguments(name, params, options)
        return cls(arguments, lr, **options)


@dataclass(frozen=True)
class Preset:
    """Options of `LAMB`, and whether norms and vectors are excluded from weight decay and trust ratios."""

    options: dict[str, Any] = field(default_factory=dict)
    excludes_norms: bool = False


PRESETS: dict[str, Preset] = {
    # Algorithm 2 of the ICLR paper: every tensor alike.
    "paper": Preset(),
    # This project's recipe for BERT; the training step clips, as BERT did.
    "bert": Preset(excludes_norms=True),
    # The authors' TensorFlow code (as published with ALBERT): no bias correction; clipping is the caller's.
    "google": Preset({"bias_correction": False}, excludes_norms=True),
    # NVIDIA apex FusedLAMB: groups without decay are not adapted, and the gradient is clipped inside.
    "apex": Preset({"adapt": "decayed", "max_grad_norm": 1.0}),
    # The same with use_nvlamb=True: every group is adapted.
    "nvlamb": Preset({"max_grad_norm": 1.0}),
    # optax.lamb: no decay unless asked for.
    "optax": Preset({"weight_decay": 0.0}),
}


def _preset_arguments(
    name: str, params: nn.Module | Iterable[Any], options: dict[str, Any]
) -> tuple[Iterable[Any], dict[str, Any]]:
    """The arguments of `LAMB`: parameters or groups, and options, where given ones override the preset's.

    Raises:
        ValueError: there is no such preset, or it needs a model.
    """
    if name not in PRESETS:
        raise ValueError(f"LAMB: no preset {name!r}; choose one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    options = preset.options | options
    if not isinstance(params, nn.Module):
        if preset.excludes_norms:
            raise ValueError(
                f"LAMB: preset {name!r} excludes norms and vectors, so it needs the model itself; "
                "give it instead of its parameters"
            )
        return params, options
    if not preset.excludes_norms:
        return params.named_parameters(), options
    return parameter_groups(params, weight_decay=options.pop("weight_decay", 0.01)), options
