"""`lambert glue MODEL TASK --data DIR --out DIR`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lambert.cli.squad_progress import fine_tune_progress
from lambert.cli.subcommand import Verb, say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.finetune.glue.comparison import GlueResult
    from lambert.finetune.glue.finetune import GlueSettings


@dataclass(frozen=True, kw_only=True)
class Glue(Verb):
    """Fine-tune a model on a task of GLUE and measure it with the task's own figures, over several seeds."""

    model_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")]
    """A run, or any Hugging Face BERT folder."""
    task: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]
    """sst-2, mrpc, rte, cola or sts-b."""
    data: Path
    """Folder with GLUE's train.tsv and dev.tsv of the task (of sts-b also sts-train.csv and sts-dev.csv)."""
    out: Path
    """Folder for glue.json and the predictions."""
    seeds: int = 1
    """Number of fine-tunings, with seeds 0, 1, …; figures are their mean with its 95 % confidence interval."""
    train_examples: int | None = None
    """Fine-tune on the first so many examples; all otherwise."""
    optimizer: str = "adamw"
    """adamw, lamb, lars, lans or muon."""
    learning_rate: float | None = None
    """Peak learning rate; by optimizer and width of the model otherwise, as in `lambert squad`."""
    epochs: int = 3
    """Passes over the training examples."""
    batch_size: int = 32
    """Examples in a step."""
    micro_batch_size: int = 32
    """Examples that go through the model at once."""
    sequence_length: int = 128
    """Longest sequence in tokens."""
    precision: str = "auto"
    """auto, float32 or bfloat16-autocast. bfloat16 is untested on GPU."""
    random_weights: bool = False
    """Take only size and vocabulary from the model and start from random weights: the baseline of a pre-training."""

    def run(self) -> dict[str, Any]:
        """Results: the contents of glue.json."""
        from lambert.finetune.glue.comparison import fine_tune_and_score, result_fields, write_result
        from lambert.finetune.glue.metric import check_installed
        from lambert.finetune.glue.tasks import find_task, read_part
        from lambert.training.distributed.process_group import join_processes

        check_installed()
        task = find_task(self.task)
        for name, value in (("seeds", self.seeds), ("train examples", self.train_examples or 1)):
            if value < 1:
                raise UserError(f"{value} {name}", remedy="Give a whole number from 1")
        processes = join_processes()
        if processes.count > 1:
            raise UserError(f"glue was started in {processes.count} processes", remedy="Start it in one")
        settings = self._settings()
        train = read_part(self.data, task, "train")[: self.train_examples]
        dev = read_part(self.data, task, "dev")
        try:
            self.out.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
        except OSError as error:
            raise UserError(
                f"{self.out} cannot be written to ({error.strerror})", remedy="Choose another --out"
            ) from None

        def finished(so_far: GlueResult) -> None:
            write_result(so_far, task, self.out)
            one = so_far.seeds[-1]
            say(f"seed {one.seed}: {_told(one.figures)}  ({one.seconds:.0f} s)")

        with fine_tune_progress() as progress:
            result = fine_tune_and_score(
                self.model_folder,
                task,
                train,
                dev,
                settings,
                seeds=range(self.seeds),
                device=processes.device,
                random_weights=self.random_weights,
                progress=progress,
                finished=finished,
            )
        _say_result(result, self.out)
        return result_fields(result)

    def _settings(self) -> GlueSettings:
        from lambert.finetune.glue.finetune import GlueSettings
        from lambert.finetune.squad.settings import default_learning_rate
        from lambert.model.huggingface import model_folder, read_config
        from lambert.planning.hardware import inspect_hardware
        from lambert.training.config.precision import resolve_precision
        from lambert.training.optimizer import check_optimizer

        check_optimizer(self.optimizer)
        rate = self.learning_rate
        if rate is None:
            rate = default_learning_rate(self.optimizer, read_config(model_folder(self.model_folder)).hidden_size)
        return GlueSettings(
            learning_rate=rate,
            optimizer=self.optimizer,
            epochs=self.epochs,
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            sequence_length=self.sequence_length,
            precision=resolve_precision(self.precision, bfloat16_gains=inspect_hardware().bfloat16_gains),
        )


def _say_result(result: GlueResult, out: Path) -> None:
    say(f"{result.task}: {_told(result.figures)}; always the commonest answer: {_told(result.commonest)}")
    if result.score_interval is not None:
        low, high = result.score_interval
        share = f"{100 * result.confidence:.0f} %"
        say(f"score {result.score:.2f}, {share} confidence {low:.2f} to {high:.2f} over {len(result.seeds)} seeds")
    say(f"{result.train_examples:,} examples to learn, {result.dev_examples:,} to measure on; {out / 'glue.json'}")


def _told(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.2f}" for name, value in figures.items())
