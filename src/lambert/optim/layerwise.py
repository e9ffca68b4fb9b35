"""What LAMB, LARS and LANS share: groups, state, shards, clipping, loss scales, statistics and the order of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lambert.optim import norms
from lambert.optim.engine import global_norms, layer_norms, step_layers
from lambert.optim.equations import UpdateRule
from lambert.optim.foreign_state import translated
from lambert.optim.layer_stats import LayerStats, LayerStatsRecorder
from lambert.optim.layers import Layer, hyperparameters_of, layers_of
from lambert.optim.options import check_group, clip_limit, is_adapted
from lambert.optim.state import restore_widths, resync_master, state_of

Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
"""Tensors, named tensors, or groups of either."""


class LayerwiseOptimizer(Optimizer):
    """Base of optimizers with a trust ratio per layer; `rule` gives moments and directions.

    Args:
        params: tensors, named tensors, or groups of either.
        arguments: the constructor's `locals()`: every option, for groups that do not give it.
    """

    rule: ClassVar[UpdateRule]
    _step_supports_amp_scaling = True  # torch.amp.GradScaler then hands over `grad_scale` and `found_inf`

    def __init__(self, params: Parameters, arguments: dict[str, Any]) -> None:
        if isinstance(params, nn.Module):
            name = type(self).__name__
            raise TypeError(
                f"{name} takes parameters: give model.parameters() or parameter_groups(model, ...), not the model"
            )
        self._recorder = LayerStatsRecorder()
        defaults = {name: value for name, value in arguments.items() if name not in ("self", "params", "__class__")}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to train, with options of their own.

        Raises:
            ValueError: an option is out of its range.
        """
        super().add_param_group(param_group)
        try:
            check_group(type(self).__name__, self.param_groups[-1], self.defaults)
        except ValueError:
            del self.param_groups[-1]
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._recorder = LayerStatsRecorder()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's, but moments and master weights keep their float32.

        Of another optimizer's state it takes moments, step counts and betas, and warns about options that differ. An
        option that the state lacks stays as it is.

        Raises:
            ValueError: the state is not one that this optimizer can go on with; the message says why.
        """
        state_dict = translated(type(self).__name__, self.param_groups, state_dict, self.rule.state)
        super().load_state_dict(state_dict)
        restore_widths(self, state_dict, self.rule.state)

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
        self._recorder.record(layers, step_layers(layers, fused, self.rule))
        self._advance()
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
                state = state_of(self.state[parameter], parameter, self.rule.state, master=group["master_weights"])
                resync_master(parameter, state)
                found = layers_of(
                    parameter,
                    state.get("master", parameter),
                    parameter.grad,
                    tuple(state[key] for key in self.rule.state),
                    hyperparameters_of(group, state["step"].item() + 1, adapt, factor),
                    own_slices,
                )
                layers += found
                fused += [group.get("fused")] * len(found)
        if self.rule.normalises_gradient:
            for layer, norm in zip(layers, layer_norms(layers), strict=True):
                if norm > 0:
                    sign = 1.0 if layer.hyper.gradient_factor > 0 else -1.0
                    layer.hyper = replace(layer.hyper, gradient_factor=sign / norm)
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

    def _advance(self) -> None:
        """Count the step that has been taken, and hand master weights on to their parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                state["step"] += 1
                if "master" in state:
                    parameter.copy_(state["master"])

    def layer_stats(self, named_parameters: Iterable[tuple[str, Tensor]] | None = None) -> dict[str, LayerStats]:
        """Norms and trust ratio of every layer of the last step, by name.

        The step keeps only the sums of squares; reading them here waits for the GPU.

        Args:
            named_parameters: names to use; otherwise those the optimizer was made with, or else `group.index`.

        Returns:
            Adapted layers only; a slice of a parameter is called `name[0]`, `name[1]`, …
        """
        return self._recorder.read(self.param_groups, named_parameters)

    def trust_ratios(self, named_parameters: Iterable[tuple[str, Tensor]] | None = None) -> dict[str, float]:
        """The trust ratios of `layer_stats`."""
        return {name: stats.trust_ratio for name, stats in self.layer_stats(named_parameters).items()}
