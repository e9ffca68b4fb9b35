"""The two-phase run: alone decides when to log, evaluate, save and stop. It draws nothing; it writes the journal."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from lambert.batches.loader import PretrainingBatch, SampleStream, example_source
from lambert.corpus.store import Corpus
from lambert.corpus.vocabulary import save_tokenizer
from lambert.corpus.watch import Watch, watched
from lambert.errors import UserError
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import save_model
from lambert.training.held_out import HeldOut
from lambert.training.housekeeping import Housekeeping
from lambert.training.journal import Journal
from lambert.training.pace import Pace
from lambert.training.parallel import Processes
from lambert.training.part import Part, dropout_seed, parts_of
from lambert.training.path import describe_path
from lambert.training.run_folder import (
    JOURNAL_FILE,
    MODEL_FOLDER,
    TOKENIZER_FOLDER,
    prepare_run_folder,
)
from lambert.training.settings import RunSettings, write_recipe
from lambert.training.state import TrainingState
from lambert.training.step import OutOfMemory, StepResult, train_step
from lambert.training.tasks import Evaluation, pretraining_task


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    """Steps done in all."""
    finished: bool
    """False when it was asked to stop before its last step."""
    resumed_from_step: int
    """0 when it was new."""
    evaluation: Evaluation | None
    """The last one of this sitting."""
    seconds: float
    """Time this sitting took."""


class Trainer:
    """One run in one folder.

    Args:
        run: the run's folder; made if need be.
        settings: what the run is decided by; must name `corpus` by its fingerprint.
        model: starting weights; moved to the processes' device.
        facts: of the machine and the call, for the journal's first event.
        command: what was typed, for `recipe.toml`.
        fresh: start over, deleting what an earlier run left in the folder.

    Raises:
        UserError: there are more processes than micro-batches in a global batch.
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
        _check_processes(self._parts, (processes or Processes()).count)
        self.run = run
        self.settings = settings
        self.corpus = corpus
        self.housekeeping = housekeeping or Housekeeping()
        self.processes = processes or Processes()
        self.facts = dict(facts or {})
        self.command = command
        self.fresh = fresh
        self.state = TrainingState(model, settings, self.processes.device)
        model.encoder.checkpoint_activations(self.housekeeping.activation_checkpointing)
        self.evaluation: Evaluation | None = None
        self._held_out = HeldOut(corpus, self.settings.examples, samples=self.housekeeping.evaluation_samples)
        self._stop_requested = self._stops = False
        self._lock: FileLock | None = None
        self._watch = Watch()
        self._pace = Pace(settings.model, settings.precision, self.processes)

    def request_stop(self) -> None:
        """Ask the run to save and stop after the step in progress."""
        self._stop_requested = True

    def train(self) -> Outcome:
        """Run from the newest checkpoint, or from the start, to the end of the second phase.

        Raises:
            UserError: the folder holds another run or a damaged checkpoint, the corpus is damaged or changed, or the
                loss is no longer a number.
        """
        self._prepare_folder()
        try:
            with watched(self.corpus, active=self.processes.is_first) as self._watch:
                return self._train()
        finally:
            if self._lock is not None:
                self._lock.release()

    def _train(self) -> Outcome:
        resumed = self.state.restore(self.run)
        self._refuse_unequal_checkpoints()
        self._agree_to_stop()
        began = saved = time.monotonic()
        with Journal(self.run / JOURNAL_FILE, silent=not self.processes.is_first) as journal:
            journal.write("run", self._run_facts(resumed))
            for place, part in enumerate(self._parts):
                if not self._is_open(part):
                    continue
                journal.write("phase", part.facts())
                stream = self._training_stream(part)
                while self._is_open(part):
                    step_began = time.monotonic()
                    with self._pace.meter.part("data"):
                        batches = self._batches(stream, self._parts[place])
                    try:
                        result = self._step(self._parts[place], batches)
                    except OutOfMemory as problem:
                        self._halve(place, str(problem), journal)
                        continue
                    journal.write("step", self._step_facts(part, batches, result, step_began))
                    if part.is_due(self.state.step, self.housekeeping.trust_ratios_per_phase):
                        self._write_trust_ratios(journal)
                    if part.is_due(self.state.step, self.housekeeping.evaluations_per_phase):
                        self._evaluate(journal, part)
                    self._agree_to_stop()
                    if self._must_save(part, saved):
                        self._save(journal)
                        saved = time.monotonic()
            return self._end(journal, resumed, time.monotonic() - began)

    def _prepare_folder(self) -> None:
        """The first process makes the folder; when it cannot, all of them end."""
        problem: UserError | None = None
        if self.processes.is_first:
            try:
                self._lock = prepare_run_folder(self.run, self.settings, command=self.command, fresh=self.fresh)
                save_tokenizer(self.corpus.tokenizer(), self.run / TOKENIZER_FOLDER)
            except UserError as error:
                problem = error
        problems = self.processes.sum_integers([int(problem is not None)])[0]
        if problem is not None:
            raise problem
        if problems:
            raise UserError("the first process could not prepare the run folder", remedy="See its message")

    def _refuse_unequal_checkpoints(self) -> None:
        """All processes end where they read different checkpoints, as on machines without a shared folder."""
        step, count = self.state.step, self.processes.count
        total, squares = self.processes.sum_integers([step, step * step])
        if count * squares != total * total:  # the variance of the steps is not 0
            raise UserError(
                f"the {count} processes found different checkpoints in {self.run}; this one found step {step}",
                remedy="Put --out on a folder that every machine shares",
            )

    def _is_open(self, part: Part) -> bool:
        """There is a step of this part to do, and nobody has asked to stop."""
        return self.state.step < part.last_step and not self._stops

    def _training_stream(self, part: Part) -> SampleStream:
        return SampleStream(
            example_source(
                self.corpus,
                "train",
                sequence_length=part.phase.sequence_length,
                seed=self.settings.seed,
                phase=part.number,
                kind=self.settings.examples,
            ),
            packs=self.settings.packs,
        )

    def _batches(self, stream: SampleStream, part: Part) -> list[PretrainingBatch]:
        """This process's micro-batches of the next step; a pure function of the step's number."""
        places = self.processes.share(part.micro_batch_count)
        return [stream.batch(*part.samples_of(self.state.step + 1, place)) for place in places]

    def _step(self, part: Part, batches: list[PretrainingBatch]) -> StepResult:
        state = self.state
        step = state.step + 1
        places = self.processes.share(part.micro_batch_count)
        result = train_step(
            state.model,
            state.optimizer,
            batches,
            task=pretraining_task,
            learning_rate=part.learning_rate(step),
            clip_norm=self.settings.clip_norm,
            dropout_seeds=[dropout_seed(self.settings.seed, step, place) for place in places],
            precision=self.settings.precision,
            processes=self.processes,
            master=state.master,
            meter=self._pace.meter,
        )
        if not (math.isfinite(result.loss) and math.isfinite(result.gradient_norm)):
            raise UserError(
                f"the loss or its gradient is no longer a number at step {step} of {self.run}",
                remedy="Start over (--fresh) with a smaller --learning-rate; the journal shows the steps before",
            )
        state.step = step
        return result

    def _halve(self, place: int, problem: str, journal: Journal) -> None:
        """Halves the micro-batches of a phase whose memory did not suffice; the global batch stays what it is.

        Raises:
            UserError: they are of one sequence already.
        """
        part = self._parts[place]
        size = part.micro_batch_size // 2
        if not size:
            raise UserError(
                f"one sequence of {part.phase.sequence_length} tokens does not fit into memory: {problem}",
                remedy="Choose a smaller --model or shorter --sequence-lengths, or --activation-checkpointing full",
            )
        self._parts[place] = replace(part, micro_batch_size=size)
        sizes = [other.micro_batch_size for other in self._parts]
        self.settings = replace(self.settings, micro_batch_sizes=(sizes[0], sizes[1]))
        if self.processes.is_first:
            write_recipe(self.run, self.settings, command=self.command)
        facts = {"step": self.state.step, "phase": part.number, "micro_batch_size": size, "reason": problem}
        journal.write("micro_batch", facts)

    def _agree_to_stop(self) -> None:
        """All processes learn whether anybody asked to stop, so that they stop after the same step."""
        wants = self._stop_requested or self._watch.problem is not None
        self._stops = self.processes.sum_integers([int(wants)])[0] > 0

    def _must_save(self, part: Part, saved: float) -> bool:
        """Whether to save after this step; the first process's clock counts for all."""
        step, every = self.state.step, self.housekeeping.checkpoint_steps
        is_time = self.processes.is_first and time.monotonic() - saved >= self.housekeeping.checkpoint_seconds
        is_due = step % every == 0 if every else self.processes.sum_integers([int(is_time)])[0] > 0
        return is_due or self._stops or step == part.last_step

    def _save(self, journal: Journal) -> None:
        if self.processes.is_first:
            began = time.monotonic()
            path = self.state.save(self.run)
            size = sum(file.stat().st_size for file in path.iterdir())
            seconds = time.monotonic() - began
            journal.write(
                "checkpoint",
                {
                    "step": self.state.step,
                    "path": str(path.relative_to(self.run)),
                    "bytes": size,
                    "seconds": seconds,
                },
            )
        self.processes.barrier()

    def _evaluate(self, journal: Journal, part: Part) -> None:
        """Measure on held-out text. Every process does, so that none runs ahead."""
        figures = self._held_out.measure(self.state.model, part.phase.sequence_length, self.settings.precision)
        if figures is not None:
            self.evaluation = figures
            journal.write("evaluation", {"step": self.state.step, **asdict(figures)})

    def _write_trust_ratios(self, journal: Journal) -> None:
        ratios = self.state.trust_ratios()
        if ratios:
            journal.write("trust_ratios", {"step": self.state.step, "trust_ratios": ratios})

    def _end(self, journal: Journal, resumed: int, seconds: float) -> Outcome:
        finished = self.state.step == self.settings.total_steps
        if finished and self.processes.is_first:
            save_model(self.state.exportable_model(), self.run / MODEL_FOLDER)
            longest = self.settings.model.maximum_positions
            save_tokenizer(self.corpus.tokenizer(), self.run / MODEL_FOLDER, longest_sequence=longest)
        reason = "finished" if finished else "interrupted"
        journal.write("end", {"step": self.state.step, "reason": reason, "seconds": seconds})
        return Outcome(self.state.step, finished, resumed, self.evaluation, seconds)

    def _run_facts(self, resumed: int) -> dict[str, Any]:
        settings = self.settings
        return {
            **self.facts,
            "model": settings.model_name,
            "parameters": sum(parameter.numel() for parameter in self.state.model.parameters()),
            "optimizer": settings.optimizer,
            "precision": settings.precision.value,
            "path": describe_path(settings, self.processes.device, self.housekeeping.activation_checkpointing),
            "product_flops_per_second": self._pace.peak,
            "seed": settings.seed,
            "micro_batch_size": list(settings.micro_batch_sizes),
            "processes": self.processes.count,
            "total_steps": settings.total_steps,
            "corpus": {
                "path": str(self.corpus.path),
                "fingerprint": self.corpus.fingerprint,
                "tokens": self.corpus.split("train").token_count,
            },
            "resumed_from_step": resumed,
        }

    def _step_facts(
        self, part: Part, batches: list[PretrainingBatch], result: StepResult, began: float
    ) -> dict[str, Any]:
        left = sum(other.token_slots_left(self.state.step) for other in self._parts)
        return {
            "step": self.state.step,
            "phase": part.number,
            "loss": result.loss,
            "masked_word_loss": result.losses["masked_word"],
            "next_sentence_loss": result.losses.get("next_sentence"),
            "masked_word_accuracy": result.accuracies["masked_word"],
            "next_sentence_accuracy": result.accuracies.get("next_sentence"),
            "learning_rate": part.learning_rate(self.state.step),
            "gradient_norm": result.gradient_norm,
            **self._pace.figures(part, batches, time.monotonic() - began, left),
        }


def _check_processes(parts: list[Part], processes: int) -> None:
    for part in parts:
        if part.micro_batch_count < processes:
            raise UserError(
                f"{processes} processes share {part.micro_batch_count} micro-batches of phase {part.number}",
                remedy=f"Choose a --micro-batch-size that makes at least {processes}, or fewer processes",
            )
