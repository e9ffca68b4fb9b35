"""The dashboards of a sweep: every trial is a run there, with its settings, in a group of the sweep's name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.track import check_wandb_mode

if TYPE_CHECKING:
    from lambert.experiments.grid import Sweep

TRACKERS = ("tensorboard", "wandb", "wandb_mode", "mlflow")
"""Options of `sweep` and of `pretrain`."""
_GROUPS = ("WANDB_RUN_GROUP", "MLFLOW_EXPERIMENT_NAME")
"""What W&B's own client, and our callback of MLflow, read."""


def with_trackers(sweep: Sweep, given: Mapping[str, Any], out: Path) -> Sweep:
    """The sweep whose trials have these options of `pretrain`, in place of those of its file.

    TensorBoard knows no groups but folders: it gets a subfolder of the sweep's name.

    Raises:
        UserError: a mode of W&B without a project.
    """
    options = {**sweep.options, **{name: str(value) for name, value in given.items() if value is not None}}
    if "tensorboard" in options:
        options["tensorboard"] = str(Path(str(options["tensorboard"])) / out.resolve().name)
    check_wandb_mode(options.get("wandb"), options.get("wandb_mode"))
    return replace(sweep, options=options)


def group_variables(out: Path) -> dict[str, str]:
    """Environment variables that name the group of the trials, those that are set excepted."""
    return {name: out.resolve().name for name in _GROUPS if not os.environ.get(name)}


def check_trackers(sweep: Sweep, out: Path, *, starts: bool) -> None:
    """Refuse, before any trial, a dashboard that none of them could use.

    Args:
        starts: trials follow, so MLflow's experiment is made: trials that start together would each make one.

    Raises:
        UserError: a package is missing, a folder cannot be written, there is no account or no server.
    """
    options = sweep.options
    if not any(name in options for name in TRACKERS):
        return
    from lambert.tracking.mlflow import MLflowSink
    from lambert.tracking.tensorboard import TensorBoardSink
    from lambert.tracking.weights_and_biases import WandbSink

    name = sweep.trials[0].name
    if "tensorboard" in options:
        TensorBoardSink(options["tensorboard"]).check(name)
    if "wandb" in options:
        WandbSink(options["wandb"], mode=options.get("wandb_mode")).check(name)
    if "mlflow" in options:
        sink = MLflowSink(options["mlflow"], experiment=group_variables(out).get("MLFLOW_EXPERIMENT_NAME"))
        sink.check(name)
        if starts:
            sink.connect()
