"""LAMB: Algorithm 2 of "Large Batch Optimization for Deep Learning" (You et al., ICLR 2020, arXiv 1904.00962).

The equations are in `equations.py`; here is the optimizer around them. A "layer" is one tensor, or one of the slices
that a group declares in it. Its trust ratio is φ(‖x‖) / ‖u‖, so an adapted layer moves by exactly η‖x‖ in every step
(by η‖u‖ where either norm is 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lambert.optim import norms
from lambert.optim.engine import global_norms, take_step
from lambert.optim.layers import Layer, layers_of, numbers_of
from lambert.optim.options import Slices, check_group, clip_limit, is_adapted
from lambert.optim.presets import preset_arguments
from lambert.optim.state import MOMENTS, forget_changes, restore_widths, state_of, take_over_changes
from lambert.optim.telemetry import LayerFigures, Telemetry


class LAMB(Optimizer):
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
        clip_norm: scale gradients down to this L2 norm, taken over all groups that give the same number; None, 0 and
            infinity clip nothing. `p.grad` is left as it is.
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

    _step_supports_amp_scaling = True  # torch.amp.GradScaler then hands over `grad_scale` and `found_inf`

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        adapt: bool | Literal["decayed"] = True,
        bias_correction: bool = True,
        clip_norm: float | None = None,
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
            "clip_norm": clip_norm,
            "norm_bounds": norm_bounds,
            "maximize": maximize,
            "master_weights": master_weights,
            "slices": slices,
            "fused": fused,
        }
        self._telemetry = Telemetry()
        self._versions: dict[Tensor, int] = {}
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

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to train, with options of their own.

        Raises:
            ValueError: an option is out of its range.
        """
        super().add_param_group(param_group)
        try:
            check_group(type(self).__name__, self.param_groups[-1])
        except ValueError:
            del self.param_groups[-1]
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._telemetry = Telemetry()
        self._versions = {}
        for group in self.param_groups:
            for option, default in self.defaults.items():
                group.setdefault(option, default)  # groups that AdamW saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's, but moments and master weights keep their float32."""
        super().load_state_dict(state_dict)
        restore_widths(self, state_dict)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; returns what `closure` returns.

        With a `torch.amp.GradScaler` whose loss scale overflowed, nothing at all changes.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and bool(found_inf.item()):
            return loss
        layers, fused = self._layers()
        self._telemetry.record(layers, take_step(layers, fused))
        self._publish_master_weights()
        return loss

    def _layers(self) -> tuple[list[Layer], list[bool | None]]:
        """Every layer that has a gradient, with its moments, and what its group says about the kernel."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._refuse_what_cannot_be_updated(parameter)
        factors = self._gradient_factors()
        layers: list[Layer] = []
        fused: list[bool | None] = []
        for group, factor in zip(self.param_groups, factors, strict=True):
            adapt = is_adapted(group)
            slices = group["slices"] or [None] * len(group["params"])
            for parameter, own_slices in zip(group["params"], slices, strict=True):
                if parameter.grad is None:
                    continue
                state = state_of(self.state[parameter], parameter, master=group["master_weights"])
                take_over_changes(self._versions, parameter, state)
                state["step"] += 1
                found = layers_of(
                    parameter,
                    state.get("master", parameter),
                    parameter.grad,
                    tuple(state[key] for key in MOMENTS),
                    numbers_of(group, state["step"].item(), adapt, factor),
                    own_slices,
                )
                layers += found
                fused += [group["fused"]] * len(found)
        return layers, fused

    def _refuse_what_cannot_be_updated(self, parameter: Tensor) -> None:
        name = type(self).__name__
        assert parameter.grad is not None
        if parameter.grad.is_sparse:
            raise RuntimeError(f"{name} needs dense gradients: build the embedding with sparse=False")
        norms.refuse_flat_shard(name, parameter)

    def _gradient_factors(self) -> list[float]:
        """For each group what its gradients are multiplied by: sign, loss scale and clip."""
        scale = getattr(self, "grad_scale", None)
        unscale = 1.0 if scale is None else 1.0 / float(scale.item())
        limits = [clip_limit(group) for group in self.param_groups]
        gradients: dict[float, list[tuple[Tensor, Tensor]]] = {limit: [] for limit in limits if limit is not None}
        for group, limit in zip(self.param_groups, limits, strict=True):
            if limit is not None:
                gradients[limit] += [(p, p.grad) for p in group["params"] if p.grad is not None]
        norm_of = {limit: norm * unscale for limit, norm in global_norms(gradients).items()}
        clips = [limit / norm_of[limit] if limit is not None and norm_of[limit] > limit else 1.0 for limit in limits]
        signs = [-1.0 if group["maximize"] else 1.0 for group in self.param_groups]
        return [sign * unscale * clip for sign, clip in zip(signs, clips, strict=True)]

    def _publish_master_weights(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter, {})
                if "master" in state and parameter.grad is not None:
                    parameter.copy_(state["master"])
                    forget_changes(self._versions, parameter)

    def layer_figures(self, named_parameters: Iterable[tuple[str, Tensor]] | None = None) -> dict[str, LayerFigures]:
        """Norms and trust ratio of every layer of the last step, by name.

        The step itself only keeps the sums; reading them here is what waits for a GPU.

        Args:
            named_parameters: names to use; those the optimizer was made with otherwise, or else the places of the
                parameters in their groups.

        Returns:
            Adapted layers only; a slice of a parameter is called `name[0]`, `name[1]`, …
        """
        return self._telemetry.read(self.param_groups, named_parameters)

    def trust_ratios(self, named_parameters: Iterable[tuple[str, Tensor]] | None = None) -> dict[str, float]:
        """The trust ratios of `layer_figures`."""
        return {name: figures.trust_ratio for name, figures in self.layer_figures(named_parameters).items()}
