"""`lambert export RUN DIR`"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lambert.cli.subcommand import Subcommand, say
from lambert.errors import UserError
from lambert.utils.hub_upload import check_upload, upload_folder
from lambert.utils.io import unwritable


@dataclass(frozen=True, kw_only=True)
class Export(Subcommand):
    """Write a checkpoint of a run as a Hugging Face folder, whether the run has finished or not."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """The run, or one of its checkpoints: RUN/checkpoints/step-N."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Output folder for config.json, model.safetensors and the tokenizer; must be empty or new."""
    step: int | None = None
    """Step of the checkpoint; the newest otherwise. `pretrain --keep-every` keeps more than the last."""

    watts: float | None = None
    """What the machine drew while it trained, for the energy in the model card."""

    push: str | None = None
    """Upload the folder to the Hugging Face Hub under this OWNER/NAME (`pip install 'lambert-bert[hub]'`)."""
    public: bool = False
    """Make a new repository of `--push` readable by all."""

    def run(self) -> dict[str, Any]:
        """Results: `folder`, `step`, `checked_with_transformers`, `rules_in_file` and `url`."""
        from lambert.report import write_model_card
        from lambert.training.checkpoint.export import export_run
        from lambert.training.checkpoint.format import run_and_step

        if self.watts is not None and not 0 < self.watts < math.inf:
            raise UserError(f"`watts` = {self.watts}", remedy="Give a number above 0")
        if self.push is not None:
            check_upload(self.push)
        exported = export_run(self.run_folder, self.folder, step=self.step)
        run, _ = run_and_step(self.run_folder)
        try:
            card = write_model_card(run, self.folder, step=exported.step, watts=self.watts)
        except OSError as error:
            raise unwritable(error, self.folder, remedy="The model is there; free some space for its card") from None
        say(f"Step {exported.step} of {self.run_folder} is in {self.folder}")
        with_them = "lambert and transformers give" if exported.checked_with_transformers else "lambert gives"
        if exported.rules_in_file:
            say(
                "transformers made another tokenizer of BERT's settings, so tokenizer_config.json names "
                "PreTrainedTokenizerFast, which takes tokenizer.json as it is"
            )
        say(f"Opened again: {with_them} the same ids of 1,000 lines and the same logits")
        say(f"Model card: {card}; say there what the text is, and the license")
        url = None
        if self.push is not None:
            url = upload_folder(self.folder, self.push, public=self.public)
            say(f"Uploaded to {url}")
        return {"url": url, "folder": str(self.folder), **asdict(exported)}
