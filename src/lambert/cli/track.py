"""`lambert track RUN --tensorboard DIR --wandb PROJECT`"""

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
    """Send the metrics of a run to TensorBoard or Weights & Biases, once or while it trains."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """A run. Nothing is written there; running the command again adds what is new."""
    tensorboard: Path | None = None
    """Folder for event files; each run gets a subfolder (`pip install 'lambert-bert[tensorboard]'`)."""
    wandb: str | None = None
    """W&B project (`pip install 'lambert-bert[wandb]'`)."""
    wandb_mode: str | None = None
    """online, offline or disabled. The default is WANDB_MODE, else offline, which needs no account."""
    follow: bool = False
    """Wait for new records until the run ends; it need not have started."""

    def run(self) -> dict[str, Any]:
        """Results: `records`, `step`, `ended`, and where they went: `tensorboard`, `wandb` (null where not)."""
        from lambert.tracking.follow import track
        from lambert.tracking.tensorboard import TensorBoardSink
        from lambert.tracking.weights_and_biases import WandbSink

        if self.tensorboard is None and self.wandb is None:
            raise UserError(
                "no --tensorboard and no --wandb", remedy="Give --tensorboard FOLDER, --wandb PROJECT or both"
            )
        board = None if self.tensorboard is None else TensorBoardSink(self.tensorboard)
        wandb = None if self.wandb is None else WandbSink(self.wandb, mode=self.wandb_mode)
        sinks: list[Sink] = [sink for sink in (board, wandb) if sink is not None]
        tracked = track(self.run_folder, sinks, follow=self.follow)
        say(
            f"{tracked.records:,} records up to step {tracked.step:,}"
            + ("" if tracked.ended else "; the run has not ended")
        )
        if board is not None:
            say(f"TensorBoard: {board.folder}; tensorboard --logdir {self.tensorboard}")
        if wandb is not None:
            say(f"Weights & Biases ({wandb.mode}): {wandb.folder}")
            if wandb.mode == "offline":
                say("  upload it with `wandb sync`, or use --wandb-mode online")
        return {
            "records": tracked.records,
            "step": tracked.step,
            "ended": tracked.ended,
            "tensorboard": None if board is None or board.folder is None else str(board.folder),
            "wandb": None if wandb is None else wandb.folder,
        }
