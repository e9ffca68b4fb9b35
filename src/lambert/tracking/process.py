"""A process that follows a run's journal for one dashboard while the run trains, so that none waits for another."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.tracking.follow import Sink, told, track
from lambert.tracking.mlflow import MLflowSink
from lambert.tracking.tensorboard import TensorBoardSink
from lambert.tracking.weights_and_biases import WandbSink
from lambert.utils.stop_signals import stop_signals

_NICENESS = 5
"""The run goes first."""
_END_SECONDS = 1.0
_PROGRAM = "import sys; sys.path[:] = {path}; from lambert.tracking.process import serve; serve({descriptor})"


def make_sink(kind: str, options: Mapping[str, Any]) -> Sink:
    """The dashboard `tensorboard`, `wandb` or `mlflow`, with the arguments of its class.

    Raises:
        UserError: its package is missing, or an argument is out of range.
    """
    if kind == "tensorboard":
        return TensorBoardSink(**options)
    return WandbSink(**options) if kind == "wandb" else MLflowSink(**options)


@dataclass(frozen=True)
class Outcome:
    """What a process tells when it ends."""

    problem: str | None
    """Why it does not have the whole journal."""
    place: str | None
    """Where the dashboard has the run."""
    shown_by: str | None
    """The command that shows or uploads it."""


class TrackingProcess:
    """Follows the journal of `run` from the start of this process until `stop` or the end of the run.

    It also ends, after what the journal has by then, when this process is killed.

    Args:
        kind: of dashboard, for `make_sink`; as are its options, which JSON must be able to hold.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, run: Path, kind: str, options: Mapping[str, Any]) -> None:
        self._connection, its = Pipe()
        self._outcome: Outcome | None = None
        program = _PROGRAM.format(path=ascii(sys.path), descriptor=its.fileno())
        # Ctrl-C and a scheduler's signals reach every process; the run's own saves, and what it writes is sent still.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            its.close()
        self._connection.send_bytes(json.dumps([str(run), kind, options]).encode())

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def stop(self) -> None:
        """Ask it to send what the journal has, and to end. Returns at once."""
        with suppress(OSError):  # it has ended
            self._connection.send_bytes(b"stop")

    def outcome(self, seconds: float = 0.0) -> Outcome | None:
        """What it has told at its end, waiting up to `seconds` for that; None while it runs."""
        if self._outcome is None and self._connection.poll(seconds):
            try:
                self._outcome = Outcome(**json.loads(self._connection.recv_bytes()))
            except (EOFError, OSError):
                self._outcome = Outcome("the process that followed the run was ended", None, None)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
        return self._outcome


def serve(descriptor: int) -> None:
    """The whole life of such a process; `descriptor` is of the connection."""
    os.nice(_NICENESS)
    connection = Connection(descriptor)
    run, kind, options = json.loads(connection.recv_bytes())
    sink, problem = None, None

    def pause(seconds: float) -> bool:
        """Whether to read once more and end: so it was told, or the run's process is gone."""
        return bool(select.select([descriptor], [], [], seconds)[0])

    try:
        sink = make_sink(kind, options)
        track(Path(run), [sink], follow=True, sleep=pause)
    except UserError as error:
        problem = error.what
    except Exception as error:
        problem = f"{kind} failed ({type(error).__name__}: {told(error)})"
    outcome = {
        "problem": problem,
        "place": None if sink is None else sink.place,
        "shown_by": None if sink is None else sink.shown_by,
    }
    with suppress(OSError):  # the run's process is gone
        connection.send_bytes(json.dumps(outcome).encode())
