"""`lambert squad MODEL --train FILE --dev FILE --out DIR` and `lambert squad --score PREDICTIONS --dev FILE`"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lambert.cli.finetune_progress import fine_tune_progress
from lambert.cli.subcommand import Subcommand, say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.finetune.squad.metric import SubsetScore


@dataclass(frozen=True, kw_only=True)
class Squad(Subcommand):
    """Fine-tune a model on SQuAD v1.1 or v2.0 and measure exact match and F1; or only score a predictions file. Writes
    the metrics over seeds, a page with the errors, and the model."""

    model_folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")] = None
    """A run, or any Hugging Face BERT folder. Left out with --score."""
    dev: str = "official"
    """Questions to measure on: a JSON file of v1.1 or v2.0 (detected), also compressed; `official` downloads
    dev-v1.1.json, `official-v2.0` dev-v2.0.json."""
    train: str = "official"
    """Questions to fine-tune on, likewise; `official` downloads the training file of the version of --dev."""
    out: Path | None = None
    """Folder for squad.json, report.html, predictions.json, the model and the finished seeds, which the same command
    does not repeat."""
    fresh: bool = False
    """Repeat every seed."""
    score: Path | None = None
    """Predictions file (question id → answer) to score in place of a model."""
    null_odds: Path | None = None
    """With --score and v2.0: odds or probabilities of no answer (question id → number), to find the best threshold."""
    null_threshold: float | None = None
    """v2.0: predict no answer where the null odds are above this. 0 otherwise; with --null-odds 1, as in the official
    script. Changing it needs no training."""
    seeds: int = 1
    """Number of fine-tunings, with seeds 0, 1, …; results are means with their 95 % confidence interval."""
    train_questions: int | None = None
    """Fine-tune on a random sample of so many questions, the same for every seed and model; all otherwise."""
    dev_questions: int | None = None
    """Measure on the first so many questions; all otherwise."""
    optimizer: str = "adamw"
    """adamw, or another of `pretrain`: lamb, lamb+adamw, lars, lans, muon, …"""
    learning_rate: float | None = None
    """Peak learning rate; otherwise from optimizer and width of the model."""
    learning_rates: tuple[float, ...] = ()
    """Peaks to choose from: the first seed tries each and measures it on a tenth of the training questions (whole
    articles), held out for that; never on --dev. The best one then trains all seeds on all training questions."""
    epochs: int = 2
    """Epochs over the training windows."""
    batch_size: int = 32
    """Windows in a step."""
    micro_batch_size: int = 8
    """Windows in a forward pass; the last one of a step may have fewer."""
    sequence_length: int = 384
    """Tokens in a window of question and context."""
    question_length: int = 0
    """Longest question in tokens; a longer one is truncated. 0 takes 64, or half of what a shorter window holds."""
    precision: str = "auto"
    """auto, float32 or bfloat16-autocast. bfloat16 is untested on GPU."""
    cased: bool = False
    """Read a model folder that has only a vocab.txt, and does not say, as cased."""
    random_weights: bool = False
    """Take only size and vocabulary from the model and start from random weights: the baseline of a pre-training."""

    def run(self) -> dict[str, Any]:
        """Results: `exact_match` and `f1` (0–100), counts; with a model also `seeds`, intervals and deviations."""
        return self._score() if self.score is not None else self._fine_tune()

    def check(self) -> None:
        """Raises UserError where an option of a fine-tuning is out of range; reads no file."""
        from lambert.finetune.squad.api import check_arguments
        from lambert.finetune.squad.settings import SquadSettings

        names = {field.name for field in fields(SquadSettings)} & vars(self).keys() - {"null_threshold"}
        given = {name: getattr(self, name) for name in names} | {"null_threshold": self.null_threshold or 0.0}
        check_arguments(self.seeds, self.learning_rates, (self.train_questions, self.dev_questions), None, given)

    def _score(self) -> dict[str, Any]:
        from lambert.finetune.squad.metric import OFFICIAL_THRESHOLD
        from lambert.finetune.squad.official import find_questions
        from lambert.finetune.squad.prediction_files import score_file

        assert self.score is not None
        if self.model_folder is not None:
            raise UserError("both a model and --score", remedy="Leave out MODEL_FOLDER or --score")
        if self.null_threshold is not None and self.null_odds is None:
            raise UserError(
                "--null-threshold without --null-odds", remedy="Give --null-odds FILE, or leave out --null-threshold"
            )
        threshold = OFFICIAL_THRESHOLD if self.null_threshold is None else self.null_threshold
        asked = find_questions(self.dev, "dev", "1.1")
        result = score_file(self.score, asked, null_odds=self.null_odds, threshold=threshold)
        say(f"exact match {result.exact_match:.2f}  F1 {result.f1:.2f}  over {result.questions:,} questions")
        _say_subsets(result.has_answer, result.no_answer)
        if result.best is not None:
            best = result.best
            say(
                f"best with any threshold: exact match {best.exact_match:.2f} at {best.exact_match_threshold:g}, F1 "
                f"{best.f1:.2f} at {best.f1_threshold:g} (tuned on these very questions)"
            )
        if result.missing:
            say(f"{len(result.missing):,} questions have no prediction and count 0, such as {result.missing[0]}")
        if result.unknown:
            say(f"{len(result.unknown):,} predictions are for unknown questions, such as {result.unknown[0]}")
        counts = {"missing": len(result.missing), "unknown": len(result.unknown)}
        return asdict(result) | {"version": asked.version} | counts

    def _fine_tune(self) -> dict[str, Any]:
        from lambert.finetune.squad.api import finetune_squad
        from lambert.report import write_squad_page

        if self.model_folder is None:
            raise UserError("no model", remedy="Give MODEL_FOLDER, or --score PREDICTIONS")
        if self.out is None:
            raise UserError("no --out", remedy="Give --out DIR, for results and predictions")
        if self.null_odds is not None:
            raise UserError("--null-odds without --score", remedy="Leave out --null-odds: the model has its own")
        left_out = ("json", "model_folder", "score", "null_odds", "null_threshold")
        arguments = {name: value for name, value in vars(self).items() if name not in left_out}
        with fine_tune_progress() as progress:
            result = finetune_squad(
                self.model_folder, progress=progress, null_threshold=self.null_threshold or 0.0, **arguments
            )
        for name, mean, interval in (
            ("exact match", result.exact_match, result.exact_match_interval),
            ("F1", result.f1, result.f1_interval),
        ):
            between = ""
            if interval is not None:
                confidence = f"{100 * result.confidence:.0f} % confidence interval"
                between = f", {confidence} {interval[0]:.2f} to {interval[1]:.2f} over {len(result.seeds)} seeds"
            say(f"{name} {mean:.2f}{between}")
        _say_subsets(result.has_answer, result.no_answer)
        if result.best_f1 is not None:
            best = f"exact match {result.best_exact_match:.2f}  F1 {result.best_f1:.2f}"
            say(f"best with any threshold: {best} (tuned on these very questions)")
        facts = result.to_dict()
        page = write_squad_page(facts, self.out / "report.html")
        say(f"SQuAD v{result.version}, learning rate {result.settings.learning_rate:g}")
        say(f"Metrics: {self.out / 'squad.json'}; kinds of questions and errors: {page}")
        say(f'Model: transformers.AutoModelForQuestionAnswering.from_pretrained("{result.model}")')
        return facts


def _say_subsets(has_answer: SubsetScore | None, no_answer: SubsetScore | None) -> None:
    for name, one in (("with an answer", has_answer), ("without", no_answer)):
        if one is not None:
            say(f"  {name}: exact match {one.exact_match:.2f}  F1 {one.f1:.2f}  over {one.questions:,} questions")
