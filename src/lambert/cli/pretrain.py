"""`lambert pretrain --corpus CORPUS --model NAME --batch-size B [B2] (--epochs E | --samples N) --out RUN`"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.processes import check_count, process_count, start_processes
from lambert.cli.subcommand import Subcommand
from lambert.cli.track import check_wandb_mode
from lambert.training.config.arguments import NOT_RECORDED, TrainingArguments

if TYPE_CHECKING:
    from lambert.api.trackers import TrackerCallback
    from lambert.training.train_output import TrainOutput


@dataclass(frozen=True, kw_only=True)
class Pretrain(TrainingArguments, Subcommand):
    """Pre-train a BERT in two phases. The same command again resumes from the last checkpoint."""

    corpus: Path
    """Corpus made by `lambert prepare`."""
    out: Path
    """Folder of the run; an existing run there with the same settings is resumed."""
    processes: int = 0
    """Ranks on this machine; 0 starts one for each GPU. Leave it out with torchrun."""
    restarts: int = 3
    """Times to restart all processes from the last checkpoint if one is killed."""
    tensorboard: Path | None = field(default=None, metadata=NOT_RECORDED)
    """TensorBoard's folder; each run has a subfolder (docs/tracking.md; `pip install 'lambert-bert[tensorboard]'`)."""
    wandb: str | None = field(default=None, metadata=NOT_RECORDED)
    """W&B project (`pip install 'lambert-bert[wandb]'`)."""
    wandb_mode: str | None = field(default=None, metadata=NOT_RECORDED)
    """online, offline or disabled. The default is WANDB_MODE, else offline, which needs no account."""
    mlflow: str | None = field(default=None, metadata=NOT_RECORDED)
    """Folder or tracking URI of MLflow (`pip install 'lambert-bert[mlflow]'`)."""

    def run(self) -> dict[str, Any]:
        """Results: `run`, `step`, `finished`, `evaluation`, `seconds`, `resumed_from_step`."""
        check_count("restarts", self.restarts)
        check_wandb_mode(self.wandb, self.wandb_mode)
        count = process_count(self.processes)
        if count > 1:
            command = self.as_command("pretrain")
            return start_processes(
                command, count, json=self.json, threads=self.threads, restarts=self.restarts, fresh=self.fresh
            )
        from lambert.api.training import pretrain

        return results_of(pretrain(self.corpus, out=self.out, arguments=self, callbacks=self._trackers()))

    def _trackers(self) -> list[TrackerCallback]:
        from lambert.api.trackers import MLflowCallback, TensorBoardCallback, WandbCallback

        return [
            *([] if self.tensorboard is None else [TensorBoardCallback(self.tensorboard)]),
            *([] if self.wandb is None else [WandbCallback(self.wandb, mode=self.wandb_mode)]),
            *([] if self.mlflow is None else [MLflowCallback(self.mlflow)]),
        ]


def results_of(output: TrainOutput) -> dict[str, Any]:
    """The results of a run for `--json`."""
    return {
        "run": str(output.out),
        "step": output.step,
        "finished": output.finished,
        "resumed_from_step": output.resumed_from_step,
        "seconds": output.seconds,
        "evaluation": None if output.evaluation is None else asdict(output.evaluation),
        "exit_code": 0 if output.finished else 128 + output.signal,
    }
