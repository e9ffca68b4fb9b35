"""`lambert track RUN --tensorboard DIR --wandb PROJECT --mlflow URI`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lambert.cli.subcommand import Subcommand, say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.tracking.follow import Sink


@dataclass(frozen=True, kw_only=True)
class Track(Subcommand):
    """Send the metrics of a run to TensorBoard, Weights & Biases or MLflow, once or while it trains."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """A run. Nothing is written there; running the command again adds what is new."""
    tensorboard: Path | None = None
    """Folder for event files; each run gets a subfolder (`pip install 'lambert-bert[tensorboard]'`)."""
    wandb: str | None = None
    """W&B project (`pip install 'lambert-bert[wandb]'`)."""
    wandb_mode: str | None = None
    """online, offline or disabled. The default is WANDB_MODE, else offline, which needs no account."""
    mlflow: str | None = None
    """Folder or tracking URI of MLflow (`pip install 'lambert-bert[mlflow]'`)."""
    follow: bool = False
    """Wait for new records until the run ends; it need not have started."""

    def run(self) -> dict[str, Any]:
        """Results: `records`, `step`, `ended`, and where it went: `tensorboard`, `wandb`, `mlflow` (null where not)."""
        from lambert.tracking.follow import track
        from lambert.tracking.mlflow import MLflowSink
        from lambert.tracking.tensorboard import TensorBoardSink
        from lambert.tracking.weights_and_biases import WandbSink

        check_wandb_mode(self.wandb, self.wandb_mode)
        board = None if self.tensorboard is None else TensorBoardSink(self.tensorboard)
        wandb = None if self.wandb is None else WandbSink(self.wandb, mode=self.wandb_mode)
        mlflow = None if self.mlflow is None else MLflowSink(self.mlflow)
        sinks: list[Sink] = [sink for sink in (board, wandb, mlflow) if sink is not None]
        if not sinks:
            raise UserError(
                "no --tensorboard, --wandb or --mlflow",
                remedy="Give --tensorboard FOLDER, --wandb PROJECT or --mlflow URI",
            )
        if self.run_folder.is_dir():
            for sink in sinks:
                sink.check(self.run_folder.resolve().name)
        tracked = track(self.run_folder, sinks, follow=self.follow)
        say(
            f"{tracked.records:,} records up to step {tracked.step:,}"
            + ("" if tracked.ended else "; the run has not ended")
        )
        for sink in sinks:
            say(f"{sink.name}: {sink.place}" + (f" (`{sink.shown_by}`)" if sink.shown_by else ""))
        return {
            "records": tracked.records,
            "step": tracked.step,
            "ended": tracked.ended,
            **{
                kind: None if sink is None else sink.place
                for kind, sink in (("tensorboard", board), ("wandb", wandb), ("mlflow", mlflow))
            },
        }


def check_wandb_mode(project: str | None, mode: str | None) -> None:
    """Raises UserError for a mode of W&B where no project is given."""
    if project is None and mode is not None:
        raise UserError("--wandb-mode without --wandb", remedy="Give --wandb PROJECT too, or leave out --wandb-mode")
