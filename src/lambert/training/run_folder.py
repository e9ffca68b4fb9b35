"""The folder of a run: what lies in it, and whether a new command may go on there."""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from lambert.errors import UserError
from lambert.training.settings import RECIPE_FILE, RunSettings, refuse_other_settings, write_recipe

JOURNAL_FILE = "journal.jsonl"
MODEL_FOLDER = "huggingface"
TOKENIZER_FOLDER = "tokenizer"
REPORT_FILE = "report.html"
LOCK_FILE = "lock"
_OURS = (JOURNAL_FILE, MODEL_FOLDER, TOKENIZER_FOLDER, REPORT_FILE, "checkpoints", "latest")


def prepare_run_folder(run: Path, settings: RunSettings, *, command: str, fresh: bool) -> FileLock:
    """Make `run`, or check that the run in it has these very settings; `fresh` deletes that run first.

    Returns:
        The lock that keeps other processes out until it is released or this process ends.

    Raises:
        UserError: another process trains there, the folder holds a run with other settings or files that are not a
            run's, or it cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        is_run = (run / RECIPE_FILE).exists()
        if not is_run and set(run.iterdir()) - set(_unfinished(run)):
            raise UserError(
                f"{run} holds files but no {RECIPE_FILE}", remedy="Choose an empty or a new folder for --out"
            )
        lock = _lock(run)
        try:
            if is_run and fresh:
                _delete_run(run)
            if is_run and not fresh:
                refuse_other_settings(run, settings)
            else:
                write_recipe(run, settings, command=command)
        except BaseException:
            lock.release()
            raise
        return lock
    except OSError as error:
        raise UserError(
            f"the run folder {run} cannot be written: {error.strerror or error}",
            remedy="Choose another --out or mend its permissions",
        ) from None


def _lock(run: Path) -> FileLock:
    lock = FileLock(run / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another process is training in {run}", remedy="Wait for it, stop it, or choose another --out"
        ) from None
    return lock


def _delete_run(run: Path) -> None:
    """Delete what a run writes, and nothing else."""
    # The recipe goes last: as long as it is there, the folder is known to be a run's.
    for name in (*_OURS, f"{RECIPE_FILE}.partial", "latest.partial", RECIPE_FILE):
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _unfinished(run: Path) -> list[Path]:
    """Files that a killed process left before its first recipe, or was about to rename."""
    names = (f"{RECIPE_FILE}.partial", "latest.partial", LOCK_FILE)
    return [run / name for name in names if (run / name).exists()]
