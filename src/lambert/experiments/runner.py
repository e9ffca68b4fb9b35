"""Runs the cells of a sweep side by side, each in a folder and a process of its own; what is done is not done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from lambert.errors import UserError
from lambert.experiments.grid import Cell, Sweep, option_words
from lambert.experiments.signals import signals_deferred
from lambert.runlog.reader import read_run

CELLS, LOCK = "cells", "lock"
_LOOK_SECONDS = 0.2
_SQUAD = "squad"


@dataclass(frozen=True)
class Ended:
    """A cell that has ended."""

    cell: Cell
    status: str
    """`finished`, `diverged` (too many NaN/Inf losses), or `failed`."""
    problem: str = ""
    """The last line that a failed one said."""


@dataclass
class Runner:
    """The sweep's way through its cells.

    Args:
        out: folder of the sweep.
        jobs: cells at a time.
        threads: of each.
        expected: seconds that a cell is expected to take, by the name of its batch.
        budget_seconds: no cell is begun that would end later, as far as is known.
        note: called with every cell that has ended, and how many are left.
    """

    sweep: Sweep
    out: Path
    jobs: int
    threads: int
    expected: Mapping[str, float]
    budget_seconds: float | None = None
    note: Callable[[Ended, int], None] = lambda ended, left: None
    _running: dict[Cell, _Work] = field(default_factory=dict)
    _ratios: list[float] = field(default_factory=list)

    def run(self) -> tuple[list[Ended], list[Cell]]:
        """Runs what is not done; returns what has ended and what was left for lack of time.

        Interrupting it asks the running cells to save and stop, and waits for them.

        Raises:
            UserError: another sweep runs there.
        """
        (self.out / CELLS).mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self.out / LOCK)
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another sweep runs in {self.out}", remedy="Wait for it, or choose another --out"
            ) from None
        try:
            return self._run()
        finally:
            lock.release()

    def _run(self) -> tuple[list[Ended], list[Cell]]:
        began = time.monotonic()
        left: list[Cell] = []
        ended, waiting = self.state()
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.jobs:
                    cell = waiting.pop(0)
                    if self._fits(cell, time.monotonic() - began):
                        self._start(cell)
                    else:
                        left.append(cell)
                for done in self._collect():
                    ended.append(done)
                    self.note(done, len(waiting) + len(self._running))
                time.sleep(_LOOK_SECONDS)
        except BaseException:
            self._stop()
            raise
        return ended, left

    def state(self) -> tuple[list[Ended], list[Cell]]:
        """What ended in earlier sessions, and what is to be run."""
        ended: list[Ended] = []
        waiting: list[Cell] = []
        for cell in self.sweep.cells:
            before = status_of(self.folder(cell), with_squad=self.sweep.squad is not None)
            if before:
                ended.append(Ended(cell, before))
            else:
                waiting.append(cell)
        return ended, waiting

    def folder(self, cell: Cell) -> Path:
        """Of a cell's run."""
        return self.out / CELLS / cell.name

    def step_time_breakdown(self, cell: Cell) -> float:
        """What a cell is expected to take, mended by how long others have taken."""
        ratio = sum(self._ratios) / len(self._ratios) if self._ratios else 1.0
        return self.expected.get(cell.batch, 0.0) * ratio

    def _fits(self, cell: Cell, spent: float) -> bool:
        return self.budget_seconds is None or spent + self.step_time_breakdown(cell) <= self.budget_seconds

    def _start(self, cell: Cell) -> None:
        folder = self.folder(cell)
        words = ["pretrain", *self.sweep.common_words(), *cell.words(), "--out", str(folder), "--probe-seconds", "0"]
        commands = [[*words, "--threads", str(self.threads)]]
        if self.sweep.squad is not None:
            commands.append(["squad", str(folder), "--out", str(folder / _SQUAD), *option_words(self.sweep.squad)])
        with signals_deferred():
            self._running[cell] = _Work(commands, self.out / CELLS / f"{cell.name}.log", self.threads)

    def _collect(self) -> list[Ended]:
        done = []
        for cell, work in list(self._running.items()):
            code = work.poll()
            if code is None:
                continue
            del self._running[cell]
            status = "finished" if code == 0 else "diverged" if has_diverged(self.folder(cell)) else "failed"
            if status == "finished" and self.expected.get(cell.batch):
                self._ratios.append(work.seconds / self.expected[cell.batch])
            done.append(Ended(cell, status, "" if status == "finished" else last_line(work.log)))
        return done

    def _stop(self) -> None:
        for work in self._running.values():
            work.stop()
        for work in self._running.values():
            work.wait()


class _Work:
    """Commands of `lambert` that follow one another, each in a process of its own; what they say goes to `log`."""

    def __init__(self, commands: Sequence[Sequence[str]], log: Path, threads: int) -> None:
        self.log, self._waiting, self._began = log, list(commands), time.monotonic()
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = self._next()

    @property
    def seconds(self) -> float:
        """Since the first began."""
        return time.monotonic() - self._began

    def poll(self) -> int | None:
        """The exit code of the last, or of the first that failed; None while there is something to do."""
        code = self._process.poll()
        if code == 0 and self._waiting:
            self._process = self._next()
            return None
        return code

    def stop(self) -> None:
        """Ask to save and end."""
        self._waiting = []
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Until it has ended."""
        self._process.wait()

    def _next(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "lambert", *self._waiting.pop(0)]
        with self.log.open("ab") as out:
            # A session of its own: Ctrl-C at the terminal is for the sweep, which then asks its cells in turn.
            return subprocess.Popen(
                words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=self._environment, start_new_session=True
            )


def status_of(run: Path, *, with_squad: bool) -> str:
    """`finished` or `diverged` where a cell needs nothing more, otherwise nothing."""
    try:
        end = read_run(run).end
    except UserError:
        return ""
    if end is not None and end.get("reason") == "finished":
        return "finished" if not with_squad or (run / _SQUAD / "squad.json").exists() else ""
    return "diverged" if has_diverged(run) else ""


def has_diverged(run: Path) -> bool:
    """Whether the last ten steps that it did had a NaN/Inf loss."""
    try:
        losses = read_run(run).series["loss"]
    except UserError:
        return False
    return len(losses) >= _MOST and not any(loss == loss for loss in losses[-_MOST:])


_MOST = 10
"""Steps in a row without a number after which a run ends (`training/metrics/spike_detector.py`)."""


def last_line(log: Path) -> str:
    """What a command said last."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
