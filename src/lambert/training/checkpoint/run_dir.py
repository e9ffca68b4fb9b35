"""The run folder: its contents, and whether a new command may resume it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.errors import UserError
from lambert.model.parameter_count import parameter_count
from lambert.runlog.records import check_run_format
from lambert.runlog.schema import JOURNAL_FILE, RECIPE_FILE, REPORT_FILE, SKIPPED_FILE
from lambert.training.checkpoint.format import FOLDER, LATEST, finished_steps
from lambert.training.checkpoint.recorded_recipe import restore_recipe
from lambert.training.config.training_config import TrainingConfig, refuse_other_config, write_recipe
from lambert.training.distributed.process_group import ProcessGroup
from lambert.utils.folder_lock import LOCK_FILES, FolderInUse, FolderLock
from lambert.utils.io import SETTINGS_BYTES, check_free_space, read_json, unwritable, write_json

MODEL_FOLDER = "huggingface"
TOKENIZER_FOLDER = "tokenizer"
_PARTIAL = (f"{RECIPE_FILE}.partial", f"{LATEST}.partial", f"{SKIPPED_FILE}.partial")
_OURS = (JOURNAL_FILE, MODEL_FOLDER, TOKENIZER_FOLDER, REPORT_FILE, SKIPPED_FILE, FOLDER, LATEST)


def open_run_folder(
    run: Path, settings: TrainingConfig, corpus: Corpus, processes: ProcessGroup, *, command: str, fresh: bool
) -> FolderLock | None:
    """`prepare_run_folder` on rank 0, which also saves the tokenizer; if it fails, all ranks stop.

    Raises:
        UserError: preparation failed on rank 0; or a rank reads another corpus.
    """
    own = int(corpus.fingerprint[:15], 16)
    first = processes.all_reduce_ints([own if processes.is_main_process else 0])[0]
    if other := processes.all_reduce_max([processes.rank if own != first else 0])[0]:
        raise UserError(
            f"process {other} reads another corpus from {corpus.path} than rank 0",
            remedy="Put the same corpus there on every machine, or on a folder that all share",
        )
    locks: list[FolderLock] = []

    def prepare() -> None:
        locks.append(prepare_run_folder(run, settings, command=command, fresh=fresh))
        save_tokenizer(corpus.tokenizer(), run / TOKENIZER_FOLDER)

    processes.from_main(prepare)
    return locks[0] if locks else None


def skipped_steps(run: Path) -> set[int]:
    """Steps that were rolled back and are skipped from then on.

    Raises:
        UserError: the file that lists them is damaged.
    """
    path = run / SKIPPED_FILE
    try:
        return {int(step) for step in read_json(path, SETTINGS_BYTES)["steps"]}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read: {error}", remedy="Restore it from a copy, or add `fresh=True` to start over"
        ) from None


def write_skipped_steps(run: Path, steps: Iterable[int]) -> None:
    """Write the file that `skipped_steps` reads, atomically."""
    write_json(run / SKIPPED_FILE, {"steps": sorted(steps)})


def prepare_run_folder(run: Path, settings: TrainingConfig, *, command: str, fresh: bool) -> FolderLock:
    """Create `run`, or check that the run in it has the same settings; `fresh` deletes that run first.

    Returns:
        A lock that excludes other processes until it is released or this process ends.

    Raises:
        UserError: another process uses the folder, it holds a run with other settings or unrelated files, or it
            cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        restore_recipe(run)
        is_run = (run / RECIPE_FILE).exists()
        if not is_run and set(run.iterdir()) - set(_unfinished(run)):
            raise UserError(
                f"{run} holds files but no {RECIPE_FILE}", remedy="Choose an empty or a new folder for `out`"
            )
        lock = _lock(run)
        try:
            if is_run and fresh:
                _delete_run(run)
            if is_run and not fresh:
                check_run_format(run / JOURNAL_FILE)
                refuse_other_config(run, settings)
            if not finished_steps(run):
                check_free_space(run, checkpoint_bytes(settings), what="a checkpoint")
            write_recipe(run, settings, command=command)
        except BaseException:
            lock.release()
            raise
        return lock
    except OSError as error:
        raise unwritable(error, run, remedy="Choose another `out` or fix its permissions") from None


def checkpoint_bytes(settings: TrainingConfig) -> int:
    """Size of a checkpoint: weights, their average and moments in float32; Muon's matrices and LARS have one moment."""
    moments = 1 if settings.optimizer in ("lars", "muon", "muon-hyperball") else 2
    return 4 * (1 + moments + (settings.ema_decay > 0)) * parameter_count(settings.model)


def _lock(run: Path) -> FolderLock:
    try:
        return FolderLock(run)
    except FolderInUse:
        raise UserError(
            f"another process is training in {run}", remedy="Wait for it, stop it, or choose another `out`"
        ) from None


def _delete_run(run: Path) -> None:
    """Delete the files of a run, and nothing else."""
    # The recipe is deleted last: it marks the folder as a run folder.
    for name in (*_OURS, *_PARTIAL, RECIPE_FILE):
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _unfinished(run: Path) -> list[Path]:
    """Files that a killed process left before it wrote the recipe, or before a rename."""
    return [run / name for name in (*_PARTIAL, *LOCK_FILES) if (run / name).exists()]
