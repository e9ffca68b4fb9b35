"""`lambert compare MODELS --data FILE --out DIR`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lambert.cli.finetune_progress import fine_tune_progress
from lambert.cli.subcommand import Subcommand, say
from lambert.utils.formatting import text_table

_OWN = ("text", "label", "task", "label_separator", "dev_fraction")
_NOT_OPTIONS = ("json", "models", "data", "glue", "tasks", "out", "seeds", "random_weights", *_OWN)


@dataclass(frozen=True, kw_only=True)
class Compare(Subcommand):
    """Fine-tune several models in the same way, over the same seeds, and compare each with the first."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODELS")]
    """Runs, Hugging Face folders of BERT or ModernBERT, or names on the Hub."""
    out: Path
    """Folder for comparison.json, report.html and the results of each fine-tuning, which the same command does not
    repeat."""
    data: tuple[str, ...] = ()
    """Files of labelled examples, as `lambert finetune` takes them."""
    glue: Path | None = None
    """Folder with GLUE's folders, such as RTE and MRPC."""
    tasks: tuple[str, ...] = ()
    """Tasks of GLUE: sst-2, mrpc, rte, cola, sts-b, qqp, mnli, mnli-mm, qnli, wnli."""
    seeds: int = 3
    """Number of fine-tunings of each model on each task, with seeds 0, 1, …"""
    random_weights: bool = False
    """Also measure the first model from random weights: what pre-training gains."""
    text: tuple[str, ...] = ()
    """Column of the texts of `--data`, or the two of a pair; otherwise found by usual names."""
    label: tuple[str, ...] = ()
    """Column of the labels of `--data`; otherwise found by usual names."""
    task: str | None = None
    """Kind of the labels of `--data`: classification, multi-label, regression or tags; otherwise as they look."""
    label_separator: str | None = None
    """Between the labels of one field of `--data`: multi-label."""
    dev_fraction: float | None = None
    """Fraction of the different texts of `--data` that is held out; otherwise a tenth."""
    train_examples: int | None = None
    """Fine-tune on so many examples; all otherwise."""
    fresh: bool = False
    """Repeat every fine-tuning."""
    optimizer: str = "adamw"
    """adamw, or another of `pretrain`: lamb, lamb+adamw, lars, lans, muon, …"""
    learning_rate: float | None = None
    """Peak learning rate; otherwise from optimizer and width of each model, as in `lambert squad`."""
    epochs: int = 3
    """Epochs over the training examples."""
    batch_size: int = 32
    """Examples in a step."""
    micro_batch_size: int = 32
    """Examples in a forward pass; the last one of a step may have fewer."""
    sequence_length: int = 128
    """Longest sequence in tokens, the same for all models."""
    cased: bool = False
    """Read model folders that have only a vocab.txt, and do not say, as cased."""
    precision: str = "auto"
    """auto, float32 or bfloat16-autocast. bfloat16 is untested on GPU."""

    def run(self) -> dict[str, Any]:
        """Results: the contents of comparison.json."""
        from lambert.finetune.comparison import RESULTS_FILE, compare_models
        from lambert.report import write_model_comparison
        from lambert.report.fine_tuning import TWO_SEEDS

        fields = {name: value for name, value in vars(self).items() if value is not None}
        own = {name: fields[name] for name in _OWN if name in fields}
        options = {name: value for name, value in fields.items() if name not in _NOT_OPTIONS}
        with fine_tune_progress() as progress:
            compared = compare_models(
                self.models,
                data=self.data,
                glue=self.glue,
                tasks=self.tasks,
                out=self.out,
                seeds=self.seeds,
                random_weights=self.random_weights,
                own=own,
                progress=progress,
                **options,
            )
        for line in text_table(compared.table()):
            say(line)
        if len(compared.seeds) == 2:
            say(TWO_SEEDS)
        facts = compared.to_dict()
        page = write_model_comparison(facts, self.out / "report.html")
        say(f"Table: {self.out / RESULTS_FILE}; page: {page}")
        return facts
