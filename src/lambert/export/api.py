"""`lambert.export_model`: a run or a folder → a folder that other programs open."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lambert.embeddings.library import check_installed
from lambert.embeddings.pooling import MODULES_FILE, check_pooling
from lambert.errors import UserError
from lambert.export.onnx_files import OnnxExport, check_onnx_installed, write_onnx
from lambert.export.reopening import opens_in_transformers
from lambert.export.sentence_vectors import write_for_sentence_transformers
from lambert.finetune.files import MAX_TEXT_BYTES
from lambert.model.config_file import read_config
from lambert.model.huggingface import model_folder
from lambert.model.weight_files import weight_files
from lambert.report import finetune_card, write_model_card
from lambert.report.model_card import CARD
from lambert.runlog.schema import RECIPE_FILE
from lambert.training.checkpoint.export import write_checkpoint_model
from lambert.training.checkpoint.format import finished_steps, run_and_step
from lambert.utils.hub import CONFIG_FILE, MODEL_FILES, TOKENIZER_FILES, is_hub_name
from lambert.utils.io import atomic_folder, read_json, refuse_existing, write_text

log = logging.getLogger("lambert")
_MORE_FILES = (CARD, "sentence_bert_config.json", "config_sentence_transformers.json")


@dataclass(frozen=True)
class ExportResult:
    """What was written and how it was checked."""

    folder: str
    step: int | None = None
    """Of the checkpoint; None where no run was exported, but a folder."""
    checked_with_transformers: bool = False
    """Whether `transformers` gave the same ids and logits, or sentence-transformers the same vectors; of a folder that
    was no run, whether `transformers` opened it and gave finite outputs."""
    rules_in_file: bool = False
    """Whether `transformers` made another tokenizer of BERT's settings, so that it is now told to take
    `tokenizer.json`, as a `PreTrainedTokenizerFast`."""
    pooling: str | None = None
    """Of a folder of sentence-transformers."""
    onnx: tuple[OnnxExport, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def export_model(
    source: str | Path,
    folder: str | Path,
    *,
    step: int | None = None,
    sentence_transformers: bool = False,
    pooling: str | None = None,
    onnx: bool = False,
    int8: bool = False,
    cased: bool = False,
    watts: float | None = None,
) -> ExportResult:
    """Write a model as a folder for other programs, and open it again::

        lambert.export_model("runs/mine", "my-model", onnx=True).onnx[0].milliseconds

    Args:
        source: a run; one of its checkpoints, `RUN/checkpoints/step-N`; what `fine_tune` or `train_embeddings` wrote;
            or a Hugging Face folder of BERT or ModernBERT.
        folder: the new folder.
        step: of the checkpoint; None takes the newest.
        sentence_transformers: write the encoder alone, in the layout of that library (the extra `embed`).
        pooling: of its vectors, `mean` or `cls`; None: as the source says, and the mean where it says nothing.
        onnx: also write `onnx/model.onnx` (the extra `onnx`).
        int8: also write `onnx/model_quantized.onnx`, with 8-bit weights; implies `onnx`.
        cased: how to read a folder that has only a `vocab.txt` and does not say.
        watts: what the machine drew while it trained, for the energy in the model card of a run.

    Raises:
        UserError: the source cannot be read, `folder` exists, an extra is missing, or what is read again differs.
            Nothing is left behind then.
    """
    source, folder = Path(source), Path(folder)
    if watts is not None and not 0 < watts < math.inf:
        raise UserError(f"`watts` = {watts}", remedy="Give a number above 0")
    if pooling is not None:
        check_pooling(pooling)
        if not sentence_transformers:
            raise UserError("`pooling` is for sentence vectors", remedy="Add `sentence_transformers=True`")
    refuse_existing(folder)
    if sentence_transformers:
        check_installed()
    if onnx or int8:
        check_onnx_installed()
    with atomic_folder(folder) as aside:
        if sentence_transformers:
            made = _write_sentence_transformers(source, aside, pooling, cased=cased, step=step, watts=watts)
        else:
            made = _write_model(source, aside, step=step, watts=watts)
        if onnx or int8:
            made["onnx"] = tuple(write_onnx(aside, int8=int8, cased=cased))
    return ExportResult(folder=str(folder), **made)


def _write_sentence_transformers(
    source: Path, aside: Path, pooling: str | None, *, cased: bool, step: int | None, watts: float | None
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix=f"{aside.name}.", dir=aside.parent) as name:
        plain = Path(name)
        made = _write_model(source, plain, step=step, watts=watts, sentence_vectors=True)
        model = write_for_sentence_transformers(plain, aside, pooling=pooling, cased=cased)
        if (plain / CARD).exists():
            shutil.copyfile(plain / CARD, aside / CARD)
    return made | {"pooling": model.pooling.mode, "checked_with_transformers": True}


def _write_model(
    source: Path, folder: Path, *, step: int | None, watts: float | None, sentence_vectors: bool = False
) -> dict[str, Any]:
    """Write the model of a run, or copy a model; the fields of `ExportResult` that are known then."""
    if not (is_hub_name(source) or any((one / CONFIG_FILE).is_file() for one in (source, source / "model"))):
        run, _ = run_and_step(source)
        if not (run / RECIPE_FILE).exists() and not finished_steps(run):
            raise UserError(
                f"{source} is neither a run nor a model folder",
                remedy=f"Give what `lambert pretrain` or `lambert finetune` wrote, or a folder with a {CONFIG_FILE}",
            )
        exported = write_checkpoint_model(source, folder, step=step)
        write_model_card(run, folder, step=exported.step, watts=watts, sentence_vectors=sentence_vectors)
        return asdict(exported)
    if step is not None or watts is not None:
        raise UserError(
            f"{source} is not a run, and has neither steps nor a training time", remedy="Leave out `step` and `watts`"
        )
    _copy(model_folder(source), folder)
    _write_finetune_card(model_folder(source).parent, folder)
    return {"checked_with_transformers": opens_in_transformers(folder)}


def _write_finetune_card(results: Path, folder: Path) -> None:
    """Write the card of a fine-tuned model, unless it has one or there are no results."""
    record = next((results / name for name in finetune_card.RECORDS if (results / name).is_file()), None)
    if (folder / CARD).exists() or record is None:
        return
    try:
        card = finetune_card.render(read_json(record, MAX_TEXT_BYTES), name=record.absolute().parent.name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning(f"The model has no card: {record} cannot be read ({type(error).__name__}: {error})")
    else:
        write_text(folder / CARD, card)


def _copy(source: Path, folder: Path) -> None:
    """Copy the files of a model, and no others that may lie beside them."""
    read_config(source)  # refuses other architectures
    names = (CONFIG_FILE, *MODEL_FILES, *TOKENIZER_FILES, MODULES_FILE, *_MORE_FILES)
    modules = source.glob("[0-9]*_*/config.json")  # of sentence-transformers: 1_Pooling
    for file in {*weight_files(source), *(source / name for name in names), *modules}:
        if file.is_file():
            copied = folder / file.relative_to(source)
            copied.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copied)
