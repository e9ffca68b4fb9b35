"""Launches steps. On a GPU the host makes and launches the next step while one runs, and reads its numbers later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lambert.data.dataloader import PretrainingBatch, SampleStream
from lambert.training.config.phase import Phase, dropout_seed
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.batches import StepBatches
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.timer import StepTimer
from lambert.training.step.train_state import TrainState
from lambert.training.step.train_step import PendingStep, launch_step
from lambert.training.train_output import StepMetrics


@dataclass(frozen=True)
class LaunchedStep:
    """One step, and what is needed to log it later."""

    number: int
    phase: Phase
    batches: Sequence[PretrainingBatch]
    """This rank's micro-batches."""
    pending: PendingStep
    breakdown: Callable[[], Mapping[str, float]]
    """Seconds of the step's sections, once `pending` is there."""
    began: float
    """`time.monotonic()` before its batches were made."""


class StepLauncher:
    """Launches steps, and has the batches of the next one made meanwhile.

    Args:
        workers: processes that make batches, as for `StepBatches`.
    """

    def __init__(
        self,
        state: TrainState,
        config: TrainingConfig,
        processes: ProcessGroup,
        timer: StepTimer,
        *,
        workers: int | None = None,
    ) -> None:
        self._state, self._config, self._processes, self._timer = state, config, processes, timer
        self._batches = StepBatches(processes, workers)

    def launch(self, phase: Phase, stream: SampleStream, *, measures_first: bool) -> LaunchedStep:
        """Launch the next step: a pure function of its number.

        Args:
            measures_first: as for `launch_step`.

        Raises:
            OutOfMemory: as `launch_step`.
        """
        state, config, step, began = self._state, self._config, self._state.step + 1, time.monotonic()
        with self._timer.section("data"):
            batches = self._batches.of(phase, stream, step)
        indices = self._processes.rank_range(phase.micro_batch_count)
        pending = launch_step(
            state.model,
            state.optimizer,
            batches,
            task=pretraining_task,
            learning_rate=phase.learning_rate(step),
            max_grad_norm=config.max_grad_norm or None,
            dropout_seeds=[dropout_seed(config.seed, step, index) for index in indices],
            precision=config.precision,
            processes=self._processes,
            master=state.master,
            gradients=state.gradients,
            timer=self._timer,
            measures_first=measures_first,
        )
        self._batches.make_ahead(phase, stream, step + 1)  # after the launch: both need Python's lock
        state.step = step
        state.update_average()
        return LaunchedStep(step, phase, batches, pending, self._timer.lap(), began)

    def close(self) -> None:
        """End what makes batches."""
        self._batches.close()


class LaunchedSteps:
    """The steps not yet read, oldest first.

    Args:
        most: steps that may stay unread while the next one is launched.
        log: gets each step, in order, and its seconds; returns its metrics and whether it is a spike.
    """

    def __init__(self, most: int, log: Callable[[LaunchedStep, float], tuple[StepMetrics, bool]]) -> None:
        self._most, self._log = most, log
        self._unread: list[LaunchedStep] = []
        self._read_at = 0.0
        self.logged: list[StepMetrics] = []
        """Read and not yet taken from here."""

    def add(self, step: LaunchedStep) -> None:
        """Add a launched step."""
        self._unread.append(step)

    def read(self, *, all_of_them: bool = True) -> bool:
        """Wait for the steps and log them; returns whether the last one read is a spike."""
        is_spike = False
        while len(self._unread) > (0 if all_of_them else self._most):
            step = self._unread.pop(0)
            _ = step.pending.result
            began, self._read_at = max(step.began, self._read_at), time.monotonic()
            metrics, is_spike = self._log(step, self._read_at - began)
            self.logged.append(metrics)
        return is_spike

    def take(self) -> Iterator[StepMetrics]:
        """The metrics logged since the last call."""
        while self.logged:
            yield self.logged.pop(0)
