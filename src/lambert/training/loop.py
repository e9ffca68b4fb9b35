"""The training loop: decides when to log, evaluate, save and stop. It prints nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lambert.corpus.store import Corpus
from lambert.corpus.watch import Watch, watched
from lambert.data.dataloader import SampleStream
from lambert.errors import Interrupted
from lambert.model.heads import PreTrainingModel
from lambert.runlog.schema import JOURNAL_FILE
from lambert.runlog.writer import Journal
from lambert.training.callbacks import Callback, EventLog
from lambert.training.checkpoint.async_writer import AsyncCheckpointWriter
from lambert.training.checkpoint.export import export_finished
from lambert.training.checkpoint.resume import agreed_checkpoint
from lambert.training.checkpoint.run_dir import open_run_folder, skipped_steps, write_skipped_steps
from lambert.training.config.phase import Phase, phases_of, training_stream
from lambert.training.config.resolve import check_world_size
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig, write_recipe
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.metrics import events
from lambert.training.metrics.spike_detector import refuse_more_rollbacks
from lambert.training.metrics.step_logger import StepLogger
from lambert.training.metrics.throughput import ThroughputTracker
from lambert.training.step.evaluation import Validator
from lambert.training.step.launcher import LaunchedSteps, StepLauncher
from lambert.training.step.pretraining_loss import Evaluation
from lambert.training.step.train_state import TrainState
from lambert.training.step.train_step import OutOfMemory
from lambert.training.train_output import StepMetrics, TrainOutput

_PAUSE_SECONDS = 1.0
"""Polling interval while the disk is full."""
_LOOK_SECONDS = 0.01
"""Polling interval while a checkpoint is being written."""


class TrainingLoop:
    """One run in one folder.

    Args:
        run: the run folder; created if missing.
        settings: the resolved configuration, with the fingerprint of `corpus`.
        model: initial weights; moved to the rank's device.
        callbacks: called after every journal event.
        facts: about the machine and the call, for the journal's `run` event and for checkpoints.
        command: the command line, for `recipe.toml`.
        fresh: start from scratch and delete an earlier run in the folder.

    Raises:
        UserError: the micro-batches of a global batch cannot be partitioned over the ranks.
    """

    def __init__(
        self,
        run: Path,
        settings: TrainingConfig,
        model: PreTrainingModel,
        corpus: Corpus,
        *,
        trainer_options: TrainerOptions | None = None,
        processes: ProcessGroup | None = None,
        callbacks: Sequence[Callback] = (),
        facts: Mapping[str, Any] | None = None,
        command: str = "",
        fresh: bool = False,
    ) -> None:
        assert settings.corpus_fingerprint == corpus.fingerprint
        self._phases = phases_of(settings)
        self.processes = processes or ProcessGroup()
        self.trainer_options = trainer_options or TrainerOptions()
        check_world_size(settings, self.processes.world_size, shards=self.trainer_options.shard)
        self.run, self.settings, self.corpus = run, settings, corpus
        self.facts, self.command, self.fresh = dict(facts or {}), command, fresh
        self.callbacks = tuple(callbacks)
        self.output: TrainOutput | None = None
        self.state = TrainState(model, settings, self.processes, shards=self.trainer_options.shard)
        model.encoder.checkpoint_activations(self.trainer_options.activation_checkpointing)
        self.evaluation: Evaluation | None = None
        self.first_evaluation: Evaluation | None = None
        self._validator = Validator(corpus, self.settings.examples, samples=self.trainer_options.evaluation_samples)
        self._checkpoint_writer = AsyncCheckpointWriter(run, self.trainer_options)
        self._rolls_back = self.trainer_options.on_spike == "rollback"
        self._skips: set[int] = set()
        self._asked = self._stops = 0
        self._watch = Watch()
        self._throughput = ThroughputTracker(settings.model, settings.precision, self.processes)
        workers = self.trainer_options.data_workers
        self._launcher = StepLauncher(self.state, settings, self.processes, self._throughput.timer, workers=workers)

    def request_stop(self, signal: int = 1) -> None:
        """Ask the run to save and stop after the step in progress; `signal` is reported in `output`."""
        self._asked = signal

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    @property
    def model(self) -> PreTrainingModel:
        """The model in training, on this rank's device."""
        return self.state.model

    def train(self) -> TrainOutput:
        """Run to the end. Raises the same errors as iterating."""
        for _ in self:
            pass
        assert self.output is not None
        return self.output

    def __iter__(self) -> Iterator[StepMetrics]:
        """Train from the newest complete checkpoint, or from scratch, to the end of the last phase; yields each step.

        A step is yielded after its logging, evaluation and checkpoint, if due; on a GPU the next one may run by then.
        Leaving the loop early stops the run like `request_stop`: it saves a checkpoint, and the same call resumes it.

        Raises:
            UserError: the folder holds another run or only damaged checkpoints, the corpus is damaged or changed, or
                too many NaN/Inf steps in a row.
            Interrupted: no checkpoint could be written, or memory ran out; the last checkpoint is complete.
        """
        lock = open_run_folder(
            self.run, self.settings, self.corpus, self.processes, command=self.command, fresh=self.fresh
        )
        try:
            watch = watched(self.corpus, active=self.processes.is_first_on_host, reader=self.processes.name)
            with self._checkpoint_writer.memory_reported(), watch as self._watch:
                self._checkpoint_writer.checks = (self._watch.check, *([] if lock is None else [lock.check]))
                yield from self._train()
        finally:
            self._launcher.close()
            self._checkpoint_writer.close()
            if lock is not None:
                lock.release()

    def _train(self) -> Iterator[StepMetrics]:
        with Journal(self.run / JOURNAL_FILE, silent=not self.processes.is_main_process) as journal:
            self._journal = EventLog(journal, self, self.callbacks)
            options = self.trainer_options
            logger = StepLogger(
                self.run, self._phases, self.state, self.processes, self._throughput, self._journal, options
            )
            self._step_logger = logger
            reads_late = self.processes.device.type == "cuda" and not self._rolls_back
            self._launched = LaunchedSteps(int(reads_late), logger.log_step)
            self._skips = set(self.processes.from_main(lambda: sorted(skipped_steps(self.run))))
            resumed = self._restore()
            began = self._saved_at = time.monotonic()
            facts = events.run_facts(self.settings, self.corpus, self.processes, options)
            parameters = sum(parameter.numel() for parameter in self.state.model.parameters())
            own = {"peak_matmul_flops_per_second": self._throughput.peak, "resumed_from_step": resumed}
            self._journal.write("run", {**self.facts, **facts, "parameters": parameters, **own})
            self.state.model.reconfigure(self.settings.model_at(self.state.step))
            if self.settings.initial_weights and not self.state.step:
                self._evaluate(self._phases[0])  # what the initial weights know of this text
                self.first_evaluation = self.evaluation
            if (self._rolls_back or options.keep_every) and not self.state.step:
                self._save()  # to roll the first steps back, and as the first of those that are kept
            self._sync_control_flags()
            try:
                while (index := self._next_phase()) is not None:
                    yield from self._run_phase(index)
            except GeneratorExit:  # the caller left its loop: stop
                self.request_stop()
                self._sync_control_flags()
                self._save()
                self._end(resumed, time.monotonic() - began)
                raise
            self._end(resumed, time.monotonic() - began)

    def _next_phase(self) -> int | None:
        """Index of the first unfinished phase; a rollback may return to an earlier one."""
        return next((index for index, phase in enumerate(self._phases) if self._is_open(phase)), None)

    def _run_phase(self, index: int) -> Iterator[StepMetrics]:
        """Run the remaining steps of a phase, until a rollback leaves it or a stop is requested."""
        phase = self._phases[index]
        self.state.model.reconfigure(self.settings.model_at(phase.first_step))
        self._journal.write("phase", phase.facts())
        on_gpu = self.processes.device.type == "cuda"
        stream = training_stream(self.corpus, self.settings, phase, fixed_shapes=on_gpu)
        options = self.trainer_options
        needs_weights = (options.trust_ratios_per_phase, options.evaluations_per_phase, 1)
        while self._is_open(phase) and self.state.step >= phase.first_step - 1:
            if self.state.step + 1 in self._skips:
                self.state.step += 1
                self._journal.write("skipped", events.skipped_facts(self.state.step, phase, "rolled back"))
            else:
                self._launch(index, stream)
                all_of_them = phase.is_due(self.state.step, *needs_weights)
                if self._launched.read(all_of_them=all_of_them) and self._rolls_back:
                    self._roll_back()
                    continue
            if phase.is_due(self.state.step, options.trust_ratios_per_phase):
                self._step_logger.log_layers()
            if phase.is_due(self.state.step, options.evaluations_per_phase):
                self._evaluate(phase)
            if self._must_save(phase, is_time=self._sync_control_flags()):
                self._save()
            self._note_saved()
            yield from self._launched.take()

    def _launch(self, index: int, stream: SampleStream) -> None:
        """Launch the next step, with smaller micro-batches if it runs out of memory."""
        while True:
            phase, step = self._phases[index], self.state.step + 1
            if step == phase.first_step:
                self._step_logger.spike_detector.begin_phase()
            try:
                measures_first = self._step_logger.noise.is_due(phase, step)
                return self._launched.add(self._launcher.launch(phase, stream, measures_first=measures_first))
            except OutOfMemory as problem:
                self._launched.read()
                self._halve(index, str(problem))

    def _restore(self) -> int:
        """Resume from the newest complete checkpoint; returns its step, or 0 without a checkpoint."""
        saved, problems = agreed_checkpoint(self.run, self.settings, self.processes)
        if problems:
            self._journal.write("damaged", {"step": 0 if saved is None else saved.step, "problems": problems})
        if saved is None:
            return 0
        self.state.restore(saved)
        self._step_logger.load_state_dict(saved.facts)
        return saved.step

    def _roll_back(self) -> None:
        """Return to the newest checkpoint, and mark the last step to be skipped.

        Raises:
            UserError: too many rollbacks.
        """
        spiked = self.state.step
        self._launched.logged.clear()
        refuse_more_rollbacks(self.run, len(self._skips), spiked)
        self._wait_for_checkpoint()
        self._skips.add(spiked)
        self.processes.from_main(lambda: write_skipped_steps(self.run, self._skips))
        self._restore()
        self._journal.write("rollback", {"step": spiked, "to_step": self.state.step})

    def _is_open(self, phase: Phase) -> bool:
        """Whether the phase has steps left and no stop is requested."""
        return self.state.step < phase.last_step and not self._stops

    def _halve(self, index: int, problem: str) -> None:
        """Halve the micro-batches of a phase that ran out of memory; the global batch keeps its size."""
        self._phases[index] = phase = self._phases[index].halved(problem, deterministic=self.settings.deterministic)
        sizes = tuple(other.micro_batch_size for other in self._phases)
        self.settings = replace(self.settings, micro_batch_sizes=sizes)
        self.processes.from_main(lambda: write_recipe(self.run, self.settings, command=self.command))
        facts = {"phase": phase.number, "micro_batch_size": phase.micro_batch_size, "reason": problem}
        self._journal.write("micro_batch", {"step": self.state.step, **facts})

    def _sync_control_flags(self) -> bool:
        """All-reduce the control flags after every step: stop requested, save failed, disk full (all ranks then wait),
        and time to save, which is returned.

        Raises:
            Interrupted: a checkpoint could not be written.
        """
        writer = self._checkpoint_writer
        is_time = time.monotonic() - self._saved_at >= 60 * self.trainer_options.checkpoint_minutes
        while True:
            problem = writer.problem or self._watch.problem
            stopped = 0 if problem is None else 1 + self.processes.rank
            flags = [self._asked, bool(writer.waits_for_space), is_time and self.processes.is_main_process, stopped]
            self._stops, is_full, must_save, failed = self.processes.all_reduce_max([int(flag) for flag in flags])
            if failed:
                raise problem or Interrupted(f"process {failed - 1} could not go on", remedy="See its message")
            if not is_full or self._stops:
                return must_save > 0
            time.sleep(_PAUSE_SECONDS)

    def _must_save(self, phase: Phase, is_time: bool) -> bool:
        """Whether to save after this step; the clock of rank 0 decides."""
        step, every = self.state.step, self.trainer_options.checkpoint_steps
        kept = self.trainer_options.keep_every
        is_due = step % every == 0 if every else is_time
        return is_due or bool(kept and step % kept == 0) or self._stops > 0 or step == phase.last_step

    def _save(self) -> None:
        """Start writing a checkpoint; training continues meanwhile."""
        self._launched.read()
        self._wait_for_checkpoint()
        self._saved_at = time.monotonic()
        facts = events.saved_facts(self.facts, self.command, self.settings)
        checkpoint = self.state.checkpoint({**facts, **self._step_logger.state_dict()})
        if checkpoint is not None:
            self._checkpoint_writer.start(checkpoint)

    def _wait_for_checkpoint(self) -> None:
        """Wait until the pending checkpoint is written, and every machine has verified what it read of the corpus.

        Raises:
            Interrupted: it could not be written.
        """
        writer, watch = self._checkpoint_writer, self._watch
        others = not self.processes.is_main_process  # rank 0's writer waits for its own comparison
        while self.processes.all_reduce_max([writer.is_busy or (others and not watch.verified.is_set())])[0]:
            if self._asked:
                writer.give_up_waiting()
            time.sleep(_LOOK_SECONDS)
        self._note_saved()
        self._watch.look()
        self._sync_control_flags()

    def _note_saved(self) -> None:
        """Log a checkpoint once it is complete."""
        if (saved := self._checkpoint_writer.finished()) is not None:
            self._journal.write("checkpoint", events.checkpoint_facts(self.run, saved))

    def _evaluate(self, phase: Phase) -> None:
        """Evaluate on the validation set, on every rank, so that none runs ahead."""
        length = phase.config.sequence_length
        with self.state.averaged():
            evaluation = self._validator.measure(self.state.model, length, self.settings.precision)
        if evaluation is not None:
            self.evaluation = evaluation
            self._journal.write("evaluation", {"step": self.state.step, **asdict(evaluation)})

    def _end(self, resumed: int, seconds: float) -> None:
        """Finish the last checkpoint, export a finished model, and set `output`."""
        self._wait_for_checkpoint()
        finished = self.state.step == self.settings.total_steps
        if finished and (self.processes.is_main_process or self.trainer_options.shard):
            model = self.state.exportable_model()
            if self.processes.is_main_process:
                export_finished(self.run, model, self.corpus.tokenizer())
        reason = "finished" if finished else "interrupted"
        self._journal.write("end", {"step": self.state.step, "reason": reason, "seconds": seconds})
        signal = 0 if finished else self._stops
        self.output = TrainOutput(self.run, self.state.step, finished, resumed, self.evaluation, seconds, signal)
