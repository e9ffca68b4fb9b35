"""`lambert pretrain --corpus CORPUS --model NAME --batch-size B [B2] (--epochs E | --samples N) --out RUN`"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.plan import RecipeOptions, show_plan, with_fastest_micro_batches
from lambert.cli.verb import say, warn

if TYPE_CHECKING:
    from lambert.corpus.store import Corpus
    from lambert.training.housekeeping import Housekeeping
    from lambert.training.settings import RunSettings
    from lambert.training.tasks import Evaluation
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
    activation_checkpointing: str = "none"
    """none, selective or full: what the backward pass computes again to save memory; `plan` tells what each costs."""

    def run(self) -> dict[str, Any]:
        """Results: `run`, `step`, `finished`, `evaluation`, `seconds`, `resumed_from_step`."""
        return pretrain(self, command=self.as_command("pretrain"))

    def housekeeping(self) -> Housekeeping:
        """What is done beside training."""
        from lambert.training.housekeeping import Housekeeping

        return Housekeeping(
            checkpoint_seconds=60 * self.checkpoint_minutes,
            checkpoint_steps=self.checkpoint_steps,
            evaluation_samples=self.evaluation_samples,
            evaluations_per_phase=self.evaluations_per_phase,
            activation_checkpointing=self.activation_checkpointing,
        )


LEAST_GAIN = 0.1
"""Nats over word frequencies from which a model counts as having learned something from context."""


def pretrain(options: Pretrain, *, command: str) -> dict[str, Any]:
    """Plan, train, export, report; what `pretrain` and `demo` share."""
    from lambert.corpus.store import Corpus
    from lambert.planning.hardware import inspect_hardware
    from lambert.training.allocator import apply_allocator_settings
    from lambert.training.parallel import join_processes, leave_processes
    from lambert.training.path import describe_path
    from lambert.training.run_folder import JOURNAL_FILE
    from lambert.training.setup import starting_model
    from lambert.training.trainer import Trainer

    housekeeping, corpus = options.housekeeping(), Corpus.open(options.corpus)
    processes = join_processes()
    apply_allocator_settings()
    settings = _settings(options, corpus)
    if processes.is_first:
        show_plan(settings, corpus)
        _say_path(describe_path(settings, processes.device, options.activation_checkpointing))
    trainer = Trainer(
        options.out,
        settings,
        starting_model(settings, options.weights_folder, corpus),
        corpus,
        housekeeping=housekeeping,
        processes=processes,
        facts=_facts(inspect_hardware(options.out).host()),
        command=command,
        fresh=options.fresh,
    )
    from lambert.cli.live import LiveDisplay

    display = LiveDisplay(options.out / JOURNAL_FILE) if processes.is_first else nullcontext()
    try:
        with stop_on_signals(trainer), display:
            outcome = trainer.train()
    finally:
        leave_processes(processes)
    fault = getattr(display, "fault", None)
    if fault is not None:
        warn(f"the display failed ({fault}); the run itself is not touched by that")
    if not outcome.finished and processes.is_first:
        again = "the same command without --fresh" if options.fresh else "the same command"
        say(f"Stopped and saved at step {outcome.step}. Give {again} to go on.")
    if outcome.finished and processes.is_first:
        _say_verdict(outcome.evaluation)
        _finish(options.out)
    return {
        "run": str(options.out),
        "step": outcome.step,
        "finished": outcome.finished,
        "resumed_from_step": outcome.resumed_from_step,
        "seconds": outcome.seconds,
        "evaluation": None if outcome.evaluation is None else asdict(outcome.evaluation),
        "exit_code": 0 if outcome.finished else 130,
    }


def _settings(options: Pretrain, corpus: Corpus) -> RunSettings:
    """What is asked for, with the micro-batches of the run that is there, or else the fastest.

    Raises:
        UserError: the run that is there has other settings.
    """
    from lambert.training.settings import RECIPE_FILE, recorded_micro_batch_sizes, refuse_other_settings

    settings = options.settings(corpus)
    goes_on = not options.fresh and (options.out / RECIPE_FILE).exists()
    known = recorded_micro_batch_sizes(options.out) if goes_on else None
    if options.micro_batch_size is None and known is not None:
        settings = replace(settings, micro_batch_sizes=known)
    if goes_on:
        refuse_other_settings(options.out, settings)  # before the plan of a run that cannot be
    elif options.micro_batch_size is None:
        settings = with_fastest_micro_batches(settings)
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
    gain = evaluation.unigram_loss - evaluation.masked_word_loss
    if gain < LEAST_GAIN:
        say(
            f"The model guesses hidden words hardly better than word frequencies do ({evaluation.masked_word_loss:.3f} "
            f"against {evaluation.unigram_loss:.3f} nats): it needs more steps (more epochs, a smaller batch, shorter "
            "sequences), or to be smaller."
        )
    else:
        say(f"The model guesses hidden words {gain:.2f} nats better than word frequencies do.")


def _finish(run: Path) -> None:
    from lambert.report import write_report
    from lambert.training.run_folder import REPORT_FILE

    report = write_report([run], run / REPORT_FILE)
    say(f"Report: {report}")
    say(f'Model:  {run / "huggingface"} (transformers opens it; `lambert fill {run} "a [MASK] sentence"` tries it)')


@contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask the run to save and stop after its step; a second one stops at once."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        warn("stopping after this step and saving; once more stops at once without saving")
        trainer.request_stop()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
