"""Which checkpoint a run resumes from: the same on all ranks, the newest complete one of this run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from lambert.errors import UserError
from lambert.training.checkpoint.format import (
    FOLDER,
    Checkpoint,
    Damaged,
    OtherVersion,
    Unreadable,
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
    """The checkpoint (None without one), and the problems of newer ones (on rank 0 only).

    Rank 0 selects it; the other ranks load the same one.

    Raises:
        UserError: all checkpoints are damaged, it belongs to a run with other settings, or a rank cannot load it.
    """
    saved: Checkpoint | None = None
    problems: list[str] = []
    problem: UserError | None = None
    if processes.is_main_process:
        try:
            saved, problems = _newest_with_recipe(run)
            if saved is not None:
                _refuse_other_run(run, saved, settings)
        except UserError as error:
            problem = error
    found, failures = processes.all_reduce_ints([0 if saved is None else 1 + saved.step, int(problem is not None)])
    if not processes.is_main_process and found and not failures:
        try:
            saved = load_checkpoint(run, found - 1)
        except (Damaged, Unreadable, OtherVersion) as damage:
            problem = UserError(
                f"process {processes.rank} cannot load the checkpoint that rank 0 found: {damage.what}",
                remedy="Put `out` on a folder that every machine shares",
            )
    failures += processes.all_reduce_ints([int(problem is not None)])[0]
    if failures:
        raise problem or UserError("another rank could not load the checkpoint", remedy="See its message")
    return saved, problems


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
