"""What a step changes: weights, moments and the number of steps done; and their way to disk and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lambert.errors import UserError
from lambert.model.heads import BertForPreTraining
from lambert.optim import LayerwiseOptimizer
from lambert.training.checkpoint import (
    latest_step,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from lambert.training.optimizers import make_optimizer, named_groups
from lambert.training.precision import MasterWeights, Precision
from lambert.training.settings import RunSettings


@dataclass(frozen=True)
class WorkingModel:
    """What an optimizer updates of a model in one number format."""

    groups: list[dict[str, Any]]
    """Parameter groups, of the float32 weights."""
    names: dict[Tensor, str]
    """The name of every parameter in the groups."""
    master: MasterWeights | None
    """Stands between the two where the model itself is bfloat16."""


def working_model(model: nn.Module, precision: Precision, *, weight_decay: float) -> WorkingModel:
    """Prepares `model`, which becomes bfloat16 where `precision` says so."""
    # Groups are made before bfloat16 replaces the weights: they look at the model's own parameters.
    groups, names = named_groups(model, weight_decay=weight_decay)
    if precision is not Precision.BFLOAT16_MASTER:
        return WorkingModel(groups, names, None)
    master = MasterWeights(model)
    names = {master.replace(parameter): name for parameter, name in names.items()}
    for group in groups:
        group["params"] = [master.replace(parameter) for parameter in group["params"]]
    return WorkingModel(groups, names, master)


class TrainingState:
    """Model, optimizer and step count of one run."""

    def __init__(self, model: BertForPreTraining, settings: RunSettings, device: torch.device) -> None:
        self.model = model.to(device)
        working = working_model(self.model, settings.precision, weight_decay=settings.weight_decay)
        self._names, self.master = working.names, working.master
        self.optimizer = make_optimizer(
            settings.optimizer, working.groups, betas=settings.betas, epsilon=settings.epsilon
        )
        self.step = 0

    def trust_ratios(self) -> dict[str, float]:
        """Layer name → trust ratio of the last step; empty for an optimizer without."""
        if not isinstance(self.optimizer, LayerwiseOptimizer):
            return {}
        return self.optimizer.trust_ratios((name, parameter) for parameter, name in self._names.items())

    def weights(self) -> dict[str, Tensor]:
        """Parameter name → weights as the optimizer holds them."""
        return {name: parameter.detach() for parameter, name in self._names.items()}

    def save(self, run: Path) -> Path:
        """Write a checkpoint of the steps done so far; returns its folder."""
        tensors = {"model": self.weights(), "optimizer": optimizer_tensors(self.optimizer, self._names)}
        return save_checkpoint(run, self.step, tensors)

    def restore(self, run: Path) -> int:
        """Load the run's newest checkpoint, if it has one; returns its step, 0 without.

        Raises:
            UserError: the checkpoint is damaged or of another model.
        """
        step = latest_step(run)
        if step is None:
            return 0
        saved = load_checkpoint(run, step)
        weights = saved["model"]
        if weights.keys() != set(self._names.values()):
            raise UserError(
                f"the checkpoint of step {step} in {run} holds another model",
                remedy="Choose another --out, or --fresh to start over",
            )
        with torch.no_grad():
            for parameter, name in self._names.items():
                parameter.copy_(weights[name])
        if self.master is not None:
            self.master.publish()
        restore_optimizer(self.optimizer, self._names, saved["optimizer"])
        self.step = step
        return step

    def exportable_model(self) -> BertForPreTraining:
        """The model with float32 weights."""
        if self.master is None:
            return self.model
        exported = BertForPreTraining(self.model.config)
        exported.load_state_dict(self.weights())
        return exported
