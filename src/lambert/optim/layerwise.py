"""What LAMB, LARS and LANS share: groups, state, shards, clipping, loss scales, statistics and the order of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lambert.optim import norms
from lambert.optim.engine import Kernel, global_norms, is_counted, kernel_of, layer_norms, step_layers
from lambert.optim.equations import LayerHyperparameters, UpdateRule, lars_local_rate
from lambert.optim.foreign_state import translated
from lambert.optim.kept_layers import KeptLayers
from lambert.optim.kernels import gpu
from lambert.optim.layer_stats import LayerStats, LayerStatsRecorder
from lambert.optim.layers import Layer, hyperparameters_of, layers_of
from lambert.optim.options import Slices, check_group, clip_limit, is_adapted
from lambert.optim.state import keep_step, loss_of, restore_widths, resync_master, state_of

Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
"""Tensors, named tensors, or groups of either."""


_CPU = torch.device("cpu")


def _clip(norm: float | Tensor, limit: float) -> float | Tensor:
    """What brings a gradient of this norm down to `limit`; 1 where it is no larger."""
    if isinstance(norm, Tensor):
        return torch.where(norm > limit, limit / norm, 1.0)
    return limit / norm if norm > limit else 1.0


class _Hyperparameters:
    """The hyperparameters of a group's layers: one object for all that share them.

    Args:
        group: of `Optimizer.param_groups`.
        factor: what its gradients are multiplied by.
    """

    def __init__(self, group: dict[str, Any], factor: float | Tensor) -> None:
        self._group, self._factor, self._adapt = group, factor, is_adapted(group)
        self._made: dict[tuple[torch.device, float], LayerHyperparameters] = {}

    def of(self, layer: Layer, *, counted: bool) -> LayerHyperparameters:
        """Of one layer; with `counted` its device knows the number of the step."""
        device, step = layer.x.device, 1.0 if counted else layer.step.item() + 1
        made = self._made.get((device, step))
        if made is None:
            rate, factor = (_number_on(device, number) for number in (self._group["lr"], self._factor))
            made = self._made[device, step] = hyperparameters_of(self._group, rate, step, self._adapt, factor)
        return made


def _number_on(device: torch.device, number: float | Tensor) -> float | Tensor:
    """A tensor stays one where a kernel on `device` can read it and the host would wait for it."""
    if isinstance(number, Tensor) and gpu.waits(number) and (device.type != "cpu" or gpu.is_interpreted()):
        return number.to(device).reshape(())
    return float(number)


class LayerwiseOptimizer(Optimizer, ABC):
    """Base of optimizers with a trust ratio per layer.

    Args:
        params: tensors, named tensors, or groups of either.
        arguments: the constructor's `locals()`: every option, for groups that do not give it.
    """

    _step_supports_amp_scaling = True  # torch.amp.GradScaler then hands over `grad_scale` and `found_inf`

    def __init__(self, params: Parameters, arguments: dict[str, Any]) -> None:
        if isinstance(params, nn.Module):
            name = type(self).__name__
            raise TypeError(
                f"{name} takes parameters: give model.parameters() or parameter_groups(model, ...), not the model"
            )
        self._recorder, self._tables, self._kept = LayerStatsRecorder(), gpu.Tables(), KeptLayers()
        options = {name: value for name, value in arguments.items() if name not in ("self", "params", "__class__")}
        defaults = {"adapt": True, "norm_bounds": None, "weight_decay": 0.0} | options
        super().__init__(params, defaults)

    @property
    @abstractmethod
    def rule(self) -> UpdateRule:
        """Moments and directions."""

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
        self._recorder, self._tables, self._kept = LayerStatsRecorder(), gpu.Tables(), KeptLayers()

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

        As with PyTorch's fused optimizers, gradients are divided by the attribute `grad_scale`, and nothing at all
        changes where `found_inf` is not 0. Both are tensors that `torch.amp.GradScaler` or a training loop sets; on a
        GPU the host waits for neither, but for `found_inf` where LAMB's kernel does not take a shard.
        """
        loss: float | None = loss_of(closure)
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        if found_inf is not None and not gpu.waits(found_inf):
            if bool(found_inf.item()):
                return loss
            found_inf = None
        layers, kernels = self._layers()
        if found_inf is not None and not all(map(is_counted, layers, kernels)):
            if bool(found_inf.item()):
                self._kept.release(layers)
                return loss
            found_inf = None
        self._recorder.record(layers, step_layers(layers, kernels, self.rule, self._tables, found_inf))
        self._advance(found_inf)
        self._kept.release(layers)
        return loss

    def _layers(self) -> tuple[list[Layer], list[Kernel]]:
        """Every layer that has a gradient, with its moments and hyperparameters, and its kernel."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and (parameter.grad.is_sparse or parameter not in self._kept):
                    self._refuse_what_cannot_be_updated(parameter)
        factors = self._gradient_factors()
        layers: list[Layer] = []
        kernels: list[Kernel] = []
        for group, factor in zip(self.param_groups, factors, strict=True):
            hypers = _Hyperparameters(group, factor)
            slices = group["slices"] or [None] * len(group["params"])
            for parameter, own_slices in zip(group["params"], slices, strict=True):
                if parameter.grad is None:
                    continue
                state = state_of(self.state[parameter], parameter, self.rule.state, master=group["master_weights"])
                resync_master(parameter, state)
                tensors = (state.get("master", parameter), *(state[key] for key in self.rule.state), state["step"])
                facts = (tensors, parameter.grad, own_slices, group.get("fused"))
                found = self._kept.find(parameter, *facts)
                if found is None:
                    found, chosen = self._make_layers(parameter, state, *facts)
                else:
                    chosen = ["gpu"] * len(found)
                for layer, kernel in zip(found, chosen, strict=True):
                    layer.hyper = hypers.of(layer, counted=is_counted(layer, kernel))
                layers += found
                kernels += chosen
        if layers and self.rule.gradient_scale == "inverse_norm":
            self._normalise(layers)
        elif layers and self.rule.gradient_scale == "lars":
            self._scale_by_local_rates(layers)
        return layers, kernels

    def _make_layers(
        self,
        parameter: Tensor,
        state: dict[str, Any],
        tensors: tuple[Tensor, ...],
        gradient: Tensor,
        slices: Slices | None,
        fused: bool | None,
    ) -> tuple[list[Layer], list[Kernel]]:
        """The layers of a parameter, and their kernels: that of GPUs takes all or none, since it counts the steps."""
        weights, *moments, step = tensors
        layers = layers_of(parameter, weights, gradient, tuple(moments), step, slices)
        if not self.rule.is_elementwise and layers[0].sharded_over:
            raise RuntimeError(
                f"{type(self).__name__} needs whole matrices, and a parameter of shape {tuple(parameter.shape)} is "
                "sharded: use DistributedDataParallel, or LAMB"
            )
        kernels = [kernel_of(layer, fused, self.rule) for layer in layers]
        if any(kernel != "gpu" for kernel in kernels):
            kernels = ["none" if kernel == "gpu" else kernel for kernel in kernels]
        step = keep_step(state, layers[0].x.device if is_counted(layers[0], kernels[0]) else _CPU)
        for layer in layers:
            layer.step = step
        if "gpu" in kernels:
            self._kept.keep(layers, (weights, *moments, step), gradient, slices, fused)
        return layers, kernels

    def _normalise(self, layers: Sequence[Layer]) -> None:
        """Make every gradient's norm 1; a gradient of zeros stays. The loss scale and any clip cancel out."""
        norms_ = layer_norms([layer.g for layer in layers], layers)
        factors: Sequence[float | Tensor]
        if gpu.waits(norms_):
            factors = list(torch.where(norms_ > 0, 1 / norms_, 1.0))
        else:
            factors = [1.0 / norm if norm > 0 else 1.0 for norm in norms_.tolist()]
        signs = {id(p): -1.0 if group["maximize"] else 1.0 for group in self.param_groups for p in group["params"]}
        for layer, factor in zip(layers, factors, strict=True):
            layer.hyper = replace(layer.hyper, gradient_factor=signs[id(layer.parameter)] * factor)

    def _scale_by_local_rates(self, layers: Sequence[Layer]) -> None:
        """Give every adapted layer LARS's local rate; it then needs no trust ratio."""
        layers = [layer for layer in layers if layer.hyper.adapt]
        if not layers:
            return
        both = [layer.x for layer in layers] + [layer.g for layer in layers]
        x_norms, g_norms = layer_norms(both, [*layers, *layers]).chunk(2)
        taus = {id(p): float(group["trust_coefficient"]) for group in self.param_groups for p in group["params"]}

        def row(values: Iterable[float | Tensor]) -> Tensor:
            return torch.stack([torch.as_tensor(value, dtype=g_norms.dtype, device=g_norms.device) for value in values])

        g_norms = g_norms * row(layer.hyper.gradient_factor for layer in layers).abs()
        decays = row(layer.hyper.weight_decay for layer in layers)
        rates = lars_local_rate(x_norms, g_norms, decays, row(taus[id(layer.parameter)] for layer in layers))
        for layer, rate in zip(layers, rates if gpu.waits(rates) else rates.tolist(), strict=True):
            layer.hyper = replace(layer.hyper, local_rate=rate, adapt=False)

    def _refuse_what_cannot_be_updated(self, parameter: Tensor) -> None:
        name = type(self).__name__
        assert parameter.grad is not None
        if parameter.grad.is_sparse:
            raise RuntimeError(f"{name} needs dense gradients: build the embedding with sparse=False")
        norms.refuse_flat_shard(name, parameter)

    def _gradient_factors(self) -> list[float | Tensor]:
        """For each group what its gradients are multiplied by: sign, loss scale and clip."""
        scale: Tensor | None = getattr(self, "grad_scale", None)
        unscale: float | Tensor = 1.0
        if scale is not None:
            unscale = 1.0 / (scale.reshape(()) if gpu.waits(scale) else float(scale.item()))
        limits = [clip_limit(group) for group in self.param_groups]
        gradients: dict[float, list[tuple[Tensor, Tensor]]] = {limit: [] for limit in limits if limit is not None}
        for group, limit in zip(self.param_groups, limits, strict=True):
            if limit is not None:
                gradients[limit] += [(p, p.grad) for p in group["params"] if p.grad is not None]
        clip_of = {limit: _clip(norm * unscale, limit) for limit, norm in global_norms(gradients).items()}
        clips = [1.0 if limit is None else clip_of[limit] for limit in limits]
        signs = [-1.0 if group["maximize"] else 1.0 for group in self.param_groups]
        return [sign * unscale * clip for sign, clip in zip(signs, clips, strict=True)]

    def _advance(self, found_inf: Tensor | None) -> None:
        """Count the step that has been taken, and hand master weights on to their parameters."""
        steps: dict[torch.device, list[Tensor]] = {}
        halves: list[Tensor] = []
        masters: list[Tensor] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                steps.setdefault(state["step"].device, []).append(state["step"])
                if "master" in state:
                    halves.append(parameter)
                    masters.append(state["master"])
        for device, own in steps.items():
            if found_inf is None:
                torch._foreach_add_(own, 1)
            else:
                torch._foreach_add_(own, [(found_inf == 0).to(device, torch.float32).reshape(())] * len(own))
        if halves:
            torch._foreach_copy_(halves, masters)

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
