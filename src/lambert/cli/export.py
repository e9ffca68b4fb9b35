"""`lambert export RUN DIR`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lambert.cli.subcommand import Subcommand, say


@dataclass(frozen=True, kw_only=True)
class Export(Subcommand):
    """Write a run's newest checkpoint as a Hugging Face folder, whether the run has finished or not."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """The run."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Output folder for config.json, model.safetensors and the tokenizer; must be empty or new."""

    def run(self) -> dict[str, Any]:
        """Results: `folder` and `step`."""
        from lambert.training.checkpoint.export import export_run

        step = export_run(self.run_folder, self.folder)
        say(f"Step {step} of {self.run_folder} is in {self.folder}")
        return {"folder": str(self.folder), "step": step}
