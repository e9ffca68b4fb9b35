"""Logs each step to the journal, with NaN and spike detection."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.training.callbacks import EventLog
from lambert.training.config.phase import Phase
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.metrics import events
from lambert.training.metrics.gradient_noise import GradientNoiseTracker
from lambert.training.metrics.spike_detector import MOST_SKIPPED_IN_A_ROW, SpikeDetector
from lambert.training.metrics.throughput import ThroughputTracker
from lambert.training.step.launcher import LaunchedStep
from lambert.training.step.train_state import TrainState
from lambert.training.step.train_step import StepResult
from lambert.training.train_output import StepMetrics

log = logging.getLogger("lambert")


class StepLogger:
    """Writes the events of a step; owns the spike detector and the gradient noise tracker."""

    def __init__(
        self,
        run: Path,
        phases: Sequence[Phase],
        state: TrainState,
        processes: ProcessGroup,
        throughput: ThroughputTracker,
        journal: EventLog,
        options: TrainerOptions,
    ) -> None:
        self._run, self._phases, self._state, self._processes, self._throughput = (
            run,
            phases,
            state,
            processes,
            throughput,
        )
        self._journal = journal
        self._layer_stats: dict[str, float] = {}
        self.spike_detector = SpikeDetector()
        self._measurements = options.noise_measurements_per_phase
        self.noise = GradientNoiseTracker(self._measurements)

    def state_dict(self) -> dict[str, Any]:
        """State for `load_state_dict`."""
        return {"spike_detector": self.spike_detector.state_dict(), "noise": self.noise.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from `state_dict`. What another version did not save starts empty, and is named."""
        for name, empty in (("spike_detector", SpikeDetector()), ("noise", GradientNoiseTracker(self._measurements))):
            try:
                getattr(self, name).load_state_dict(state[name])
            except (KeyError, TypeError, ValueError, AttributeError):
                setattr(self, name, empty)
                if self._processes.is_main_process:
                    log.warning(f"the checkpoint of step {self._state.step} holds no {name}: its window starts empty")

    def log_step(self, launched: LaunchedStep, seconds: float) -> tuple[StepMetrics, bool]:
        """Log a step; returns its metrics, and whether its loss or gradient norm is a spike.

        Args:
            seconds: wall time of the step.

        Raises:
            UserError: too many NaN/Inf steps in a row.
        """
        step, phase, result = launched.number, launched.phase, launched.pending.result
        left = sum(other.padded_tokens_left(step) for other in self._phases)
        speed = self._throughput.metrics(phase, launched.batches, seconds, launched.breakdown(), left)
        record = {**events.step_facts(step, phase, result), **speed}
        self._journal.write("step", record)
        return StepMetrics.of(record), self._is_spike(step, phase, result)

    def _is_spike(self, step: int, phase: Phase, result: StepResult) -> bool:
        if not result.applied:
            self._log_skipped(step, phase, result)
            return False
        noise = self.noise.update(phase, step, result)
        if noise is not None:
            self._journal.write("noise", noise)
        spikes = self.spike_detector.update(result.loss, result.gradient_norm)
        if spikes:
            now = self._state.layer_stats()
            self._journal.write("spike", events.spike_facts(step, phase, spikes, self._layer_stats, now))
        return bool(spikes)

    def log_layers(self) -> None:
        """Log the trust ratios of all layers."""
        self._layer_stats = self._state.layer_stats()
        ratios = self._state.trust_ratios()
        if ratios:
            self._journal.write("trust_ratios", {"step": self._state.step, "trust_ratios": ratios})

    def _log_skipped(self, step: int, phase: Phase, result: StepResult) -> None:
        """Log a skipped step (NaN/Inf loss or gradient). The weights are unchanged; data and schedule advance.

        Raises:
            UserError: too many skipped steps in a row.
        """
        self.spike_detector.skipped_in_a_row += 1
        in_a_row = self.spike_detector.skipped_in_a_row
        indices = self._processes.rank_range(phase.micro_batch_count)
        own = {indices[number] for number in result.not_finite}
        broken = self._processes.all_reduce_ints([int(index in own) for index in range(phase.micro_batch_count)])
        samples = [phase.samples_of(step, index) for index, is_broken in enumerate(broken) if is_broken]
        self._journal.write(
            "skipped",
            events.skipped_facts(
                step, phase, "NaN/Inf loss or gradient", consecutive=in_a_row, non_finite_samples=samples
            ),
        )
        if in_a_row >= MOST_SKIPPED_IN_A_ROW:
            named = ", ".join(f"{first} to {first + count - 1}" for first, count in samples) or "none: the gradient"
            raise UserError(
                f"NaN/Inf loss or gradient in {in_a_row} steps in a row, up to step {step} of "
                f"{self._run} (samples of phase {phase.number} with a non-finite loss: {named})",
                remedy="Start over (`fresh=True`) with a smaller `learning_rate`; the journal shows the steps before",
            )
