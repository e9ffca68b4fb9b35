"""A run folder that continues another run's checkpoint with a decaying learning rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lambert.errors import UserError
from lambert.runlog.records import number_or_none, parse_line
from lambert.runlog.schema import JOURNAL_FILE, RECIPE_FILE, Event
from lambert.training.checkpoint.format import finished_steps, load_checkpoint, run_and_step, write_checkpoint
from lambert.training.checkpoint.run_dir import prepare_run_folder
from lambert.training.config.training_config import TrainingConfig


def starting_step(path: Path) -> int:
    """The step of the checkpoint that `path` names: a checkpoint's folder, or a run's for its newest.

    Raises:
        UserError: there is no such checkpoint.
    """
    run, named = run_and_step(path)
    if not (run / RECIPE_FILE).is_file():
        raise UserError(
            f"{run} is not a run", remedy="Give the folder that `lambert pretrain --out` wrote, or a checkpoint in it"
        )
    steps = finished_steps(run)
    if not steps:
        raise UserError(f"{run} has no checkpoint yet", remedy="Repeat the command that trains it, to its first one")
    if named is not None and named not in steps:
        raise UserError(
            f"{run} has no checkpoint of step {named:,}",
            remedy=f"Choose one of {', '.join(map(str, sorted(steps)))}; `checkpoint_steps` and `keep_every` make more",
        )
    return steps[0] if named is None else named


def begin_decay(
    out: Path, settings: TrainingConfig, source: Path, step: int, *, command: str, fresh: bool = False
) -> None:
    """Make `out` a run with these settings that stopped at `step` of the run that `source` names, unless it is one.

    Raises:
        UserError: `out` holds another run or other files, or the checkpoint is damaged.
    """
    lock = prepare_run_folder(out, settings, command=command, fresh=fresh)
    try:
        if finished_steps(out):
            return
        run, _ = run_and_step(source)
        saved = load_checkpoint(run, step)
        _copy_journal(run / JOURNAL_FILE, out / JOURNAL_FILE, step)
        facts = {**saved.facts, "command": command, "recipe": settings.as_tables()}
        write_checkpoint(out, replace(saved, facts=facts))
    finally:
        lock.release()


def _copy_journal(source: Path, target: Path, step: int) -> None:
    """Copy what the journal says up to `step`, so that the report shows the whole training."""
    with source.open("rb") as lines, target.open("wb") as copied:
        for line in lines:
            record = parse_line(line)
            if record is None or record["event"] in (Event.END, Event.OUTCOME):
                continue
            if (number_or_none(record.get("first_step", record.get("step"))) or 0) <= step:
                copied.write(line)
