"""The two-phase run: alone decides when to log, evaluate, save and stop. It draws nothing; it writes the journal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lambert.corpus.store import Corpus
from lambert.corpus.watch import Watch, watched
from lambert.data.dataloader import PretrainingBatch, SampleStream
from lambert.errors import Interrupted, UserError
from lambert.model.heads import BertForPreTraining
from lambert.runlog.writer import Journal
from lambert.training.checkpoint.async_writer import Saver
from lambert.training.checkpoint.export import export_finished
from lambert.training.checkpoint.resume import agreed_checkpoint
from lambert.training.checkpoint.run_dir import (
    JOURNAL_FILE,
    open_run_folder,
    skipped_steps,
    write_skipped_steps,
)
from lambert.training.config.phase import Part, dropout_seed, parts_of, training_stream
from lambert.training.config.resolve import check_processes
from lambert.training.config.trainer_options import Housekeeping
from lambert.training.config.training_config import RunSettings, write_recipe
from lambert.training.distributed.process_group import Processes
from lambert.training.metrics import events
from lambert.training.metrics.spike_detector import refuse_more_rollbacks
from lambert.training.metrics.step_logger import Notes
from lambert.training.metrics.throughput import Pace
from lambert.training.step.evaluation import HeldOut
from lambert.training.step.pretraining_loss import Evaluation, pretraining_task
from lambert.training.step.train_state import TrainingState
from lambert.training.step.train_step import OutOfMemory, StepResult, train_step
from lambert.training.train_output import Outcome

_PAUSE_SECONDS = 1.0
"""Between two looks at a disk that is full."""
_LOOK_SECONDS = 0.01
"""Between two looks at a checkpoint that is awaited."""


class Trainer:
    """One run in one folder.

    Args:
        run: the run's folder; made if need be.
        settings: what the run is decided by; must name `corpus` by its fingerprint.
        model: starting weights; moved to the processes' device.
        facts: of the machine and the call, for the journal's first event and for checkpoints.
        command: what was typed, for `recipe.toml`.
        fresh: start over, deleting what an earlier run left in the folder.

    Raises:
        UserError: the processes cannot share the micro-batches of a global batch.
    """

    def __init__(
        self,
        run: Path,
        settings: RunSettings,
        model: BertForPreTraining,
        corpus: Corpus,
        *,
        housekeeping: Housekeeping | None = None,
        processes: Processes | None = None,
        facts: Mapping[str, Any] | None = None,
        command: str = "",
        fresh: bool = False,
    ) -> None:
        assert settings.corpus_fingerprint == corpus.fingerprint
        self._parts = parts_of(settings)
        self.processes = processes or Processes()
        self.housekeeping = housekeeping or Housekeeping()
        check_processes(settings, self.processes.count, shards=self.housekeeping.shards)
        self.run = run
        self.settings = settings
        self.corpus = corpus
        self.facts = dict(facts or {})
        self.command = command
        self.fresh = fresh
        self.state = TrainingState(model, settings, self.processes, shards=self.housekeeping.shards)
        model.encoder.checkpoint_activations(self.housekeeping.activation_checkpointing)
        self.evaluation: Evaluation | None = None
        self._held_out = HeldOut(corpus, self.settings.examples, samples=self.housekeeping.evaluation_samples)
        self._saver = Saver(run, self.housekeeping)
        self._rolls_back = self.housekeeping.on_spike == "rollback"
        self._skips: set[int] = set()
        self._asked = self._stops = 0
        self._watch = Watch()
        self._pace = Pace(settings.model, settings.precision, self.processes)

    def request_stop(self, signal: int = 1) -> None:
        """Ask the run to save and stop after the step in progress; `signal` is told in the outcome."""
        self._asked = signal

    def train(self) -> Outcome:
        """Run from the newest whole checkpoint, or from the start, to the end of the last phase.

        Raises:
            UserError: the folder holds another run or only damaged checkpoints, the corpus is damaged or changed, or
                too many steps in a row were no numbers.
            Interrupted: a checkpoint could not be written; the one before it is whole.
        """
        lock = open_run_folder(
            self.run, self.settings, self.corpus, self.processes, command=self.command, fresh=self.fresh
        )
        try:
            with watched(self.corpus, active=self.processes.is_first) as self._watch:
                return self._train()
        finally:
            self._saver.close()
            if lock is not None:
                lock.release()

    def _train(self) -> Outcome:
        with Journal(self.run / JOURNAL_FILE, silent=not self.processes.is_first) as self._journal:
            self._notes = Notes(self.run, self.state, self.processes, self._pace, self._journal, self.housekeeping)
            self._skips = skipped_steps(self.run)
            resumed = self._restore()
            began = self._saved_at = time.monotonic()
            self._journal.write("run", self._run_facts(resumed))
            if self._rolls_back and not self.state.step:
                self._save()  # a way back for the first steps
            self._agree()
            place = self._next_phase()
            while place is not None:
                self._run_phase(place)
                place = self._next_phase()
            self._settle()
            return self._end(resumed, time.monotonic() - began)

    def _next_phase(self) -> int | None:
        """The first phase with steps to do; a rollback may lead back into the one before."""
        return next((place for place, part in enumerate(self._parts) if self._is_open(part)), None)

    def _run_phase(self, place: int) -> None:
        """The steps that are left of a phase, until a rollback leads out of it or somebody asks to stop."""
        part = self._parts[place]
        self._journal.write("phase", part.facts())
        stream = training_stream(self.corpus, self.settings, part)
        while self._is_open(part) and self.state.step >= part.first_step - 1:
            if self.state.step + 1 in self._skips:
                self.state.step += 1
                self._journal.write("skipped", events.skipped_facts(self.state.step, part, "rolled back"))
            elif self._is_spiked(place, stream):
                self._roll_back()
                continue
            if part.is_due(self.state.step, self.housekeeping.trust_ratios_per_phase):
                self._notes.note_layers()
            if part.is_due(self.state.step, self.housekeeping.evaluations_per_phase):
                self._evaluate(part)
            if self._must_save(part, is_time=self._agree()):
                self._save()
            self._note_saved()

    def _is_spiked(self, place: int, stream: SampleStream) -> bool:
        """Do the next step; returns whether to roll back over it."""
        while True:
            part, began = self._parts[place], time.monotonic()
            if self.state.step == part.first_step - 1:
                self._notes.health.begin_phase()
            try:
                result, batches = self._step(part, stream)
                break
            except OutOfMemory as problem:
                self._halve(place, str(problem))
        left = sum(other.token_slots_left(self.state.step) for other in self._parts)
        return self._notes.note_step(part, result, batches, time.monotonic() - began, left) and self._rolls_back

    def _restore(self) -> int:
        """Go on from the newest whole checkpoint, if there is one; returns its step, 0 without."""
        saved, problems = agreed_checkpoint(self.run, self.settings, self.processes)
        if problems:
            self._journal.write("damaged", {"step": 0 if saved is None else saved.step, "problems": problems})
        if saved is None:
            return 0
        self.state.restore(saved)
        self._notes.restore(saved.facts)
        return saved.step

    def _roll_back(self) -> None:
        """Return to the newest checkpoint, to leave the step that has just been done out on the way back.

        Raises:
            UserError: that was done too often.
        """
        spiked = self.state.step
        refuse_more_rollbacks(self.run, len(self._skips), spiked)
        self._settle()
        self._skips.add(spiked)
        if self.processes.is_first:
            write_skipped_steps(self.run, self._skips)
        self._restore()
        self._journal.write("rollback", {"step": spiked, "to_step": self.state.step})

    def _is_open(self, part: Part) -> bool:
        """There is a step of this part to do, and nobody has asked to stop."""
        return self.state.step < part.last_step and not self._stops

    def _step(self, part: Part, stream: SampleStream) -> tuple[StepResult, list[PretrainingBatch]]:
        """The next step, and this process's micro-batches of it: a pure function of the step's number."""
        state, step = self.state, self.state.step + 1
        places = self.processes.share(part.micro_batch_count)
        with self._pace.meter.part("data"):
            batches = [stream.batch(*part.samples_of(step, place)) for place in places]
        result = train_step(
            state.model,
            state.optimizer,
            batches,
            task=pretraining_task,
            learning_rate=part.learning_rate(step),
            clip_norm=self.settings.clip_norm or None,
            dropout_seeds=[dropout_seed(self.settings.seed, step, place) for place in places],
            precision=self.settings.precision,
            processes=self.processes,
            master=state.master,
            gradients=state.gradients,
            meter=self._pace.meter,
            measures_first=self._notes.noise.is_due(part, step),
        )
        state.step = step
        return result, batches

    def _halve(self, place: int, problem: str) -> None:
        """Halves the micro-batches of a phase whose memory did not suffice; the global batch stays what it is.

        Raises:
            UserError: they are of one sequence already, or the run is deterministic.
        """
        part = self._parts[place]
        size = part.micro_batch_size // 2
        if not size or self.settings.deterministic:
            what = "one sequence" if not size else f"a micro-batch of {part.micro_batch_size} sequences"
            raise UserError(
                f"{what} of {part.phase.sequence_length} tokens does not fit into memory: {problem}",
                remedy="Choose a smaller --model or shorter --sequence-lengths, or --activation-checkpointing full"
                + (
                    "; a deterministic run cannot change its --micro-batch-size, start over with a smaller one"
                    * bool(size)
                ),
            )
        self._parts[place] = replace(part, micro_batch_size=size)
        sizes = tuple(other.micro_batch_size for other in self._parts)
        self.settings = replace(self.settings, micro_batch_sizes=sizes)
        if self.processes.is_first:
            write_recipe(self.run, self.settings, command=self.command)
        facts = {"step": self.state.step, "phase": part.number, "micro_batch_size": size, "reason": problem}
        self._journal.write("micro_batch", facts)

    def _agree(self) -> bool:
        """After every step, one small sum: whether anybody asks to stop, whether a save has failed or the disk is full,
        for which all wait, and whether it is time to save, which is returned.

        Raises:
            Interrupted: a checkpoint could not be written.
        """
        first, saver = self.processes.is_first, self._saver
        is_time = first and time.monotonic() - self._saved_at >= self.housekeeping.checkpoint_seconds
        while True:
            asked = self._asked or int(self._watch.problem is not None)
            flags = [asked, first and saver.problem is not None, first and bool(saver.waits_for_space), is_time]
            self._stops, failed, is_full, must_save = self.processes.greatest([int(flag) for flag in flags])
            if failed:
                raise saver.problem or Interrupted("the first process could not save", remedy="See its message")
            if not is_full or self._stops:
                return must_save > 0
            time.sleep(_PAUSE_SECONDS)

    def _must_save(self, part: Part, is_time: bool) -> bool:
        """Whether to save after this step; the first process's clock counts for all."""
        step, every = self.state.step, self.housekeeping.checkpoint_steps
        is_due = step % every == 0 if every else is_time
        return is_due or self._stops > 0 or step == part.last_step

    def _save(self) -> None:
        """Begin to write a checkpoint; training goes on meanwhile."""
        self._settle()
        self._saved_at = time.monotonic()
        versions = {name: self.facts.get(name) for name in ("lambert", "torch")}
        facts = {"versions": versions, "recipe": self.settings.as_tables(), **self._notes.facts()}
        checkpoint = self.state.checkpoint(facts)
        if checkpoint is not None:
            self._saver.start(checkpoint)

    def _settle(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
            Interrupted: it could not be.
        """
        while self.processes.greatest([int(self.processes.is_first and self._saver.is_busy)])[0]:
            if self._asked:
                self._saver.give_up_waiting()
            time.sleep(_LOOK_SECONDS)
        self._note_saved()
        self._agree()

    def _note_saved(self) -> None:
        """Write down that a checkpoint has been written, if one has."""
        saved = self._saver.finished()
        if saved is not None:
            self._journal.write("checkpoint", events.checkpoint_facts(self.run, saved))

    def _evaluate(self, part: Part) -> None:
        """Measure on held-out text. Every process does, so that none runs ahead."""
        figures = self._held_out.measure(self.state.model, part.phase.sequence_length, self.settings.precision)
        if figures is not None:
            self.evaluation = figures
            self._journal.write("evaluation", {"step": self.state.step, **asdict(figures)})

    def _end(self, resumed: int, seconds: float) -> Outcome:
        finished = self.state.step == self.settings.total_steps
        if finished and (self.processes.is_first or self.housekeeping.shards):
            model = self.state.exportable_model()
            if self.processes.is_first:
                export_finished(self.run, model, self.corpus.tokenizer())
        reason = "finished" if finished else "interrupted"
        self._journal.write("end", {"step": self.state.step, "reason": reason, "seconds": seconds})
        return Outcome(self.state.step, finished, resumed, self.evaluation, seconds, 0 if finished else self._stops)

    def _run_facts(self, resumed: int) -> dict[str, Any]:
        return {
            **self.facts,
            **events.run_facts(self.settings, self.corpus, self.processes, self.housekeeping),
            "parameters": sum(parameter.numel() for parameter in self.state.model.parameters()),
            "product_flops_per_second": self._pace.peak,
            "resumed_from_step": resumed,
        }
