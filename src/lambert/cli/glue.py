"""`lambert glue MODEL TASK --data DIR --out DIR`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lambert.cli.finetune import say_metrics
from lambert.cli.finetune_progress import fine_tune_progress
from lambert.cli.subcommand import Subcommand, say, say_lines
from lambert.utils.formatting import text_table


@dataclass(frozen=True, kw_only=True)
class Glue(Subcommand):
    """Fine-tune a model on a task of GLUE and measure it with the task's own metrics, over several seeds."""

    model_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")]
    """A run, or any Hugging Face BERT folder."""
    task: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]
    """sst-2, mrpc, rte, cola, sts-b, qqp, mnli, mnli-mm, qnli or wnli."""
    data: Path
    """Folder with GLUE's train.tsv and dev.tsv of the task (of sts-b also sts-train.csv and sts-dev.csv; of
    mnli dev_matched.tsv and dev_mismatched.tsv)."""
    out: Path
    """Folder for glue.json, the predictions and the finished seeds, which the same command does not repeat."""
    fresh: bool = False
    """Repeat every seed."""
    seeds: int = 1
    """Number of fine-tunings, with seeds 0, 1, …; results are means with their 95 % confidence interval."""
    train_examples: int | None = None
    """Fine-tune on the first so many examples; all otherwise."""
    optimizer: str = "adamw"
    """adamw, or another of `pretrain`: lamb, lamb+adamw, lars, lans, muon, …"""
    learning_rate: float | None = None
    """Peak learning rate; otherwise from optimizer and width of the model, as in `lambert squad`."""
    epochs: int = 3
    """Epochs over the training examples."""
    batch_size: int = 32
    """Examples in a step."""
    micro_batch_size: int = 32
    """Examples in a forward pass; the last one of a step may have fewer."""
    sequence_length: int = 128
    """Longest sequence in tokens."""
    precision: str = "auto"
    """auto, float32 or bfloat16-autocast. bfloat16 is untested on GPU."""
    cased: bool = False
    """Read a model folder that has only a vocab.txt, and does not say, as cased."""
    random_weights: bool = False
    """Take only size and vocabulary from the model and start from random weights: the baseline of a pre-training."""

    def run(self) -> dict[str, Any]:
        """Results: the contents of glue.json."""
        from lambert.finetune.glue.api import finetune_glue
        from lambert.report import write_finetune_page

        arguments = {name: value for name, value in vars(self).items() if name not in ("json", "model_folder", "task")}
        with fine_tune_progress() as progress:
            result = finetune_glue(self.model_folder, self.task, progress=progress, **arguments)
        say_metrics(result)
        facts = result.to_dict()
        _say_published(facts)
        page = write_finetune_page(facts, self.out / "report.html")
        say(f"Metrics: {self.out / 'glue.json'}; errors and confusion: {page}")
        return facts


def _say_published(facts: dict[str, Any]) -> None:
    """This model beside published ones on the development set, then those that were measured on the test set; last
    the sources, by number."""
    from lambert.report.published import SPLITS, own_rows, published_rows

    names, sources = [*facts["metrics"]], list(dict.fromkeys(one["source"] for one in facts["published"]))
    for split, title in SPLITS.items():
        rows = published_rows(facts["published"], names, split)
        if rows:
            say()
            numbered = [[*row[:-1], f"[{sources.index(row[-1]) + 1}]"] for row in rows]
            head = [f"{facts['task']}, {title}", *names, "figures", ""]
            say_lines(text_table([head, *(own_rows(facts) if split == "dev" else ()), *numbered], texts={-2, -1}))
    say()
    say_lines(f"[{number}] {source}" for number, source in enumerate(sources, start=1))
