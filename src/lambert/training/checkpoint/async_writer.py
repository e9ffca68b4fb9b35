"""Saves while training continues: one thread writes, verifies and deletes, and waits for a full disk."""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lambert.errors import Interrupted
from lambert.training.checkpoint.format import (
    FOLDER,
    Checkpoint,
    Damaged,
    delete_old_checkpoints,
    write_checkpoint,
)
from lambert.training.config.trainer_options import TrainerOptions

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint that is on disk and was read back."""

    step: int
    path: Path
    size_bytes: int
    seconds: float
    """From the first byte to the last, in the background."""


class AsyncCheckpointWriter:
    """Writes the checkpoints of one run, one at a time.

    Args:
        trainer_options: which are kept, and how long a full disk is waited for.
        retry_seconds: time between two tries.
    """

    def __init__(self, run: Path, trainer_options: TrainerOptions, *, retry_seconds: float = 5.0) -> None:
        self._run = run
        self._options = trainer_options
        self._retry_seconds = retry_seconds
        self._thread: threading.Thread | None = None
        self._saved: CheckpointInfo | None = None
        self.problem: Interrupted | None = None
        """Why the last checkpoint could not be written."""
        self._gives_up = threading.Event()
        self.waits_for_space = ""
        """What the disk lacks, while that is waited for."""

    def start(self, checkpoint: Checkpoint) -> None:
        """Begin to write; nobody may change the tensors any more. An unfinished one must have been waited for."""
        assert not self.is_busy, "one checkpoint at a time"
        self._saved = self.problem = None
        self._thread = threading.Thread(target=self._work, args=(checkpoint,), name="saver")
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def finished(self) -> CheckpointInfo | None:
        """The checkpoint that has been written since the last call, if one has."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        return self._saved

    def give_up_waiting(self) -> None:
        """Wait for space no longer, now or later."""
        self._gives_up.set()

    def close(self) -> None:
        """Let what is being written be finished, but wait for space no longer."""
        self.give_up_waiting()
        if self._thread is not None:
            self._thread.join()

    def _work(self, checkpoint: Checkpoint) -> None:
        began = time.monotonic()
        try:
            while True:
                try:
                    path = write_checkpoint(self._run, checkpoint)
                    break
                except OSError as error:
                    waited = time.monotonic() - began
                    patience = 60 * self._options.full_disk_minutes
                    if error.errno not in _FULL or waited > patience or self._gives_up.is_set():
                        raise
                    self.waits_for_space = str(error)
                    self._gives_up.wait(self._retry_seconds)
            self.waits_for_space = ""
            keep = self._options
            delete_old_checkpoints(self._run, keep_last=keep.keep_last, keep_every=keep.keep_every)
            size = sum(file.stat().st_size for file in path.iterdir())
            self._saved = CheckpointInfo(checkpoint.step, path, size, time.monotonic() - began)
        except (OSError, Damaged) as error:
            self.waits_for_space = ""
            self.problem = Interrupted(
                f"the checkpoint of step {checkpoint.step} cannot be written to {self._run / FOLDER}: {error}",
                remedy="The one before it is whole: free some space or mend the permissions, then give the same "
                "command to resume",
            )
