"""`lambert pretrain --corpus CORPUS --model NAME --batch-size B [B2] (--epochs E | --samples N) --out RUN`"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli import plan_text
from lambert.cli.processes import check_count, process_count, start_processes
from lambert.cli.recipe import RecipeOptions, check_probe_seconds
from lambert.cli.subcommand import say, say_lines, warn
from lambert.errors import PeerLost, UserError
from lambert.training.distributed.env import restart_count

if TYPE_CHECKING:
    from lambert.corpus.store import Corpus
    from lambert.training.config.trainer_options import TrainerOptions
    from lambert.training.config.training_config import TrainingConfig
    from lambert.training.distributed.process_group import ProcessGroup
    from lambert.training.step.pretraining_loss import Evaluation
    from lambert.training.train_output import TrainOutput
    from lambert.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Pretrain(RecipeOptions):
    """Pre-train a BERT in two phases. The same command again goes on from the last checkpoint."""

    corpus: Path
    """Corpus made by `lambert prepare`."""
    out: Path
    """Folder of the run; an existing run there with the same settings is gone on with."""
    fresh: bool = False
    """Start over, deleting the run that --out holds."""
    checkpoint_minutes: float = 5.0
    """Save at least this often, minutes; the end of each phase is always saved."""
    checkpoint_steps: int = 0
    """Save after every so many steps instead; 0 goes by the clock."""
    evaluation_samples: int = 1_024
    """Held-out sequences measured at each evaluation; 0 measures none."""
    evaluations_per_phase: int = 5
    """How often each phase is measured on held-out text."""
    keep_last: int = 2
    """So many of the newest checkpoints are kept."""
    keep_every: int = 0
    """Checkpoints of every so many steps are kept for good; 0 keeps none."""
    on_spike: str = "warn"
    """warn or rollback: what follows where the loss or the gradient rises far above the usual (docs/reliability.md)."""
    processes: int = 0
    """Processes on this machine that share the batch; 0 starts one for each GPU. With torchrun, leave it out."""
    threads: int = 0
    """Threads of each process; 0 takes the cores there are, in a deterministic run the number it began with, or 1."""
    deterministic: bool = False
    """End in the same bits on 1, 2, 4, … processes; takes log2(micro-batches of a process) + 1 gradients of memory."""
    reduce_dtype: str = "float32"
    """float32 or bfloat16: the number format of gradients on their way between processes."""
    shard: bool = False
    """Cut weights, gradients and moments over the processes (FSDP2), for models beyond one device (untested on GPU)."""
    timeout_minutes: float = 10.0
    """How long processes wait for one that does not answer."""
    restarts: int = 3
    """How often the processes are started again after one was killed, from the last checkpoint."""
    probe_seconds: float = 5.0
    """How long each phase's steps are timed beforehand, at most a fiftieth of them, to predict time and memory of the
    run; what they were is written beside that at the end. 0 leaves it out."""
    activation_checkpointing: str = "none"
    """none, selective or full: what the backward pass computes again to save memory; `plan` tells what each costs."""

    def run(self) -> dict[str, Any]:
        """Results: `run`, `step`, `finished`, `evaluation`, `seconds`, `resumed_from_step`."""
        for name, value in (("threads", self.threads), ("restarts", self.restarts)):
            check_count(name, value)
        if not 0 < self.timeout_minutes <= 10_000:
            raise UserError(f"{self.timeout_minutes} minutes of time-out", remedy="Give a number above 0")
        check_probe_seconds(self.probe_seconds)
        count, command = process_count(self.processes), self.as_command("pretrain")
        if count == 1:
            return pretrain(self, command=command)
        return start_processes(
            command, count, json=self.json, threads=self.threads, restarts=self.restarts, fresh=self.fresh
        )

    def trainer_options(self) -> TrainerOptions:
        """What is done beside training."""
        from lambert.training.config.trainer_options import TrainerOptions

        return TrainerOptions(
            checkpoint_seconds=60 * self.checkpoint_minutes,
            checkpoint_steps=self.checkpoint_steps,
            evaluation_samples=self.evaluation_samples,
            evaluations_per_phase=self.evaluations_per_phase,
            activation_checkpointing=self.activation_checkpointing,
            keep_last=self.keep_last,
            keep_every=self.keep_every,
            on_spike=self.on_spike,
            shards=self.shard,
        )


LEAST_GAIN = 0.1
"""Nats over word frequencies from which a model counts as having learned something from context."""


def pretrain(options: Pretrain, *, command: str) -> dict[str, Any]:
    """Plan, train, export, report; what `pretrain` and `demo` share."""
    from lambert.corpus.store import Corpus
    from lambert.training.distributed.process_group import destroy_process_group, init_process_group

    corpus = Corpus.open(options.corpus)
    processes = init_process_group(timeout_seconds=60 * options.timeout_minutes)
    try:
        outcome = _train(options, corpus, processes, command)
        destroy_process_group(processes)  # where it fails, others may hang, and leaving would wait for them
    except Exception as error:
        if processes.peers is not None and not isinstance(error, PeerLost):
            processes.peers.report(str(error) or type(error).__name__)
        raise
    if not outcome.finished and processes.is_main_process:
        again = "the same command without --fresh" if options.fresh else "the same command"
        say(f"Stopped and saved at step {outcome.step}. Give {again} to go on.")
    if outcome.finished and processes.is_main_process:
        _say_verdict(outcome.evaluation)
        _finish(options.out)
    return {
        "run": str(options.out),
        "step": outcome.step,
        "finished": outcome.finished,
        "resumed_from_step": outcome.resumed_from_step,
        "seconds": outcome.seconds,
        "evaluation": None if outcome.evaluation is None else asdict(outcome.evaluation),
        "exit_code": 0 if outcome.finished else 128 + outcome.signal,
    }


def _train(options: Pretrain, corpus: Corpus, processes: ProcessGroup, command: str) -> TrainOutput:
    from lambert.cli.live import LiveDisplay
    from lambert.planning.hardware import inspect_hardware
    from lambert.planning.memory import peak_memory_bytes, reset_peak_memory
    from lambert.planning.plan import describe_plan
    from lambert.planning.probe import forecast_run, record_outcome
    from lambert.training.checkpoint.run_dir import JOURNAL_FILE
    from lambert.training.config.resolve import check_world_size, starting_model
    from lambert.training.config.training_config import RECIPE_FILE
    from lambert.training.malloc import apply_allocator_settings
    from lambert.training.metrics.execution_info import describe_execution
    from lambert.training.trainer import Trainer

    apply_allocator_settings()
    settings = _settings(options, corpus, processes)
    check_world_size(settings, processes.world_size, shards=options.shard)
    if processes.is_main_process:
        options.say_recipe()
        say_lines(plan_text.plan_lines(describe_plan(settings, corpus)))
        _say_path(describe_execution(settings, processes, options.trainer_options()))
    forecast = None
    if options.probe_seconds and (options.fresh or not (options.out / RECIPE_FILE).exists()):
        if processes.is_main_process:
            say(plan_text.probe_line(settings, options.probe_seconds, has_corpus=True))
        forecast = forecast_run(
            settings,
            corpus,
            processes=processes,
            trainer_options=options.trainer_options(),
            budget_seconds=options.probe_seconds,
        )
        if processes.is_main_process:
            say_lines(plan_text.forecast_lines(forecast, processes.world_size))
    reset_peak_memory(processes.device)
    trainer = Trainer(
        options.out,
        settings,
        starting_model(settings, options.weights_folder, corpus),
        corpus,
        trainer_options=options.trainer_options(),
        processes=processes,
        facts=_facts(inspect_hardware(options.out).host()),
        command=command,
        fresh=options.fresh and not restart_count(),
    )
    display = LiveDisplay(options.out / JOURNAL_FILE) if processes.is_main_process else nullcontext()
    with stop_on_signals(trainer, speaks=processes.is_main_process), display:
        outcome = trainer.train()
    fault = getattr(display, "fault", None)
    if fault is not None:
        warn(f"the display failed ({fault}); the run itself is not touched by that")
    if outcome.finished and not outcome.resumed_from_step and processes.is_main_process:
        memory = peak_memory_bytes(processes.device)
        record_outcome(options.out, forecast, seconds=outcome.seconds, memory_bytes=memory)
        if forecast is not None:
            say(plan_text.outcome_line(forecast, seconds=outcome.seconds, memory_bytes=memory))
    return outcome


def _settings(options: Pretrain, corpus: Corpus, processes: ProcessGroup) -> TrainingConfig:
    """What is asked for, with what the run that is there has chosen, or else the fastest micro-batches.

    Raises:
        UserError: the run that is there has other settings.
    """
    import torch

    from lambert.planning.hardware import inspect_hardware
    from lambert.planning.micro_batches import choose_micro_batches
    from lambert.training.config.training_config import RECIPE_FILE, recorded_choices, refuse_other_config

    settings = options.settings(corpus)
    goes_on = not options.fresh and (options.out / RECIPE_FILE).exists()
    known = recorded_choices(options.out) if goes_on else None
    processes.barrier()  # until all have looked, nobody writes there
    threads = options.threads
    if options.deterministic:
        threads = threads or (known.threads if known is not None else 0) or 1
    if threads:
        torch.set_num_threads(threads)
    settings = replace(
        settings,
        deterministic=options.deterministic,
        reduce_dtype=options.reduce_dtype,
        threads=threads if options.deterministic else 0,
    )
    if options.micro_batch_size is None and known is not None:
        settings = replace(settings, micro_batch_sizes=known.micro_batch_sizes)
    if goes_on:
        refuse_other_config(options.out, settings)  # before the plan of a run that cannot be
    elif options.micro_batch_size is None:
        settings, tried = choose_micro_batches(settings, processes, inspect_hardware().memory_available_bytes)
        if processes.is_main_process:
            say_lines(plan_text.micro_batch_lines(settings, tried))
    return settings


def _say_path(path: dict[str, str]) -> None:
    """How the steps will be computed, a topic a line."""
    for topic, said in path.items():
        say(f"  {topic.replace('_', ' '):26}{said}")


def _facts(host: dict[str, Any]) -> dict[str, Any]:
    import platform

    import torch

    from lambert import __version__

    return {
        "lambert": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "host": host,
    }


def _say_verdict(evaluation: Evaluation | None) -> None:
    """What the last held-out figures mean, for a person who sees them for the first time."""
    if evaluation is None:
        return
    gain = evaluation.unigram_loss - evaluation.mlm_loss
    if gain < LEAST_GAIN:
        say(
            f"The model guesses hidden words hardly better than word frequencies do ({evaluation.mlm_loss:.3f} "
            f"against {evaluation.unigram_loss:.3f} nats): it needs more steps (more epochs, a smaller batch, shorter "
            "sequences), or to be smaller."
        )
    else:
        say(f"The model guesses hidden words {gain:.2f} nats better than word frequencies do.")


def _finish(run: Path) -> None:
    from lambert.report import write_report
    from lambert.training.checkpoint.run_dir import REPORT_FILE

    report = write_report([run], run / REPORT_FILE)
    say(f"Report: {report}")
    say(f'Model:  {run / "huggingface"} (transformers opens it; `lambert fill {run} "a [MASK] sentence"` tries it)')


AGAIN_SECONDS = 2.0
"""`torchrun` passes on a signal that the processes of its terminal have got already; only a later one is a second."""


@contextmanager
def stop_on_signals(trainer: Trainer, *, speaks: bool = True) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGUSR1 ask the run to save and stop after its step; a second one stops at once."""
    asked_at: float | None = None

    def ask(number: int, frame: object) -> None:
        nonlocal asked_at
        if asked_at is None:
            asked_at = time.monotonic()
            if speaks:
                warn("stopping after this step and saving; once more stops at once without saving")
            trainer.request_stop(number)
        elif time.monotonic() - asked_at > AGAIN_SECONDS:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
