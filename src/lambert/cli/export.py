"""`lambert export MODEL FOLDER`"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lambert.cli.subcommand import Subcommand, say
from lambert.errors import UserError
from lambert.utils.formatting import number, percent, size
from lambert.utils.hub_upload import check_upload, upload_folder

if TYPE_CHECKING:
    from lambert.export.onnx_files import OnnxExport


@dataclass(frozen=True, kw_only=True)
class Export(Subcommand):
    """Write a model as a folder for other programs: Hugging Face, sentence-transformers, ONNX; and open it again."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run, finished or not; one of its checkpoints, RUN/checkpoints/step-N; what `finetune` or `embed-train` wrote;
    or a Hugging Face folder."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """New folder for config.json, model.safetensors and the tokenizer."""
    step: int | None = None
    """Step of the checkpoint; the newest otherwise. `pretrain --keep-every` keeps more than the last."""

    sentence_transformers: bool = False
    """Write the encoder alone, for SentenceTransformer(FOLDER) (`pip install 'lambert-bert[embed]'`)."""
    pooling: str | None = None
    """Of its vectors: mean over all tokens of a text, or cls; otherwise what the model says, and the mean where it says
    nothing."""
    onnx: bool = False
    """Also write FOLDER/onnx/model.onnx, and compare it with PyTorch (`pip install 'lambert-bert[onnx]'`)."""
    int8: bool = False
    """Also write FOLDER/onnx/model_quantized.onnx, with 8-bit weights; implies --onnx."""

    cased: bool = False
    """Read a model folder that has only a vocab.txt, and does not say, as cased."""
    watts: float | None = None
    """What the machine drew while it trained, for the energy in the model card."""

    push: str | None = None
    """Upload the folder to the Hugging Face Hub under this OWNER/NAME (`pip install 'lambert-bert[hub]'`)."""
    public: bool = False
    """Make a new repository of `--push` readable by all."""
    revisions: bool = False
    """Also upload every checkpoint of the run that was kept (`pretrain --keep-every N` keeps those of every N steps and
    of step 0), each as a revision step-N of the repository."""

    def run(self) -> dict[str, Any]:
        """Results: `url`, `revisions` and the fields of `ExportResult`."""
        from lambert.export.api import export_model

        if self.revisions and self.push is None:
            raise UserError("`revisions` are of a repository", remedy="Add --push OWNER/NAME")
        if self.public and self.push is None:
            raise UserError("`public` is for a repository", remedy="Add --push OWNER/NAME")
        if self.push is not None:
            check_upload(self.push)
        exported = export_model(
            self.model,
            self.folder,
            step=self.step,
            sentence_transformers=self.sentence_transformers,
            pooling=self.pooling,
            onnx=self.onnx,
            int8=self.int8,
            cased=self.cased,
            watts=self.watts,
        )
        what = "The model" if exported.step is None else f"Step {exported.step}"
        say(f"{what} of {self.model} is in {self.folder}")
        if exported.rules_in_file:
            say(
                "transformers made another tokenizer of BERT's settings, so tokenizer_config.json names "
                "PreTrainedTokenizerFast, which takes tokenizer.json as it is"
            )
        if exported.pooling is not None:
            say(f"Opened again: lambert and sentence-transformers give the same vectors ({exported.pooling} pooling)")
        elif exported.step is not None:
            with_them = "lambert and transformers give" if exported.checked_with_transformers else "lambert gives"
            say(f"Opened again: {with_them} the same ids of 1,000 lines and the same logits")
        else:
            opened = "transformers opens it, with all weights and finite outputs"
            say(f"Copied: {opened if exported.checked_with_transformers else 'it was not opened by transformers'}")
        _say_onnx(exported.onnx)
        if (card := self.folder / "README.md").is_file():
            say(f"Model card: {card}; say there what the text is, and the license")
        url = None
        if self.push is not None:
            url = upload_folder(self.folder, self.push, public=self.public)
            say(f"Uploaded to {url}")
        revisions = self._push_revisions(self.push) if self.push is not None and self.revisions else []
        return {"url": url, "revisions": revisions} | exported.to_dict()

    def _push_revisions(self, name: str) -> list[str]:
        """Export and upload one checkpoint after the other; the names of their revisions."""
        from lambert.export.api import export_model
        from lambert.training.checkpoint.format import finished_steps, run_and_step

        run, _ = run_and_step(self.model)
        pushed: list[str] = []
        for step in sorted(finished_steps(run)):
            revision = f"step-{step}"
            with tempfile.TemporaryDirectory(prefix=f"{self.folder.name}.", dir=self.folder.parent) as made:
                export_model(run, Path(made) / revision, step=step, watts=self.watts)
                upload_folder(
                    Path(made) / revision,
                    name,
                    public=self.public,
                    revision=revision,
                    remedy=f"Uploaded revisions: {', '.join(pushed) or 'none'}. Give the same command again with "
                    "another folder: equal files are not sent twice",
                )
            pushed.append(revision)
            say(f"Uploaded {revision}")
        return pushed


def _say_onnx(files: Iterable[OnnxExport]) -> None:
    for one in files:
        outputs = f"{', '.join(one.outputs)} within {number(one.difference, 2)} of PyTorch's"
        if one.agreement is not None:
            outputs += f", {percent(one.agreement)} of the most likely classes or tokens the same"
        say(f"{one.file}: {size(one.bytes)}, opset {one.opset}; {outputs}")
        say(
            f"  a text of {one.timed_tokens} tokens on {one.threads} thread{'s' * (one.threads > 1)}: "
            f"{number(one.milliseconds)} ms, PyTorch {number(one.torch_milliseconds)} ms"
        )
