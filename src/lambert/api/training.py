"""Pre-training from Python: from arguments and a corpus to a trained model, its report and its Hugging Face folder."""

from __future__ import annotations

import platform
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from lambert import __version__
from lambert.api.messages import log, log_lines, printed_messages, unbreakable
from lambert.api.resolution import completed, log_load, log_recipe, opened_corpus, resolve_run, starting_model
from lambert.api.trackers import closed_trackers, prepare_trackers
from lambert.corpus.store import Corpus
from lambert.errors import PeerLost
from lambert.planning import plan_text
from lambert.planning.hardware import inspect_hardware
from lambert.planning.memory import peak_memory_bytes, reset_peak_memory
from lambert.planning.plan import describe_plan
from lambert.planning.probe import RunForecast, forecast_run, record_outcome
from lambert.runlog.schema import JOURNAL_FILE, RECIPE_FILE, REPORT_FILE
from lambert.training.callbacks import Callback
from lambert.training.checkpoint.late_decay import begin_decay
from lambert.training.checkpoint.recorded_recipe import restore_recipe
from lambert.training.checkpoint.run_dir import MODEL_FOLDER
from lambert.training.config.arguments import TrainingArguments, command_line, is_open
from lambert.training.config.resolve import check_world_size
from lambert.training.config.training_config import (
    TrainingConfig,
)
from lambert.training.determinism import use_deterministic_algorithms
from lambert.training.distributed.env import restart_count
from lambert.training.distributed.process_group import ProcessGroup, destroy_process_group, init_process_group
from lambert.training.loop import TrainingLoop
from lambert.training.malloc import apply_allocator_settings
from lambert.training.metrics.execution_info import describe_execution
from lambert.training.step.pretraining_loss import Evaluation
from lambert.training.train_output import StepMetrics, TrainOutput
from lambert.utils.formatting import perplexity, shell_command
from lambert.utils.stop_signals import stop_signals

MIN_GAIN = 0.1
"""Nats below the unigram baseline from which a model counts as having learned from context."""
_SECOND_SIGNAL_SECONDS = 2.0
"""`torchrun` passes on a signal that its workers have got from the terminal already; only a later one is a second."""
_HANGUP = getattr(signal, "SIGHUP", None)
"""Windows has none."""


class Trainer(TrainingLoop):
    """A run in a folder: iterate over it to train step by step, or call `train()`::

        for step in lambert.Trainer("my-corpus", out="runs/mine", model="mini", batch_size=256, epochs=3):
            print(step.step, step.mlm_loss)

    A run that the folder holds is resumed, in the same bits on a CPU. Under `torchrun` each process makes the same
    Trainer and they share every global batch. Allocator, threads and precision are set as on the command line.

    Args:
        corpus: from `lambert.build_corpus`, or its folder.
        out: the run's folder.
        callbacks: `lambert.Callback` objects, called on the main process; `lambert.TensorBoardCallback` and others
            show the run in dashboards.
        arguments: everything else as one object; or give its fields by name (`lambert.TrainingArguments`).
        progress: show a live display while it trains.
        command: what to record as the command that resumes the run; the equal `lambert pretrain` otherwise.

    Raises:
        UserError: an argument is unknown or out of range, the corpus cannot be opened, or the folder holds another run.
    """

    def __init__(
        self,
        corpus: Corpus | str | Path,
        *,
        out: str | Path,
        callbacks: Sequence[Callback] = (),
        arguments: TrainingArguments | None = None,
        progress: bool = False,
        command: str = "",
        **options: Any,
    ) -> None:
        arguments = replace(arguments, **options) if arguments is not None else TrainingArguments.of(**options)
        corpus, out = opened_corpus(corpus), Path(out)
        group = init_process_group(timeout_seconds=60 * arguments.timeout_minutes)
        if arguments.deterministic:
            use_deterministic_algorithms(group.device)
        self._shows_progress = progress and group.is_main_process
        with _failures_reported(group):
            apply_allocator_settings()
            if group.is_main_process:
                log_load()
            group.from_main(lambda: restore_recipe(out))
            starts_over = arguments.fresh and not restart_count()
            group.from_main(lambda: prepare_trackers(callbacks, out, fresh=starts_over))
            if arguments.decay_from is None and is_open(arguments):
                arguments = completed(arguments, corpus, group, out)
            config = resolve_run(arguments, corpus, group, out)
            check_world_size(config, group.world_size, shards=arguments.shard)
            if group.is_main_process:
                if arguments.decay_from is None:
                    log_recipe(arguments)
                _log_plan(config, corpus, describe_execution(config, group, arguments))
            command = command or command_line("pretrain", arguments, corpus=corpus.path, out=out)
            if arguments.decay_from is not None:
                arguments = _begun_decay(arguments, config, group, out, command)
            is_new = arguments.fresh or not group.from_main((out / RECIPE_FILE).exists)
            self._forecast = _forecast(arguments, config, corpus, group) if is_new else None
            model, weights = starting_model(config, arguments.init_from, corpus, group)
            if group.is_main_process and is_new and arguments.init_from is not None:
                log_lines(plan_text.initial_weights_lines(weights, str(arguments.init_from)))
            super().__init__(
                out,
                config,
                model,
                corpus,
                trainer_options=arguments,
                processes=group,
                callbacks=callbacks,
                facts={
                    "lambert": __version__,
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                    "host": inspect_hardware(out).host(),
                    **({} if arguments.init_from is None else {"initial_weights": asdict(weights)}),
                },
                command=command,
                fresh=starts_over,
            )

    def __iter__(self) -> Iterator[StepMetrics]:
        """Train; yields every step (see `TrainingLoop.__iter__`). A finished run gets its report."""
        reset_peak_memory(self.processes.device)
        with _failures_reported(self.processes), closed_trackers(self.callbacks):
            with _display(self.run / JOURNAL_FILE, active=self._shows_progress):
                yield from super().__iter__()
            if self.processes.is_main_process:
                self._conclude()
            destroy_process_group(
                self.processes
            )  # where something failed, others may hang: leaving would wait for them

    def _conclude(self) -> None:
        from lambert.report import write_model_card, write_report

        output = self.output
        assert output is not None
        if not output.finished:
            again = "the same call without `fresh`" if self.fresh else "the same call"
            log.info(f"Stopped and saved at step {output.step}. Repeat {again} to resume.")
            return
        if not output.resumed_from_step:
            memory = peak_memory_bytes(self.processes.device)
            record_outcome(self.run, self._forecast, seconds=output.seconds, memory_bytes=memory)
            if self._forecast is not None:
                log.info(plan_text.outcome_line(self._forecast, seconds=output.seconds, memory_bytes=memory))
        _log_verdict(output.evaluation, self.first_evaluation)
        log.info(f"Report: {write_report([self.run], self.run / REPORT_FILE)}")
        write_model_card(self.run, self.run / MODEL_FOLDER)
        log.info(
            f"Model:  {self.run / MODEL_FOLDER} (transformers opens it; "
            f"`{shell_command('lambert', 'fill', self.run, 'a [MASK] sentence')}` tries it)"
        )


def pretrain(
    corpus: Corpus | str | Path,
    *,
    out: str | Path,
    callbacks: Sequence[Callback] = (),
    arguments: TrainingArguments | None = None,
    progress: bool = True,
    command: str = "",
    **options: Any,
) -> TrainOutput:
    """Pre-train a BERT to the end of its run, or resume it. Ctrl-C saves and stops; the same call resumes::

        run = lambert.pretrain("my-corpus", out="runs/mine", model="mini", batch_size=256, epochs=3)
        run.metrics["eval_mlm_loss"], run.metrics["eval_unigram_loss"]

    Args:
        corpus: from `lambert.build_corpus`, or its folder.
        out: the run's folder.
        callbacks: `lambert.Callback` objects, called on the main process; `lambert.TensorBoardCallback` and others
            show the run in dashboards.
        arguments: everything else as one object; or give its fields by name (`lambert.TrainingArguments`).
        progress: show the plan, the progress and the result.
        command: what to record as the command that resumes the run; the equal `lambert pretrain` otherwise.

    Raises:
        UserError: wrong arguments, another run in the folder, a damaged corpus, or ten NaN/Inf steps in a row.
        Interrupted: a checkpoint could not be written; the one before it is complete.
    """
    with unbreakable(*["stdout", "stderr"] * progress), printed_messages(active=progress):
        given: dict[str, Any] = {"callbacks": callbacks, "arguments": arguments, "command": command, **options}
        trainer = Trainer(corpus, out=out, progress=progress, **given)
        with _stop_on_signals(trainer):
            return trainer.train()


def _begun_decay(
    arguments: TrainingArguments, config: TrainingConfig, group: ProcessGroup, out: Path, command: str
) -> TrainingArguments:
    """`out` holds the checkpoint to decay from when this returns; the arguments to resume it with."""

    def begin() -> None:
        assert arguments.decay_from is not None
        step = config.total_steps - config.phases[-1].step_count
        begin_decay(out, config, arguments.decay_from, step, command=command, fresh=arguments.fresh)

    group.from_main(begin)
    return replace(arguments, fresh=False)


def _forecast(
    arguments: TrainingArguments, config: TrainingConfig, corpus: Corpus, group: ProcessGroup
) -> RunForecast | None:
    """Time real steps of a new run and predict its duration and memory; None without time for it."""
    if not arguments.probe_seconds:
        return None
    if group.is_main_process:
        log.info(plan_text.probe_line(config, arguments.probe_seconds, has_corpus=True))
    budget = arguments.probe_seconds
    forecast = forecast_run(config, corpus, processes=group, trainer_options=arguments, budget_seconds=budget)
    if group.is_main_process:
        log_lines(plan_text.forecast_lines(forecast))
    return forecast


def _log_plan(config: TrainingConfig, corpus: Corpus, execution: dict[str, str]) -> None:
    log_lines(plan_text.plan_lines(describe_plan(config, corpus)))
    log_lines(f"  {topic.replace('_', ' '):26}{text}" for topic, text in execution.items())


def _log_verdict(evaluation: Evaluation | None, before: Evaluation | None) -> None:
    """What the last evaluation means, for a person who sees one for the first time."""
    if evaluation is None:
        return
    gain = evaluation.unigram_loss - evaluation.mlm_loss
    since = "" if before is None else f", before training {before.mlm_loss:.3f}"
    losses = (
        f"Held-out MLM loss {evaluation.mlm_loss:.3f}, perplexity {perplexity(evaluation.mlm_loss)}{since} (unigram "
        f"baseline {evaluation.unigram_loss:.3f}, {perplexity(evaluation.unigram_loss)})"
    )
    if gain < MIN_GAIN:
        log.info(
            f"{losses}: the model is hardly better than the baseline. Train for more steps (more `epochs`, a smaller "
            "`batch_size`, shorter `sequence_lengths`) or use a smaller `model`."
        )
    else:
        log.info(f"{losses}: {gain:.2f} nats per [MASK] token better than the baseline.")


@contextmanager
def _failures_reported(group: ProcessGroup) -> Iterator[None]:
    """Tell the other ranks why this one fails."""
    try:
        yield
    except Exception as error:
        if group.peers is not None and not isinstance(error, PeerLost):
            group.peers.report(str(error) or type(error).__name__)
        raise


@contextmanager
def _stop_on_signals(trainer: TrainingLoop) -> Iterator[None]:
    """Signals such as SIGTERM ask the run to save and stop after its step; a second one stops at once.

    SIGHUP never counts as a second one: shell and system each send it when a terminal closes.
    """
    if threading.current_thread() is not threading.main_thread():  # Python has signal handlers there only
        yield
        return
    asked_at: float | None = None

    def ask(number: int, frame: object) -> None:
        nonlocal asked_at
        if asked_at is None:
            asked_at = time.monotonic()
            if trainer.processes.is_main_process:
                log.warning("stopping after this step and saving; once more stops at once without saving")
            trainer.request_stop(number)
        elif number != _HANGUP and time.monotonic() - asked_at > _SECOND_SIGNAL_SECONDS:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _display(journal: Path, *, active: bool) -> Iterator[None]:
    """The live display of the run."""
    from lambert.api.live import LiveDisplay

    display: AbstractContextManager[Any] = LiveDisplay(journal) if active else nullcontext()
    with display:
        yield
    fault = getattr(display, "fault", None)
    if fault is not None:
        log.warning(f"the display failed ({fault}); the run itself is not affected")
