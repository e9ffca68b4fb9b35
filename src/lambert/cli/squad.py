"""`lambert squad MODEL --train FILE --dev FILE --out DIR` and `lambert squad --score PREDICTIONS --dev FILE`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from lambert.cli.squad_progress import fine_tune_progress
from lambert.cli.subcommand import Verb, say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.finetune.squad.data import QuestionFile
    from lambert.finetune.squad.metric import Part, Score
    from lambert.finetune.squad.results import SquadResult
    from lambert.finetune.squad.settings import FineTuneSettings
    from lambert.finetune.squad.tuning import Tuning

OFFICIAL = "official"
OFFICIAL_V2 = "official-v2.0"
KEPT = "kept"


@dataclass(frozen=True, kw_only=True)
class Squad(Verb):
    """Fine-tune a model on SQuAD v1.1 or v2.0 and measure exact match and F1; or only score a predictions file."""

    model_folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")] = None
    """A run, or any Hugging Face BERT folder. Left out with --score."""
    dev: str = OFFICIAL
    """Questions to measure on: a JSON file of v1.1 or v2.0 (told from the file), also compressed; `official` fetches
    dev-v1.1.json, `official-v2.0` dev-v2.0.json."""
    train: str = OFFICIAL
    """Questions to fine-tune on, likewise; `official` fetches the training file of the version of --dev."""
    out: Path | None = None
    """Folder for squad.json, predictions.json and the finished seeds, which the same command does not do again."""
    fresh: bool = False
    """Do every seed again."""
    score: Path | None = None
    """Predictions file (question id → answer) to score in place of a model."""
    null_odds: Path | None = None
    """With --score and v2.0: odds or probabilities of no answer (question id → number), for the best threshold."""
    null_threshold: float | None = None
    """v2.0: answer nothing where the odds of no answer are above this. 0 otherwise; with --null-odds 1, as in the
    official script. Changing it costs no training."""
    seeds: int = 1
    """Number of fine-tunings, with seeds 0, 1, …; figures are their mean with its 95 % confidence interval."""
    train_questions: int | None = None
    """Fine-tune on a random sample of so many questions, the same for every seed and model; all otherwise."""
    dev_questions: int | None = None
    """Measure on the first so many questions; all otherwise."""
    optimizer: str = "adamw"
    """adamw, lamb, lars, lans or muon."""
    learning_rate: float | None = None
    """Peak learning rate; by optimizer and width of the model otherwise."""
    learning_rates: tuple[float, ...] = ()
    """Peaks to choose from: each is tried with the first seed on a tenth of the training questions that is held out for
    that (whole articles), never on --dev; the best then trains all seeds on all training questions."""
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
        """Results: `exact_match` and `f1` (0–100), counts; with a model also `seeds`, intervals and deviations."""
        return self._score() if self.score is not None else self._fine_tune()

    def _score(self) -> dict[str, Any]:
        from lambert.finetune.squad.metric_v2 import SCRIPT_THRESHOLD
        from lambert.finetune.squad.prediction_files import score_file

        assert self.score is not None
        if self.model_folder is not None:
            raise UserError("both a model and --score", remedy="Give one of them")
        if self.null_threshold is not None and self.null_odds is None:
            raise UserError("--null-threshold without --null-odds", remedy="Give the odds that it is a threshold of")
        threshold = SCRIPT_THRESHOLD if self.null_threshold is None else self.null_threshold
        asked = _read(self.dev, "dev", "1.1")
        result = score_file(self.score, asked, null_odds=self.null_odds, threshold=threshold)
        _say_score(result)
        return asdict(result) | {
            "version": asked.version, "missing": len(result.missing), "unknown": len(result.unknown),
        }  # fmt: skip

    def _fine_tune(self) -> dict[str, Any]:
        from lambert.finetune.cache import KeptOutcomes
        from lambert.finetune.squad.comparison import fine_tune_and_evaluate
        from lambert.finetune.squad.data import select_questions
        from lambert.finetune.squad.results import result_fields, write_result
        from lambert.model.huggingface import model_folder, read_config
        from lambert.training.distributed.process_group import join_processes
        from lambert.training.malloc import apply_allocator_settings

        if self.model_folder is None or self.out is None:
            raise UserError("no model or no --out", remedy="Give both, or --score PREDICTIONS")
        if self.null_odds is not None:
            raise UserError("--null-odds without --score", remedy="Give predictions, or leave the odds to the model")
        out = self.out
        processes = join_processes()
        apply_allocator_settings()
        if processes.count > 1:
            raise UserError(f"squad was started in {processes.count} processes", remedy="Start it in one")
        read_config(model_folder(self.model_folder))  # before the questions are read and anything is written
        if self.seeds < 1:
            raise UserError(f"{self.seeds} seeds", remedy="Give a whole number from 1")
        settings = self._settings()
        dev_file = _read(self.dev, "dev", "1.1")
        train_file = _read(self.train, "train", dev_file.version)
        train = select_questions(train_file.questions, self.train_questions, sample_seed=0)
        dev = select_questions(dev_file.questions, self.dev_questions)
        try:
            out.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
        except OSError as error:
            raise UserError(f"{out} cannot be written to ({error.strerror})", remedy="Choose another --out") from None
        if self.fresh:
            KeptOutcomes(out / KEPT).forget()

        def finished(so_far: SquadResult) -> None:
            write_result(so_far, out)
            _say_seed(so_far, out)

        with fine_tune_progress() as progress:
            result = fine_tune_and_evaluate(
                self.model_folder,
                train,
                dev,
                settings,
                seeds=range(self.seeds),
                version=dev_file.version,
                learning_rates=self.learning_rates,
                keep=out / KEPT,
                device=processes.device,
                random_weights=self.random_weights,
                progress=progress,
                tuned=_say_tuning,
                finished=finished,
            )
        _say_result(result, out)
        return result_fields(result)

    def _settings(self) -> FineTuneSettings:
        from lambert.finetune.squad.features import WindowShape
        from lambert.finetune.squad.settings import FineTuneSettings
        from lambert.planning.hardware import inspect_hardware
        from lambert.training.config.precision import resolve_precision

        return FineTuneSettings(
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            shape=WindowShape(sequence_length=self.sequence_length),
            precision=resolve_precision(self.precision, bfloat16_gains=inspect_hardware().bfloat16_gains),
            null_threshold=0.0 if self.null_threshold is None else self.null_threshold,
        )


def _read(named: str, part: Literal["train", "dev"], version: str) -> QuestionFile:
    """The questions of a file, or of the official one: that of `version`, unless its name says which."""
    from lambert.finetune.squad.data import read_questions
    from lambert.finetune.squad.official import official_file

    path = Path(named)
    if named == OFFICIAL_V2 or (named == OFFICIAL and version == "2.0"):
        path = official_file("train-v2.0" if part == "train" else "dev-v2.0")
    elif named == OFFICIAL:
        path = official_file(part)
    read = read_questions(path)
    if read.moved_answers:
        say(
            f"{read.moved_answers:,} answers of {read.path} were not at their answer_start and were moved to "
            "the nearest place where they stand"
        )
    return read


def _say_score(result: Score) -> None:
    say(f"exact match {result.exact_match:.2f}  F1 {result.f1:.2f}  over {result.questions:,} questions")
    _say_parts(result.has_answer, result.no_answer)
    if result.best is not None:
        best = result.best
        say(
            f"best with any threshold: exact match {best.exact_match:.2f} at {best.exact_match_threshold:g}, F1 "
            f"{best.f1:.2f} at {best.f1_threshold:g} (chosen on these very questions)"
        )
    if result.missing:
        say(f"{len(result.missing):,} questions have no prediction and count 0, such as {result.missing[0]}")
    if result.unknown:
        say(f"{len(result.unknown):,} predictions are for unknown questions, such as {result.unknown[0]}")


def _say_parts(has_answer: Part | None, no_answer: Part | None) -> None:
    for name, part in (("with an answer", has_answer), ("without", no_answer)):
        if part is not None:
            say(f"  {name}: exact match {part.exact_match:.2f}  F1 {part.f1:.2f}  over {part.questions:,} questions")


def _say_tuning(tuning: Tuning) -> None:
    say(f"learning rates, seed {tuning.seed}, measured on {tuning.held_out} that are held out for that:")
    for trial in tuning.trials:
        figures = trial.problem or f"exact match {trial.exact_match:.2f}  F1 {trial.f1:.2f}"
        say(f"  {trial.learning_rate:g}: {figures}")
    rates = [trial.learning_rate for trial in tuning.trials]
    at_end = len(rates) > 1 and tuning.learning_rate in (min(rates), max(rates))
    say(f"  chosen: {tuning.learning_rate:g}" + (", at an end of the list: try rates beyond it" if at_end else ""))


def _say_seed(so_far: SquadResult, out: Path) -> None:
    """The seed just done; whatever ends the command now loses at most the next one."""
    one = so_far.seeds[-1]
    where = "done before" if one.reused else f"{one.seconds:.0f} s, kept in {out / KEPT}"
    say(f"seed {one.seed}: exact match {one.exact_match:.2f}  F1 {one.f1:.2f}  ({where})")


def _say_result(result: SquadResult, out: Path) -> None:
    for name, mean, interval in (
        ("exact match", result.exact_match, result.exact_match_interval),
        ("F1", result.f1, result.f1_interval),
    ):
        between = ""
        if interval is not None:
            share = f"{100 * result.confidence:.0f} %"
            between = f", {share} confidence {interval[0]:.2f} to {interval[1]:.2f} over {len(result.seeds)} seeds"
        say(f"{name} {mean:.2f}{between}")
    _say_parts(result.has_answer, result.no_answer)
    if result.best_f1 is not None:
        best = f"exact match {result.best_exact_match:.2f}  F1 {result.best_f1:.2f}"
        say(f"best with any threshold: {best} (chosen on these very questions)")
    say(f"SQuAD v{result.version}, learning rate {result.learning_rate:g}; {out / 'squad.json'}")
