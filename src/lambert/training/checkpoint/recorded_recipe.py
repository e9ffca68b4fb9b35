"""The recipe of a run: in `recipe.toml`, and in each checkpoint, should that file be lost."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.runlog.schema import RECIPE_FILE
from lambert.training.checkpoint.format import Damaged, checkpoint_facts, finished_steps
from lambert.training.config.training_config import TrainingConfig, write_tables
from lambert.utils.io import SETTINGS_BYTES, read_bytes, read_toml, unwritable

log = logging.getLogger("lambert")


def restore_recipe(run: Path) -> None:
    """Write `run/recipe.toml` again from the newest checkpoint that holds it, if it is missing, empty or zeroed.

    A file with other content is left alone: someone may have edited it.

    Raises:
        UserError: it cannot be written, or the checkpoint is of another version of lambert.
    """
    path = run / RECIPE_FILE
    found = _from_checkpoint(run) if _is_lost(path) else None
    if found is None:
        return
    step, tables = found
    try:
        write_tables(run, tables)
    except OSError as error:
        raise unwritable(error, path, remedy="Fix the folder's permissions") from None
    log.warning(f"{path} was lost: written again from the checkpoint of step {step}")


def settings_of(run: Path) -> TrainingConfig:
    """The settings of a run, as its recipe or else its newest checkpoint says.

    Raises:
        UserError: `run` is not a run.
    """
    path = run / RECIPE_FILE
    found = _from_checkpoint(run) if _is_lost(path) else None
    try:
        tables = read_toml(path) if found is None else found[1]
        return TrainingConfig.from_tables(tables)
    except (ValueError, UserError) as error:
        raise UserError(
            f"{run} is not a run ({RECIPE_FILE}: {error})", remedy="Give the folder that `lambert pretrain --out` wrote"
        ) from None


def _is_lost(path: Path) -> bool:
    try:
        return not read_bytes(path, SETTINGS_BYTES).strip(b"\0 \t\r\n")
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


def _from_checkpoint(run: Path) -> tuple[int, dict[str, Any]] | None:
    for step in finished_steps(run):
        try:
            facts = checkpoint_facts(run, step)
        except Damaged:
            continue
        recipe, versions = facts.get("recipe"), facts.get("versions")
        if isinstance(recipe, Mapping):
            version = versions.get("lambert") if isinstance(versions, Mapping) else ""
            return step, {"command": str(facts.get("command", "")), "lambert": str(version or ""), **recipe}
    return None
