"""Training state: weights, moments and step count; saving and restoring them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lambert.errors import UserError
from lambert.model.compilation import compile_layers
from lambert.model.heads import PreTrainingModel, pretraining_model
from lambert.optim import LayerwiseOptimizer
from lambert.optim.combined import parts_of
from lambert.training.checkpoint.format import AVERAGE, PARTS, Checkpoint
from lambert.training.config.precision import MasterWeights, Precision
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed.fsdp import from_rank_0, full_tensor, shard
from lambert.training.distributed.gradient_reduction import BufferedGradients, Gradients, TreeGradients
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.optimizer import make_optimizer, named_groups, optimizer_tensors, restore_optimizer


@dataclass(frozen=True)
class PreparedModel:
    """A model prepared for one precision, with its parameter groups."""

    groups: list[dict[str, Any]]
    """Parameter groups of the float32 weights."""
    names: dict[Tensor, str]
    """Parameter → name, for all parameters in the groups."""
    master: MasterWeights | None
    """Float32 master weights of a bfloat16 model, else None."""
    gradients: Gradients
    """Accumulation over micro-batches and reduction over ranks."""


def prepare_model(
    model: PreTrainingModel,
    precision: Precision,
    *,
    weight_decay: float,
    processes: ProcessGroup | None = None,
    deterministic: bool = False,
    reduce_in_bfloat16: bool = False,
    shards: bool = False,
) -> PreparedModel:
    """Prepare `model` for `precision`, which may convert it to bfloat16.

    Args:
        deterministic: reduce gradients in the same order for any world size.
        reduce_in_bfloat16: reduce gradients in bfloat16.
        shards: shard the model over the ranks.
    """
    processes = processes or ProcessGroup()
    if shards:
        gradients: Gradients = shard(model, processes, precision, reduce_in_bfloat16=reduce_in_bfloat16)
        groups, names = named_groups(model, weight_decay=weight_decay)
        return PreparedModel(groups, names, None, gradients)
    # Build groups before the weights become bfloat16: they refer to the model's own parameters.
    groups, names = named_groups(model, weight_decay=weight_decay)
    master = MasterWeights(model) if precision is Precision.BFLOAT16_MASTER else None
    pairs = [(parameter, parameter) for parameter in model.parameters()] if master is None else master.pairs()
    gradients = Gradients(model.parameters())
    if deterministic:
        gradients = TreeGradients(pairs, processes)
    elif master is not None or processes.world_size > 1:
        gradients = BufferedGradients(pairs, processes, rounds=reduce_in_bfloat16)
    if master is None:
        return PreparedModel(groups, names, None, gradients)
    names = {master.master_of(parameter): name for parameter, name in names.items()}
    for group in groups:
        group["params"] = [master.master_of(parameter) for parameter in group["params"]]
    return PreparedModel(groups, names, master, gradients)


class TrainState:
    """Model, optimizer and step count of one run."""

    def __init__(
        self, model: PreTrainingModel, settings: TrainingConfig, processes: ProcessGroup, *, shards: bool = False
    ) -> None:
        self._processes, self._is_first = processes, processes.is_main_process
        self._is_sharded = shards and processes.world_size > 1
        self.model = model if self._is_sharded else model.to(processes.device)
        if processes.device.type == "cuda" and not settings.no_compile:
            compile_layers(self.model, dynamic=settings.packs)  # packing makes any number of rows
        working = prepare_model(
            self.model,
            settings.precision,
            weight_decay=settings.weight_decay,
            processes=processes,
            deterministic=settings.deterministic,
            reduce_in_bfloat16=settings.reduce_dtype == "bfloat16",
            shards=self._is_sharded,
        )
        self._names, self.master, self.gradients = working.names, working.master, working.gradients
        self.optimizer = make_optimizer(
            settings.optimizer,
            working.groups,
            working.names,
            betas=settings.betas,
            epsilon=settings.epsilon,
            adamw_lr_ratio=settings.adamw_lr_ratio,
        )
        self.step = 0
        self._ema_decay = settings.ema_decay
        self._average: dict[str, Tensor] = {}
        if self._ema_decay:
            self._average = {name: weight.clone() for name, weight in self.weights().items()}

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average of the weights towards those of the step just done, if the run has one.

        Its decay is min(`ema_decay`, (1 + t) / (10 + t)) in step t, as in TensorFlow's `ExponentialMovingAverage`, so
        that a short run does not keep the initial weights.
        """
        if self._average:
            decay = min(self._ema_decay, (1 + self.step) / (10 + self.step))
            weights = self.weights()
            torch._foreach_lerp_(list(self._average.values()), [weights[name] for name in self._average], 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the model has the averaged weights, if the run has an average."""
        if not self._average:
            yield
            return
        model = dict(self.model.named_parameters())
        kept = {name: parameter.detach().clone() for name, parameter in model.items()}
        try:
            _copy(self._average, model)
            yield
        finally:
            _copy(kept, model)

    def trust_ratios(self) -> dict[str, float]:
        """Layer name → trust ratio of the last step; empty for optimizers without."""
        named = [(name, parameter) for parameter, name in self._names.items()]
        layerwise = [part for part in parts_of(self.optimizer) if isinstance(part, LayerwiseOptimizer)]
        return {name: ratio for part in layerwise for name, ratio in part.trust_ratios(named).items()}

    def layer_stats(self) -> dict[str, float]:
        """Layer name → trust ratio, or the weight norm for optimizers without trust ratios."""
        if ratios := self.trust_ratios():
            return ratios
        weights = self.weights()
        norms = torch.stack([full_tensor(torch.linalg.vector_norm(tensor)) for tensor in weights.values()])
        return dict(zip(weights, norms.tolist(), strict=True))

    def weights(self) -> dict[str, Tensor]:
        """Parameter name → weights as the optimizer holds them."""
        return {name: parameter.detach() for parameter, name in self._names.items()}

    def checkpoint(self, facts: Mapping[str, Any]) -> Checkpoint | None:
        """A copy of the state, to write while training continues; None except on rank 0.

        For a sharded model, call it on every rank.
        """
        copies: dict[str, dict[str, Tensor]] = {part: {} for part in (*PARTS, *[AVERAGE] * bool(self._average))}
        if not (self._is_first or self._is_sharded):
            return None
        for part, named in (
            ("model", self.weights()),
            ("optimizer", optimizer_tensors(self.optimizer, self._names)),
            (AVERAGE, self._average),
        ):
            for name in sorted(named):  # a restored state may be ordered differently on each rank
                gathered = full_tensor(named[name].detach())
                if self._is_first:
                    copies[part][name] = gathered.to("cpu", copy=True)
        return Checkpoint(self.step, copies, facts) if self._is_first else None

    def restore(self, saved: Checkpoint) -> None:
        """Restore the state from `saved`, whose tensors rank 0 has read and sends to the others. Call it on every rank.

        Raises:
            UserError: it belongs to another model.
        """
        weights = saved.tensors["model"]
        if weights.keys() != set(self._names.values()):
            raise UserError(
                f"the checkpoint of step {saved.step} holds another model",
                remedy="Choose another `out`, or `fresh=True` to start over",
            )
        own_part = partial(from_rank_0, processes=self._processes)
        with torch.no_grad():
            for parameter, name in self._names.items():
                parameter.copy_(own_part(parameter, weights[name]))
        if self.master is not None:
            self.master.copy_to_model()
        with torch.no_grad():
            for name, average in self._average.items():
                average.copy_(own_part(average, saved.tensors[AVERAGE][name]))
        self.optimizer.state.clear()
        restore_optimizer(self.optimizer, self._names, saved.tensors["optimizer"], own_part)
        self.step = saved.step

    def exportable_model(self) -> PreTrainingModel:
        """The model with float32 weights, averaged if the run averages; if it is sharded, call it on every rank."""
        if self.master is None and not self._is_sharded and not self._average:
            return self.model
        exported = pretraining_model(self.model.config)
        weights = self._average or self.weights()
        exported.load_state_dict({name: full_tensor(tensor) for name, tensor in weights.items()})
        return exported


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)
