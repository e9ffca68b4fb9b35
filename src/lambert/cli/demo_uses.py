"""What the demo does with its model at the end: sentence vectors, and a folder for other programs."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambert.cli.subcommand import say
from lambert.utils.formatting import number, shell_command, size

_TOKENS = 32


def embed(model: Path, file: Path, out: Path) -> dict[str, Any]:
    """Write the vectors of the paragraphs in a file of `write_labels`, and say what is near in them.

    Returns:
        `out`, `texts`, and `same_label`: how often the nearest other paragraph has the same label, 0 to 1, beside
        `by_chance`.
    """
    from lambert.embeddings.vector_file import write_vectors
    from lambert.embeddings.vectors import SentenceEncoderModel, embedded

    with file.open(encoding="utf-8", newline="") as rows:
        texts, labels = zip(*((row["text"], row["label"]) for row in csv.DictReader(rows)), strict=True)
    opened = SentenceEncoderModel.open(model, normalize=True, sequence_length=_TOKENS)
    vectors = embedded(opened, texts, quiet=True).vectors
    write_vectors(out, vectors)
    same, chance = _nearest_share(vectors, np.array(labels))
    say("Sentence vectors of the paragraphs, which nobody trained for that (lambert embed-train does):")
    say(
        f"The nearest other paragraph is of the same package for {100 * same:.0f} %, by chance for {100 * chance:.0f} %"
    )
    options = ("--out", out, "--normalize", "--sequence-length", str(_TOKENS))
    say(f"Vectors: {out}; made by: {shell_command('lambert', 'embed', model, file, *options)}")
    return {"out": str(out), "texts": len(texts), "same_label": same, "by_chance": chance}


def _nearest_share(vectors: NDArray[np.float32], labels: NDArray[np.str_]) -> tuple[float, float]:
    """How often a vector's nearest other one has its label, and how often another one at random has."""
    same = 0
    for row, vector in enumerate(vectors):
        cosines = vectors @ vector
        cosines[row] = -np.inf
        same += int(labels[cosines.argmax()] == labels[row])
    counts = np.unique(labels, return_counts=True)[1]
    total = len(labels)
    return same / total, float((counts * (counts - 1)).sum() / (total * (total - 1)))


def export(model: Path, out: Path) -> dict[str, Any] | None:
    """Export a model, as ONNX too where that is installed; None where an export of another model is there."""
    from lambert.export.api import export_model
    from lambert.model.huggingface import model_folder
    from lambert.model.weight_files import weights_sha256

    onnx = all(find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime", "transformers"))
    command = shell_command("lambert", "export", model, out)
    if out.exists():
        is_same = (out / "config.json").is_file() and weights_sha256(out) == weights_sha256(model_folder(model))
        say(f"Export: {out}" if is_same else f"{out} is of another model; remove it, then: {command}")
        return {"folder": str(out), "onnx": None} if is_same else None
    exported = export_model(model, out, onnx=onnx)
    if exported.onnx:
        one = exported.onnx[0]
        times = f"{number(one.milliseconds)} ms, in PyTorch {number(one.torch_milliseconds)} ms"
        say(f"For other programs, {size(one.bytes)} of ONNX: a text of {one.timed_tokens} tokens takes {times}")
        say(f"Export: {out}; for a model of yours: lambert export MODEL NEW_FOLDER --onnx")
    else:
        say(f"Export for other programs: {out}; for a model of yours: lambert export MODEL NEW_FOLDER")
        say("As ONNX too:")
        say(f"  pip install 'lambert-bert[onnx]' && {shell_command('lambert', 'export', model, f'{out}-onnx')} --onnx")
    return {"folder": str(out), "onnx": exported.onnx[0].file if exported.onnx else None}
