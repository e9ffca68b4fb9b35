"""Asynchronous checkpoints: a thread writes, verifies and prunes them, and waits while the disk is full."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lambert.errors import Interrupted, UserError
from lambert.training.checkpoint.format import (
    FOLDER,
    Checkpoint,
    delete_old_checkpoints,
    finished_steps,
    write_checkpoint,
)
from lambert.training.config.trainer_options import TrainerOptions
from lambert.utils.io import is_full, room_for, why_unwritable
from lambert.utils.memory import is_out_of_memory, memory_words

log = logging.getLogger("lambert")


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint written to disk and verified."""

    step: int
    path: Path
    size_bytes: int
    seconds: float
    """Duration of the write, in the background."""


class AsyncCheckpointWriter:
    """Writes the checkpoints of one run, one at a time.

    Args:
        trainer_options: which checkpoints to keep, and how long to wait for a full disk.
        retry_seconds: time between two attempts.
    """

    def __init__(self, run: Path, trainer_options: TrainerOptions, *, retry_seconds: float = 5.0) -> None:
        self._run = run
        self._options = trainer_options
        self._retry_seconds = retry_seconds
        self._thread: threading.Thread | None = None
        self._saved: CheckpointInfo | None = None
        self.checks: tuple[Callable[[], None], ...] = ()
        """Called before each write; one that raises a `UserError` ends the run without it."""
        self.problem: UserError | None = None
        """Why the last checkpoint could not be written."""
        self._gives_up = threading.Event()
        self.waits_for_space = ""
        """The disk error while waiting for space; empty otherwise."""

    def start(self, checkpoint: Checkpoint) -> None:
        """Start writing. The tensors must not change any more, and no other write may be pending."""
        assert not self.is_busy, "one checkpoint at a time"
        self._saved = self.problem = None
        self._thread = threading.Thread(target=self._work, args=(checkpoint,), name="checkpoint-writer")
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def finished(self) -> CheckpointInfo | None:
        """The checkpoint completed since the last call, or None."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        return self._saved

    def give_up_waiting(self) -> None:
        """Stop waiting for disk space, now and later."""
        self._gives_up.set()

    def close(self) -> None:
        """Finish the pending write, but do not wait for disk space."""
        self.give_up_waiting()
        if self._thread is not None:
            self._thread.join()

    @contextmanager
    def memory_reported(self) -> Iterator[None]:
        """Within the block, an allocation that fails ends the run; its last checkpoint is finished first.

        Raises:
            Interrupted: in place of the error.
        """
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.close()
            remedy = f"Free some, then give the same command to {self._then()}"
            raise Interrupted(memory_words(error), remedy=remedy) from None

    def _then(self) -> str:
        earlier = finished_steps(self._run)
        return f"resume from step {earlier[0]}" if earlier else "start over: the run has no checkpoint yet"

    def _work(self, checkpoint: Checkpoint) -> None:
        began = time.monotonic()
        try:
            while True:
                try:
                    for check in self.checks:
                        check()
                    path = write_checkpoint(self._run, checkpoint)
                    break
                except OSError as error:
                    waited = time.monotonic() - began
                    patience = 60 * self._options.full_disk_minutes
                    if not is_full(error) or waited > patience or self._gives_up.is_set():
                        raise
                    if not self.waits_for_space:
                        log.warning(
                            f"{why_unwritable(error, self._run / FOLDER)} in {self._run}: the run waits up to "
                            f"{self._options.full_disk_minutes:g} minutes for space"
                        )
                    self.waits_for_space = str(error)
                    self._gives_up.wait(self._retry_seconds)
            self.waits_for_space = ""
            keep = self._options
            delete_old_checkpoints(self._run, keep_last=keep.keep_last, keep_every=keep.keep_every)
            size = sum(file.stat().st_size for file in path.iterdir())
            self._saved = CheckpointInfo(checkpoint.step, path, size, time.monotonic() - began)
        except Exception as error:  # MemoryError, a library's own: a run without checkpoints must not go on
            self.waits_for_space = ""
            self.problem = self._why_stopped(checkpoint.step, error)

    def _why_stopped(self, step: int, error: Exception) -> UserError:
        try:
            for check in self.checks:
                check()  # where the folder was moved, that is the cause
        except UserError as cause:
            return cause
        folder = self._run / FOLDER
        mend = "Free memory" if is_out_of_memory(error) else "Fix the disk or the permissions"
        return Interrupted(
            f"the checkpoint of step {step} cannot be written to {folder}: {why_unwritable(error, folder)}",
            remedy=f"{room_for(error) or mend}, then give the same command to {self._then()}",
        )
