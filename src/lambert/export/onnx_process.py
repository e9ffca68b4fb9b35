"""Writes a Hugging Face folder as ONNX and compares the two. A program of its own, started by `onnx.py`: it imports
nothing of lambert, and what PyTorch's exporter prints stays in it.

It reads what to do as JSON from standard input and prints the result as the last line.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_LARGEST_FILE = 2_000_000_000
"""Bytes; a protocol buffer holds at most 2 GiB, so larger weights are written beside the file."""
_RUNS = 15
"""Of each model, for the median time."""

Arrays = dict[str, NDArray[Any]]


class _Outputs(nn.Module):
    """The named outputs of a model of `transformers`."""

    def __init__(self, model: nn.Module, outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, **segments)
        return tuple(found[name] for name in self.outputs)


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """Write `file`, and `int8_file` unless it is None; compare both with PyTorch."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(asked["threads"])
    kind = getattr(transformers, asked["class"])
    model = _Outputs(kind.from_pretrained(asked["folder"], dtype=torch.float32).eval(), asked["outputs"])
    batches = [_padded(rows, asked["pad"], segments=asked["segments"]) for rows in asked["batches"]]
    file = Path(asked["file"])
    opset = _write(model, batches[0], file, positions=asked["positions"])
    sessions = {"onnx": _session(file, asked["threads"])}
    sizes = {"onnx": _bytes(file)}
    if asked["int8_file"] is not None:
        _quantize(file, Path(asked["int8_file"]))
        sessions["int8"] = _session(Path(asked["int8_file"]), asked["threads"])
        sizes["int8"] = _bytes(Path(asked["int8_file"]))
    compared = {name: _compare(model, session, batches) for name, session in sessions.items()}
    runs: dict[str, Callable[[Arrays], object]] = {"torch": partial(_torch, model)}
    runs |= {name: partial(session.run, None) for name, session in sessions.items()}
    one_text = _padded([asked["timed"]], asked["pad"], segments=asked["segments"])
    milliseconds = _milliseconds(runs, one_text)
    return {"opset": opset, "bytes": sizes, "compared": compared, "milliseconds": milliseconds}


def _padded(rows: Sequence[Sequence[int]], pad: int, *, segments: bool) -> Arrays:
    ids = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    found = {"input_ids": ids, "attention_mask": mask}
    return found | {"token_type_ids": np.zeros_like(ids)} if segments else found


def _write(model: _Outputs, batch: Arrays, file: Path, *, positions: int) -> int:
    """Export with any number of texts of any length; the opset."""
    rows, length = torch.export.Dim("batch"), torch.export.Dim("length", max=positions)
    program: Any = torch.onnx.export(
        model,
        kwargs={name: torch.from_numpy(array) for name, array in batch.items()},
        dynamic_shapes={name: {0: rows, 1: length} for name in batch},
        input_names=list(batch),
        output_names=list(model.outputs),
        dynamo=True,
        verbose=False,
    )
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    program.save(file, external_data=size > _LARGEST_FILE)
    return int(program.model.opset_imports[""])


def _quantize(file: Path, int8_file: Path) -> None:
    """8-bit weights, and activations quantized as they come. Unsigned weights: signed ones saturate 16-bit sums on
    processors without VNNI (ONNX Runtime's documentation of quantization).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(file, int8_file, weight_type=QuantType.QUInt8)


def _session(file: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _bytes(file: Path) -> int:
    return sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*"))


@torch.no_grad()
def _torch(model: _Outputs, batch: Arrays) -> list[NDArray[Any]]:
    return [one.numpy() for one in model(**{name: torch.from_numpy(array) for name, array in batch.items()})]


def _compare(model: _Outputs, session: Any, batches: Sequence[Arrays]) -> dict[str, Any]:
    """Outputs of both at real tokens: the largest difference, and how often the most likely class is the same."""
    largest, same, places, finite = 0.0, 0, 0, True
    for batch in batches:
        real = batch["attention_mask"].astype(bool)
        for name, mine, theirs in zip(model.outputs, _torch(model, batch), session.run(None, batch), strict=True):
            if mine.shape != theirs.shape:
                return {"shapes": [list(mine.shape), list(theirs.shape)]}
            per_token = mine.shape[:2] == real.shape
            a, b = (mine[real], theirs[real]) if per_token else (mine, theirs)
            finite = finite and bool(np.isfinite(b).all())
            largest = max(largest, float(np.abs(a - b).max()))
            if name == "logits" and a.shape[-1] > 1:
                same, places = same + int((a.argmax(-1) == b.argmax(-1)).sum()), places + len(a)
    return {"difference": largest, "same": same, "places": places, "finite": finite}


def _milliseconds(runs: dict[str, Callable[[Arrays], object]], batch: Arrays) -> dict[str, float]:
    """Median time of one text for each model; they take turns, so that a busy machine slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(_RUNS + 2):
        for name, run in runs.items():
            began = time.perf_counter()
            run(batch)
            if turn >= 2:
                times[name].append(1_000 * (time.perf_counter() - began))
    return {name: statistics.median(found) for name, found in times.items()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.load(sys.stdin))) + "\n")
