"""`lambert track RUN --tensorboard DIR --wandb PROJECT`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lambert.cli.subcommand import Verb, say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.tracking.follow import Sink


@dataclass(frozen=True, kw_only=True)
class Track(Verb):
    """Show a run in TensorBoard or Weights & Biases: hand its journal on to them, once or while the run goes on."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """A run. Nothing is written there; the same command again adds what is new."""
    tensorboard: Path | None = None
    """Folder for event files, in a folder of the run's name (`pip install 'lambert-bert[tensorboard]'`)."""
    wandb: str | None = None
    """Project of Weights & Biases (`pip install 'lambert-bert[wandb]'`)."""
    wandb_mode: str | None = None
    """online, offline or disabled. That of WANDB_MODE otherwise, or offline, which needs no account."""
    follow: bool = False
    """Go on until the run ends; it need not have begun."""

    def run(self) -> dict[str, Any]:
        """Results: `records`, `step`, `ended`, and where they went: `tensorboard`, `wandb` (null where not)."""
        from lambert.tracking.follow import track
        from lambert.tracking.tensorboard import TensorBoardSink
        from lambert.tracking.weights_and_biases import WandbSink

        if self.tensorboard is None and self.wandb is None:
            raise UserError("no --tensorboard and no --wandb", remedy="Give one of them or both")
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
                say("  upload it with `wandb sync`, or send it at once with --wandb-mode online")
        return {
            "records": tracked.records,
            "step": tracked.step,
            "ended": tracked.ended,
            "tensorboard": None if board is None or board.folder is None else str(board.folder),
            "wandb": None if wandb is None else wandb.folder,
        }
