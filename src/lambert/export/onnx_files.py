"""ONNX files of a Hugging Face folder, by PyTorch's exporter, compared with PyTorch (the extra `onnx`)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from lambert.corpus.tokenizer_files import ids_of, load_vocabulary, probe_lines
from lambert.errors import UserError
from lambert.export import onnx_process
from lambert.utils.hub import CONFIG_FILE
from lambert.utils.io import SETTINGS_BYTES, read_json
from lambert.utils.own_process import ask_program

ONNX_FILE, INT8_FILE = "onnx/model.onnx", "onnx/model_quantized.onnx"
"""Where sentence-transformers, Text Embeddings Inference and Transformers.js look for them."""
_PACKAGES = ("transformers", "onnx", "onnxscript", "onnxruntime")
_LARGEST_DIFFERENCE = 1e-3
_OTHER_VERSIONS = "Use the versions in lambert's constraints.txt, or export without ONNX"
_MOST_SECONDS = 3_600
_LINES, _TOKENS = 64, 64
_LONGEST = 512
_TIMED_TOKENS = 128
_OUTPUTS = {
    "ForMaskedLM": ("logits",),
    "ForSequenceClassification": ("logits",),
    "ForTokenClassification": ("logits",),
    "ForQuestionAnswering": ("start_logits", "end_logits"),
    "Model": ("last_hidden_state",),
}


@dataclass(frozen=True)
class OnnxExport:
    """An ONNX file beside a model's weights, and how it differs from PyTorch in float32."""

    file: str
    bytes: int
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    difference: float
    """Largest of any output, at real tokens."""
    agreement: float | None
    """How often the most likely class or token is the same, 0 to 1; None where logits are not of classes."""
    milliseconds: float
    """Median time of a text of `timed_tokens` tokens, with `threads` threads."""
    torch_milliseconds: float
    """The same with PyTorch."""
    timed_tokens: int
    threads: int


def check_onnx_installed() -> None:
    """Raises UserError where the extra is missing."""
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise UserError(
            f"ONNX needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}, not installed here",
            remedy="Install what it needs with: pip install 'lambert-bert[onnx]'",
        )


def write_onnx(folder: Path, *, int8: bool = False, cased: bool = False) -> list[OnnxExport]:
    """Write `onnx/model.onnx` into a Hugging Face folder and run it with ONNX Runtime beside PyTorch.

    The file takes any number of texts of any length up to the model's positions. Of a model that was pre-trained, its
    output is that of `BertForMaskedLM`; next-sentence prediction is left out.

    Args:
        int8: also write `onnx/model_quantized.onnx`, with 8-bit weights (dynamic quantization). It is smaller, and its
            outputs differ.
        cased: how to read a folder that has only a `vocab.txt` and does not say.

    Raises:
        UserError: the extra `onnx` is missing, the folder has no model that can be exported, or outputs differ by more
            than 1e-3.
    """
    check_onnx_installed()
    settings = read_json(folder / CONFIG_FILE, SETTINGS_BYTES)
    kind, outputs = _class_and_outputs(settings, folder)
    tokenizer = load_vocabulary(folder, cased=cased)
    positions, threads = int(settings["max_position_embeddings"]), torch.get_num_threads()
    batches, timed = _examples(tokenizer, positions)
    asked = {
        "folder": str(folder),
        "class": kind,
        "outputs": outputs,
        "batches": batches,
        "timed": timed,
        "pad": settings.get("pad_token_id") or 0,
        "segments": settings.get("model_type") == "bert",
        "positions": positions,
        "threads": threads,
        "file": str(folder / ONNX_FILE),
        "int8_file": str(folder / INT8_FILE) if int8 else None,
    }
    (folder / ONNX_FILE).parent.mkdir()
    found = _in_its_own_process(asked)
    _refuse_other_outputs(found["compared"]["onnx"])
    inputs = ("input_ids", "attention_mask", *["token_type_ids"] * asked["segments"])
    made = []
    for name, file in (("onnx", ONNX_FILE), ("int8", INT8_FILE))[: 1 + int8]:
        compared = found["compared"][name]
        made.append(
            OnnxExport(
                file=file,
                bytes=found["bytes"][name],
                opset=found["opset"],
                inputs=inputs,
                outputs=outputs,
                difference=compared["difference"],
                agreement=compared["same"] / compared["places"] if compared["places"] else None,
                milliseconds=found["milliseconds"][name],
                torch_milliseconds=found["milliseconds"]["torch"],
                timed_tokens=len(timed),
                threads=threads,
            )
        )
    return made


def _class_and_outputs(settings: dict[str, Any], folder: Path) -> tuple[str, tuple[str, ...]]:
    """The class of `transformers` that is exported, and its outputs."""
    named = (settings.get("architectures") or [""])[0]
    kind = named.replace("ForPreTraining", "ForMaskedLM")
    for ending, outputs in _OUTPUTS.items():
        if kind in (f"Bert{ending}", f"ModernBert{ending}"):
            return kind, outputs
    raise UserError(
        f"{folder / CONFIG_FILE} names the class {named or 'of no model'}, which lambert does not export as ONNX",
        remedy="Give a run, or a folder of lambert finetune, squad or embed-train",
    )


def _examples(tokenizer: Tokenizer, positions: int) -> tuple[list[list[list[int]]], list[int]]:
    """Batches of token ids: of one text and of several, one as long as the model takes, and a text to time."""
    found = [ids[: min(positions, _TOKENS)] for ids in ids_of(tokenizer, probe_lines(tokenizer)[: 2 * _LINES])]
    rows = [ids for ids in found if ids][:_LINES]
    long = [token for ids in found for token in ids]
    long = (long * (1 + _LONGEST // len(long)))[: min(positions, _LONGEST)]
    return [rows[:5], rows[5:], rows[:1], [long]], long[:_TIMED_TOKENS]


def _in_its_own_process(asked: dict[str, Any]) -> dict[str, Any]:
    return ask_program(
        ["-P", onnx_process.__file__],
        asked,
        seconds=_MOST_SECONDS,
        failed="the model cannot be written as ONNX",
        remedy=_OTHER_VERSIONS,
    )


def _refuse_other_outputs(compared: dict[str, Any]) -> None:
    if "shapes" in compared:
        what = "outputs of shape {1}, not {0}".format(*compared["shapes"])
    elif not compared["finite"]:
        what = "outputs that are not finite"
    elif not compared["difference"] <= _LARGEST_DIFFERENCE:
        what = f"outputs that differ from PyTorch's by {compared['difference']:.2g}"
    else:
        return
    raise UserError(f"the ONNX file gives {what}", remedy=_OTHER_VERSIONS)
