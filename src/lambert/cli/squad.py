"""`lambert squad MODEL --train FILE --dev FILE --out DIR` and `lambert squad --score PREDICTIONS --dev FILE`"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lambert.cli.verb import Verb, say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.squad.comparison import SquadResult
    from lambert.squad.settings import FineTuneProgress

_SECONDS_BETWEEN_LINES = 20.0
OFFICIAL = "official"


@dataclass(frozen=True, kw_only=True)
class Squad(Verb):
    """Fine-tune a model on SQuAD v1.1 and measure exact match and F1; or only score a predictions file."""

    model_folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")] = None
    """A run, or any Hugging Face BERT folder. Left out with --score."""
    dev: str = OFFICIAL
    """Questions to measure on: a v1.1 JSON file, also compressed; `official` fetches dev-v1.1.json."""
    train: str = OFFICIAL
    """Questions to fine-tune on, likewise; `official` fetches train-v1.1.json."""
    out: Path | None = None
    """Folder for squad.json and predictions.json."""
    score: Path | None = None
    """Predictions file (question id → answer) to score in place of a model."""
    seeds: int = 1
    """Number of fine-tunings, with seeds 0, 1, …; figures are their mean and standard deviation."""
    train_questions: int | None = None
    """Fine-tune on a random sample of so many questions, the same for every seed and model; all otherwise."""
    dev_questions: int | None = None
    """Measure on the first so many questions; all otherwise."""
    optimizer: str = "adamw"
    """adamw, lamb, lars or lans."""
    learning_rate: float | None = None
    """Peak learning rate; by optimizer and width of the model otherwise."""
    epochs: int = 2
    """Passes over the training windows."""
    batch_size: int = 32
    """Windows in a step."""
    micro_batch_size: int = 8
    """Windows that go through the model at once."""
    sequence_length: int = 384
    """Tokens in a window of question and context."""
    precision: str = "auto"
    """auto, float32 or bfloat16-autocast. bfloat16 is untested on GPU."""
    random_weights: bool = False
    """Take only size and vocabulary from the model and start from random weights: the baseline of a pre-training."""

    def run(self) -> dict[str, Any]:
        """Results: `exact_match` and `f1` (0–100), counts; with a model also `seeds` and standard deviations."""
        return self._score() if self.score is not None else self._fine_tune()

    def _score(self) -> dict[str, Any]:
        from lambert.squad.data import read_questions
        from lambert.squad.metric import score_file

        assert self.score is not None
        if self.model_folder is not None:
            raise UserError("both a model and --score", remedy="Give one of them")
        result = score_file(self.score, read_questions(_file(self.dev, "dev")).questions)
        say(f"exact match {result.exact_match:.2f}  F1 {result.f1:.2f}  over {result.questions:,} questions")
        if result.missing:
            say(f"{len(result.missing):,} questions have no prediction and count 0, such as {result.missing[0]}")
        if result.unknown:
            say(f"{len(result.unknown):,} predictions are for unknown questions, such as {result.unknown[0]}")
        return {
            "exact_match": result.exact_match,
            "f1": result.f1,
            "questions": result.questions,
            "missing": len(result.missing),
            "unknown": len(result.unknown),
        }

    def _fine_tune(self) -> dict[str, Any]:
        from lambert.model.huggingface import model_folder, read_config
        from lambert.planning.hardware import inspect_hardware
        from lambert.squad.comparison import fine_tune_and_evaluate, result_fields
        from lambert.squad.data import read_questions, select_questions
        from lambert.squad.features import WindowShape
        from lambert.squad.settings import FineTuneSettings
        from lambert.training.allocator import apply_allocator_settings
        from lambert.training.parallel import join_processes
        from lambert.training.precision import resolve_precision

        if self.model_folder is None or self.out is None:
            raise UserError("no model or no --out", remedy="Give both, or --score PREDICTIONS")
        out = self.out
        processes = join_processes()
        apply_allocator_settings()
        if processes.count > 1:
            raise UserError(f"squad was started in {processes.count} processes", remedy="Start it in one")
        read_config(model_folder(self.model_folder))  # before the questions are read and anything is written
        if self.seeds < 1:
            raise UserError(f"{self.seeds} seeds", remedy="Give a whole number from 1")
        settings = FineTuneSettings(
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            shape=WindowShape(sequence_length=self.sequence_length),
            precision=resolve_precision(self.precision, bfloat16_gains=inspect_hardware().bfloat16_gains),
        )
        train_file = read_questions(_file(self.train, "train"))
        dev_file = read_questions(_file(self.dev, "dev"))
        for read in (train_file, dev_file):
            if read.moved_answers:
                say(
                    f"{read.moved_answers:,} answers of {read.path} were not at their answer_start and were moved to "
                    "the nearest place where they stand"
                )
        train = select_questions(train_file.questions, self.train_questions, sample_seed=0)
        dev = select_questions(dev_file.questions, self.dev_questions)
        try:
            self.out.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
        except OSError as error:
            raise UserError(
                f"{self.out} cannot be written to ({error.strerror})", remedy="Choose another --out"
            ) from None
        result = fine_tune_and_evaluate(
            self.model_folder,
            train,
            dev,
            settings,
            seeds=range(self.seeds),
            device=processes.device,
            random_weights=self.random_weights,
            progress=_lines(),
            finished=lambda so_far: _keep(so_far, out),
        )
        spread = "" if result.f1_deviation is None else f" ± {result.f1_deviation:.2f} (standard deviation)"
        say(f"exact match {result.exact_match:.2f}  F1 {result.f1:.2f}{spread}; {self.out / 'squad.json'}")
        return result_fields(result)


def _keep(so_far: SquadResult, out: Path) -> None:
    """Write the seeds done so far, so that whatever ends the command loses at most one of them."""
    from lambert.squad.comparison import write_result

    write_result(so_far, out)
    one = so_far.seeds[-1]
    say(
        f"seed {one.seed}: exact match {one.exact_match:.2f}  F1 {one.f1:.2f}  ({one.seconds:.0f} s, kept in "
        f"{out / 'squad.json'})"
    )


def _file(named: str, part: str) -> Path:
    from lambert.squad.official import official_file

    if named != OFFICIAL:
        return Path(named)
    return official_file("train" if part == "train" else "dev")


def _lines() -> Any:
    """A progress callback that writes a line now and then on standard error."""
    last = time.monotonic()

    def show(progress: FineTuneProgress) -> None:
        nonlocal last
        if time.monotonic() - last < _SECONDS_BETWEEN_LINES and progress.done < progress.total:
            return
        last = time.monotonic()
        loss = "" if progress.loss is None else f", loss {progress.loss:.3f}"
        unit = "steps" if progress.stage == "training" else "windows"
        print(
            f"seed {progress.seed}, {progress.stage}: {progress.done:,} of {progress.total:,} {unit}{loss}",
            file=sys.stderr,
            flush=True,
        )

    return show
