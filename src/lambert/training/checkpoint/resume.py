"""Which checkpoint a run resumes from: the same on all ranks, the newest complete one of this run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lambert.training.checkpoint.format import (
    FOLDER,
    Checkpoint,
    Damaged,
    checkpoint_facts,
    finished_steps,
    load_checkpoint,
    newest_checkpoint,
)
from lambert.training.config.training_config import TrainingConfig, refuse_differences
from lambert.training.distributed.process_group import ProcessGroup

log = logging.getLogger("lambert")


def agreed_checkpoint(
    run: Path, settings: TrainingConfig, processes: ProcessGroup
) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint (None without one), and the problems of newer ones.

    Rank 0 alone reads and verifies it. Its tensors are on "meta" on the other ranks: `fsdp.from_rank_0` sends what each
    needs of them, one by one.

    Raises:
        UserError: on all ranks: all checkpoints are damaged, or it belongs to a run with other settings.
    """
    read: list[Checkpoint] = []

    def select() -> dict[str, Any]:
        saved, problems = _newest_with_recipe(run)
        if saved is None:
            return {"problems": problems, "step": None}
        _refuse_other_run(run, saved, settings)
        read.append(saved)
        kinds = {
            part: {
                name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in named.items()
            }
            for part, named in saved.tensors.items()
        }
        return {"problems": problems, "step": saved.step, "facts": saved.facts, "kinds": kinds}

    told = processes.from_main(select)
    if told["step"] is None or read:
        return read[0] if read else None, told["problems"]
    tensors = {
        part: {
            name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
            for name, (dtype, shape) in named.items()
        }
        for part, named in told["kinds"].items()
    }
    return Checkpoint(told["step"], tensors, told["facts"]), told["problems"]


def _newest_with_recipe(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """`newest_checkpoint`; one that lacks its recipe is damaged where an earlier one of the run holds it.

    Where none does, the run is of a version that saved none.
    """
    saved, problems = newest_checkpoint(run)
    if saved is None or "recipe" in saved.facts:
        return saved, problems
    lacking = f"the checkpoint {run / FOLDER / f'step-{saved.step}'} is damaged: it lacks its recipe"
    for step in (step for step in finished_steps(run) if step < saved.step):
        try:
            if "recipe" in checkpoint_facts(run, step):
                return load_checkpoint(run, step), [*problems, lacking]
        except Damaged as damage:
            problems.append(damage.what)
    return saved, problems


def _refuse_other_run(run: Path, saved: Checkpoint, settings: TrainingConfig) -> None:
    """Check the settings that the checkpoint records; `recipe.toml` has been checked before.

    Raises:
        UserError: they are others, or of another version of lambert.
    """
    recipe, versions = saved.facts.get("recipe"), saved.facts.get("versions")
    if not isinstance(recipe, Mapping):
        log.warning(f"the checkpoint of step {saved.step} in {run} records no recipe: that of the folder is taken")
        return
    version = versions.get("lambert") if isinstance(versions, Mapping) else None
    whose = f"the checkpoint of step {saved.step} in {run} is of a run"
    refuse_differences(recipe, settings, whose, version=version or "")
