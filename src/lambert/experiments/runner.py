"""Runs the trials of a sweep in parallel, each in its own folder and process; finished trials are not repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lambert.errors import UserError
from lambert.experiments.grid import Sweep, Trial, option_arguments
from lambert.experiments.signals import signals_deferred
from lambert.runlog.reader import read_run
from lambert.utils.folder_lock import FolderInUse, FolderLock
from lambert.utils.stop_signals import end_with_parent

TRIALS = "trials"
_LOOK_SECONDS = 0.2
_SAVING_SECONDS = 120.0
"""After which a trial that still runs is no longer waited for."""
_SQUAD = "squad"


@dataclass(frozen=True)
class Ended:
    """A trial that has ended."""

    trial: Trial
    status: str
    """`finished`, `diverged` (too many NaN/Inf losses), or `failed`."""
    problem: str = ""
    """Last line of the log of a failed trial."""


def trial_commands(sweep: Sweep, trial: Trial, folder: Path, threads: int) -> list[list[str]]:
    """The `lambert` commands of a trial, without the program's name."""
    own = ["--out", str(folder), "--probe-seconds", "0", "--threads", str(threads)]
    commands = [["pretrain", *sweep.shared_arguments(), *trial.arguments(), *own]]
    if sweep.squad is not None:
        commands.append(["squad", str(folder), "--out", str(folder / _SQUAD), *option_arguments(sweep.squad)])
    return commands


@dataclass
class Runner:
    """Runs the trials of one sweep.

    Args:
        out: folder of the sweep.
        jobs: trials at a time.
        threads: of each trial.
        expected: expected seconds of a trial, by `Trial.batch`.
        budget_seconds: no trial starts that is expected to end later.
        note: called with each trial that has ended and the number left.
        environment: variables of the trials, beside those of this process.
    """

    sweep: Sweep
    out: Path
    jobs: int
    threads: int
    expected: Mapping[str, float]
    budget_seconds: float | None = None
    note: Callable[[Ended, int], None] = lambda ended, left: None
    environment: Mapping[str, str] = field(default_factory=dict)
    _running: dict[Trial, _Work] = field(default_factory=dict)
    _ratios: list[float] = field(default_factory=list)

    def run(self) -> tuple[list[Ended], list[Trial]]:
        """Run the unfinished trials; returns those that ended and those left out by the budget.

        An interrupt asks the running trials to save and stop, and waits for them.

        Raises:
            UserError: another sweep uses the folder.
        """
        (self.out / TRIALS).mkdir(parents=True, exist_ok=True)
        try:
            lock = FolderLock(self.out)
        except FolderInUse:
            raise UserError(
                f"another sweep runs in {self.out}", remedy="Wait for it, or choose another --out"
            ) from None
        try:
            return self._run()
        finally:
            lock.release()

    def _run(self) -> tuple[list[Ended], list[Trial]]:
        began = time.monotonic()
        left: list[Trial] = []
        ended, waiting = self.state()
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.jobs:
                    trial = waiting.pop(0)
                    if self._fits(trial, time.monotonic() - began):
                        self._start(trial)
                    else:
                        left.append(trial)
                for done in self._collect():
                    ended.append(done)
                    self.note(done, len(waiting) + len(self._running))
                time.sleep(_LOOK_SECONDS)
        except BaseException:
            self._stop()
            raise
        return ended, left

    def state(self) -> tuple[list[Ended], list[Trial]]:
        """Trials that ended in earlier sessions, and those still to run."""
        ended: list[Ended] = []
        waiting: list[Trial] = []
        for trial in self.sweep.trials:
            before = status_of(self.folder(trial), with_squad=self.sweep.squad is not None)
            if before:
                ended.append(Ended(trial, before))
            else:
                waiting.append(trial)
        return ended, waiting

    def folder(self, trial: Trial) -> Path:
        """Run folder of a trial."""
        return self.out / TRIALS / trial.name

    def estimated_seconds(self, trial: Trial) -> float:
        """Expected seconds of a trial, corrected by the measured time of finished trials."""
        ratio = sum(self._ratios) / len(self._ratios) if self._ratios else 1.0
        return self.expected.get(trial.batch, 0.0) * ratio

    def _fits(self, trial: Trial, spent: float) -> bool:
        return self.budget_seconds is None or spent + self.estimated_seconds(trial) <= self.budget_seconds

    def _start(self, trial: Trial) -> None:
        folder = self.folder(trial)
        wait_until_free(folder)
        commands = trial_commands(self.sweep, trial, folder, self.threads)
        with signals_deferred():
            log = self.out / TRIALS / f"{trial.name}.log"
            self._running[trial] = _Work(commands, log, {**self.environment, "OMP_NUM_THREADS": str(self.threads)})

    def _collect(self) -> list[Ended]:
        done = []
        for trial, work in list(self._running.items()):
            code = work.poll()
            if code is None:
                continue
            del self._running[trial]
            status = "finished" if code == 0 else "diverged" if has_diverged(self.folder(trial)) else "failed"
            if status == "finished" and self.expected.get(trial.batch):
                self._ratios.append(work.seconds / self.expected[trial.batch])
            done.append(Ended(trial, status, "" if status == "finished" else last_line(work.log)))
        return done

    def _stop(self) -> None:
        for work in self._running.values():
            work.stop()
        for work in self._running.values():
            work.wait()


class _Work:
    """`lambert` commands run one after another, each in its own process; their output goes to `log`."""

    def __init__(self, commands: Sequence[Sequence[str]], log: Path, environment: Mapping[str, str]) -> None:
        self.log, self._waiting, self._began = log, list(commands), time.monotonic()
        self._environment = {**os.environ, **environment}
        self._process = self._next()

    @property
    def seconds(self) -> float:
        """Since the first command started."""
        return time.monotonic() - self._began

    def poll(self) -> int | None:
        """Exit code of the last command, or of the first that failed; None while one runs."""
        code = self._process.poll()
        if code == 0 and self._waiting:
            self._process = self._next()
            return None
        return code

    def stop(self) -> None:
        """Ask the command to save and stop."""
        self._waiting = []
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait until the command has ended."""
        self._process.wait()

    def _next(self) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-m", "lambert", *self._waiting.pop(0)]
        with self.log.open("ab") as out:
            # A new session: Ctrl-C in the terminal reaches only the sweep, which then stops its trials.
            return subprocess.Popen(
                arguments,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                preexec_fn=end_with_parent if sys.platform == "linux" else None,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
            )


def wait_until_free(run: Path) -> None:
    """Wait while another process trains in the folder: a trial of a killed sweep saves before it ends."""
    deadline = time.monotonic() + _SAVING_SECONDS
    while run.is_dir() and time.monotonic() < deadline:
        try:
            FolderLock(run).release()
            return
        except FolderInUse:
            time.sleep(_LOOK_SECONDS)
        except OSError:  # the trial itself says what is wrong
            return


def status_of(run: Path, *, with_squad: bool) -> str:
    """`finished` or `diverged` if the trial is complete, else empty."""
    try:
        end = read_run(run).end
    except UserError:
        return ""
    if end is not None and end.get("reason") == "finished":
        return "finished" if not with_squad or (run / _SQUAD / "squad.json").exists() else ""
    return "diverged" if has_diverged(run) else ""


def has_diverged(run: Path) -> bool:
    """Whether its last ten steps had a NaN/Inf loss."""
    try:
        losses = read_run(run).series["loss"]
    except UserError:
        return False
    return len(losses) >= _MOST and not any(loss == loss for loss in losses[-_MOST:])


_MOST = 10
"""Consecutive NaN/Inf steps that end a run (`training/metrics/spike_detector.py`)."""


def last_line(log: Path) -> str:
    """Last line of a log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
