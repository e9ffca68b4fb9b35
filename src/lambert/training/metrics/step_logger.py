"""What is made of a step that has been done: its events in the journal, and whether it was a healthy one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lambert.data.dataloader import PretrainingBatch
from lambert.errors import UserError
from lambert.runlog.writer import Journal
from lambert.training.config.phase import Part
from lambert.training.config.trainer_options import Housekeeping
from lambert.training.distributed.process_group import Processes
from lambert.training.metrics import events
from lambert.training.metrics.gradient_noise import NoiseScale
from lambert.training.metrics.spike_detector import MOST_SKIPPED_IN_A_ROW, Health
from lambert.training.metrics.throughput import Pace
from lambert.training.step.train_state import TrainingState
from lambert.training.step.train_step import StepResult


class Notes:
    """Writes the events of steps and keeps watch over the run's health and the noise of its gradients."""

    def __init__(
        self, run: Path, state: TrainingState, processes: Processes, pace: Pace, journal: Journal, beside: Housekeeping
    ) -> None:
        self._run, self._state, self._processes, self._pace = run, state, processes, pace
        self._journal = journal
        self._layer_figures: dict[str, float] = {}
        self.health = Health()
        self.noise = NoiseScale(beside.noise_measurements_per_phase)

    def facts(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {"health": self.health.facts(), "noise": self.noise.facts()}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Go on from what `facts` returned; checkpoints of before there was one know nothing of noise."""
        self.health.restore(facts["health"])
        if "noise" in facts:
            self.noise.restore(facts["noise"])

    def note_step(
        self, part: Part, result: StepResult, batches: Sequence[PretrainingBatch], seconds: float, slots_left: int
    ) -> bool:
        """Write down the step that has just been done; returns whether its loss or gradient is a spike.

        Args:
            batches: this process's.
            slots_left: token slots that the run has still to do.

        Raises:
            UserError: too many steps in a row were no numbers.
        """
        step = self._state.step
        pace = self._pace.figures(part, batches, seconds, slots_left)
        self._journal.write("step", {**events.step_facts(step, part, result), **pace})
        if not result.was_taken:
            self._broken(part, result)
            return False
        noise = self.noise.look(part, step, result)
        if noise is not None:
            self._journal.write("noise", noise)
        spikes = self.health.look(result.loss, result.gradient_norm)
        if spikes:
            now = self._state.layer_figures()
            self._journal.write("spike", events.spike_facts(step, part, spikes, self._layer_figures, now))
        return bool(spikes)

    def note_layers(self) -> None:
        """Write the trust ratios of all layers down."""
        self._layer_figures = self._state.layer_figures()
        ratios = self._state.trust_ratios()
        if ratios:
            self._journal.write("trust_ratios", {"step": self._state.step, "trust_ratios": ratios})

    def _broken(self, part: Part, result: StepResult) -> None:
        """A loss or a gradient was no number: nothing was changed; data and schedule go on.

        Raises:
            UserError: too many times in a row.
        """
        step = self._state.step
        self.health.skipped_in_a_row += 1
        in_a_row = self.health.skipped_in_a_row
        places = self._processes.share(part.micro_batch_count)
        own = {places[number] for number in result.not_finite}
        broken = self._processes.sum_integers([int(place in own) for place in range(part.micro_batch_count)])
        samples = [part.samples_of(step, place) for place, is_broken in enumerate(broken) if is_broken]
        self._journal.write(
            "skipped",
            events.skipped_facts(
                step, part, "the loss or its gradient is no number", in_a_row=in_a_row, samples_without_a_loss=samples
            ),
        )
        if in_a_row >= MOST_SKIPPED_IN_A_ROW:
            named = ", ".join(f"{first} to {first + count - 1}" for first, count in samples) or "none: the gradient"
            raise UserError(
                f"the loss or its gradient was no number in {in_a_row} steps in a row, up to step {step} of "
                f"{self._run} (samples of phase {part.number} whose loss is none: {named})",
                remedy="Start over (--fresh) with a smaller --learning-rate; the journal shows the steps before",
            )
