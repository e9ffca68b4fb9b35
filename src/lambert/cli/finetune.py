"""`lambert finetune MODEL FILE --out DIR`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lambert.cli.finetune_progress import fine_tune_progress
from lambert.cli.subcommand import Subcommand, say

_PIPELINES = {"tags": "token-classification"}
_NOT_OPTIONS = ("json", "model_folder", "file")


@dataclass(frozen=True, kw_only=True)
class Finetune(Subcommand):
    """Fine-tune a model on your own labelled examples: classes of texts or pairs, several labels, numbers, tags of
    words. Writes the metrics over seeds, a page with the errors, and a model that `transformers.pipeline` opens."""

    model_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")]
    """A run, or any Hugging Face folder of BERT or ModernBERT."""
    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Labelled examples: CSV, TSV, JSON lines, JSON, Parquet, CoNLL, or `hf:NAME[:CONFIG[:SPLIT]]`."""
    out: Path
    """Folder for finetune.json, report.html, the predictions, the model and the finished seeds, which the same command
    does not repeat."""
    dev: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Labelled examples to measure on; otherwise a fraction of the first file is held out, by the hash of the text."""
    dev_fraction: float | None = None
    """Fraction of the different texts that is held out; otherwise a tenth."""
    text: tuple[str, ...] = ()
    """Column of the texts, or the two of a pair; otherwise found by usual names."""
    label: tuple[str, ...] = ()
    """Column of the labels, or several that hold 0 or 1; otherwise found by usual names."""
    task: str | None = None
    """classification, multi-label, regression or tags; otherwise as the labels look."""
    label_separator: str | None = None
    """Between the labels of one field, such as "|": multi-label."""
    fresh: bool = False
    """Repeat every seed."""
    seeds: int = 1
    """Number of fine-tunings, with seeds 0, 1, …; results are means with their 95 % confidence interval."""
    train_examples: int | None = None
    """Fine-tune on so many examples; all otherwise."""
    optimizer: str = "adamw"
    """adamw, or another of `pretrain`: lamb, lamb+adamw, lars, lans, muon, …"""
    learning_rate: float | None = None
    """Peak learning rate; otherwise from optimizer and width of the model, as in `lambert squad`."""
    learning_rates: tuple[float, ...] = ()
    """Peaks to choose from, on held-out training examples."""
    epochs: int = 3
    """Epochs over the training examples."""
    batch_size: int = 32
    """Examples in a step."""
    micro_batch_size: int = 32
    """Examples in a forward pass; the last one of a step may have fewer."""
    sequence_length: int | None = None
    """Longest sequence in tokens; otherwise 512, or as many as the model has positions."""
    precision: str = "auto"
    """auto, float32 or bfloat16-autocast. bfloat16 is untested on GPU."""
    cased: bool = False
    """Read a model folder that has only a vocab.txt, and does not say, as cased."""
    random_weights: bool = False
    """Take only size and vocabulary from the model and start from random weights: the baseline of a pre-training."""

    def run(self) -> dict[str, Any]:
        """Results: the contents of finetune.json."""
        from lambert.finetune.labelled.api import RESULTS_FILE, fine_tune
        from lambert.report import write_finetune_page

        arguments = {
            name: value for name, value in vars(self).items() if name not in _NOT_OPTIONS and value is not None
        }
        with fine_tune_progress() as progress:
            result = fine_tune(self.model_folder, self.file, progress=progress, **arguments)
        say_metrics(result)
        facts = result.to_dict()
        page = write_finetune_page(facts, self.out / "report.html")
        say(f"Metrics: {self.out / RESULTS_FILE}; errors and confusion: {page}")
        say(f'Model: transformers.pipeline("{_PIPELINES.get(result.kind, "text-classification")}", "{result.model}")')
        return facts


def say_metrics(result: Any) -> None:
    """The metrics beside the baseline, and the interval of several seeds.

    Args:
        result: a `LabelledResult`.
    """
    from lambert.report.fine_tuning import TWO_SEEDS, baseline_name

    trivial = baseline_name(result.kind, result.data).replace("majority class", "majority-class baseline")
    say(f"{result.task}: {_text(result.metrics)}; {trivial}: {_text(result.majority_baseline)}")
    if result.score_interval is not None:
        low, high = result.score_interval
        confidence = f"{100 * result.confidence:.0f} % confidence interval {low:.2f} to {high:.2f}"
        say(f"score {result.score:.2f}, {confidence} over {len(result.seeds)} seeds")
        if len(result.seeds) == 2:
            say(TWO_SEEDS)
    say(f"{result.train_examples:,} training and {result.dev_examples:,} dev examples")


def _text(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.2f}" for name, value in metrics.items())
