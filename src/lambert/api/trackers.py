"""Callbacks that show a run in TensorBoard, Weights & Biases or MLflow while it trains."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.api.messages import log
from lambert.errors import UserError
from lambert.runlog.schema import RECIPE_FILE
from lambert.tracking.process import Outcome, TrackingProcess, make_sink
from lambert.training.callbacks import Callback, Record
from lambert.utils.formatting import shell_command

if TYPE_CHECKING:
    from lambert.tracking.follow import Sink
    from lambert.training.loop import TrainingLoop

_WAIT_SECONDS = 30.0
"""At the end of a run, for what a dashboard has not taken yet."""


class TrackerCallback(Callback):
    """Shows a run in a dashboard: a process of its own follows the run's journal, as `lambert track --follow` does.

    A run that resumes continues there. What is wrong from the start (no package, no account, a folder that cannot be
    written, no server) is a UserError before a new run. Nothing that goes wrong later, or when a run is resumed, stops
    or delays the run: it is one warning, with the `lambert track` command that sends what is missing.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        self._kind, self._options = kind, options
        self._run: Path | None = None
        self._sink: Sink | None = None
        self._process: TrackingProcess | None = None

    def prepare(self, run: Path, *, resumes: bool) -> None:
        """Check what can be known before `run` trains; called by the Trainer on the main process.

        Raises:
            UserError: the dashboard cannot be used, and the run is new.
        """
        self._run, self._sink, self._process = run.resolve(), None, None
        try:
            sink = make_sink(self._kind, self._options)
            sink.check(self._run.name)
            self._sink = sink
        except UserError as error:
            if not resumes:
                raise
            later = f"{shell_command('lambert', 'track', run, f'--{self._kind}')} …"
            log.warning(f"{error} The run goes on without it; `{later}` sends its metrics later")

    def on_train_begin(self, trainer: TrainingLoop, record: Record) -> None:
        """Start the process."""
        if self._sink is None or self._run is None:
            return
        try:
            self._process = TrackingProcess(self._run, self._kind, self._options)
        except OSError as error:
            self._warn(f"the process for {self._sink.name} could not be started ({error.strerror})")

    def on_log(self, trainer: TrainingLoop, event: str, record: Record) -> None:
        """Say so, once, if the process has failed."""
        if event != "end" and self._process is not None and (outcome := self._process.outcome()) is not None:
            self._process = None
            self._tell(outcome)

    def close(self) -> None:
        """Wait a while until the dashboard has everything, and say where; the Trainer calls it after the run."""
        process, self._process = self._process, None
        if process is None or self._sink is None:
            return
        process.stop()
        outcome = process.outcome(_WAIT_SECONDS)
        if outcome is None:
            self._warn(f"after {_WAIT_SECONDS:g} s {self._sink.name} lacks some; process {process.pid} goes on sending")
        else:
            self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        assert self._sink is not None
        if outcome.problem is not None:
            self._warn(outcome.problem)
        else:
            shown_by = f" (`{outcome.shown_by}`)" if outcome.shown_by else ""
            log.info(f"{self._sink.name}: {outcome.place}{shown_by}")

    def _warn(self, problem: str) -> None:
        """The one warning. It leaves open whether the run still trains, for the process may fail at its end."""
        assert self._sink is not None and self._run is not None
        again = shell_command("lambert", "track", self._run, *self._sink.words)
        log.warning(
            f"{problem}. This does not touch the run; `{again}` sends what {self._sink.name} lacks, now or later"
        )


class TensorBoardCallback(TrackerCallback):
    """Writes the run's metrics as TensorBoard events into a subfolder of `folder`, named after the run folder.

    Needs `pip install 'lambert-bert[tensorboard]'`.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__("tensorboard", folder=os.path.abspath(folder))


class WandbCallback(TrackerCallback):
    """Shows the run in a project of Weights & Biases.

    Args:
        mode: `offline`, `online` or `disabled`; None takes that of WANDB_MODE, and offline where it is not set.

    Needs `pip install 'lambert-bert[wandb]'`.
    """

    def __init__(self, project: str, *, mode: str | None = None) -> None:
        super().__init__("wandb", project=project, mode=mode)


class MLflowCallback(TrackerCallback):
    """Shows the run in MLflow.

    Args:
        uri: a folder, or a tracking URI such as http://localhost:5000.
        experiment: None takes MLFLOW_EXPERIMENT_NAME, and `lambert` where it is not set.

    Needs `pip install 'lambert-bert[mlflow]'`.
    """

    def __init__(self, uri: str | Path, *, experiment: str | None = None) -> None:
        super().__init__("mlflow", uri=str(uri), experiment=experiment)


def prepare_trackers(callbacks: Sequence[Callback], run: Path, *, fresh: bool) -> None:
    """`TrackerCallback.prepare` of those among the callbacks."""
    resumes = not fresh and (run / RECIPE_FILE).exists()
    for callback in callbacks:
        if isinstance(callback, TrackerCallback):
            callback.prepare(run, resumes=resumes)


@contextmanager
def closed_trackers(callbacks: Sequence[Callback]) -> Iterator[None]:
    """Close the trackers among the callbacks after the block, however it ends."""
    try:
        yield
    finally:
        for callback in callbacks:
            if isinstance(callback, TrackerCallback):
                callback.close()
