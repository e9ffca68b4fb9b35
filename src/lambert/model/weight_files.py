"""The tensors of a Hugging Face folder: `model.safetensors`, or several files with an index."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

from lambert.errors import UserError
from lambert.utils.formatting import shell_command
from lambert.utils.hub import INDEX_FILE, WEIGHTS_FILE
from lambert.utils.io import SETTINGS_BYTES, check_tensor_header, file_sha256, read_json

PICKLE_FILE = "pytorch_model.bin"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, in the order of their names.

    Raises:
        UserError: it has none, one of the index is missing, or the index is damaged.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    index = folder / INDEX_FILE
    if not index.is_file():
        raise _no_weights(folder)
    try:
        names = sorted(set(read_json(index, SETTINGS_BYTES)["weight_map"].values()))
        paths = [folder / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(f"{index} cannot be read: {type(error).__name__}: {error}") from None
    for name, path in zip(names, paths, strict=True):
        if Path(name).name != name or not path.is_file():
            raise damaged(f"{index} names {name!r}, which is not in the folder")
    return paths


def weights_sha256(folder: Path) -> str:
    """SHA-256 of the weights: of the one file, or of the digests of several.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    try:
        digests = [file_sha256(path) for path in weight_files(folder)]
    except OSError as error:
        raise damaged(f"the weights in {folder} cannot be read: {error.strerror}") from None
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors by their names in the files.

    Raises:
        UserError: a file is missing or damaged, or a tensor is in two files or not of floating-point numbers.
    """
    found: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            check_tensor_header(path)
            tensors = load_file(path) if _is_utf8(path) else load(path.read_bytes())
        except (SafetensorError, OSError, ValueError) as error:
            raise damaged(f"{path} cannot be read: {error}") from None
        if twice := found.keys() & tensors.keys():
            raise damaged(f"{path} holds {min(twice)}, which is in another file, too")
        found |= tensors
    _refuse_missing(folder, found)
    return found


def refuse_quantized(name: str, weight: Tensor, folder: Path) -> None:
    """Check that a weight is in 16 bits or more.

    Raises:
        UserError: it is an integer or in 8 bits, which has a scale elsewhere.
    """
    if not weight.is_floating_point() or weight.element_size() < torch.float16.itemsize:
        raise UserError(
            f"{folder}: {name} is in {str(weight.dtype).removeprefix('torch.')}, so the model is quantized",
            remedy="Give the model before its quantization",
        )


def _refuse_missing(folder: Path, found: dict[str, Tensor]) -> None:
    """Refuses shards without a tensor that the index promises."""
    if (folder / WEIGHTS_FILE).is_file():
        return
    promised: dict[str, Any] = read_json(folder / INDEX_FILE, SETTINGS_BYTES)["weight_map"]
    if missing := sorted(promised.keys() - found.keys()):
        raise damaged(f"{folder / INDEX_FILE} names {missing[0]}, which is not in {promised[missing[0]]}")


def damaged(what: str) -> UserError:
    """The error for a folder that is not as it was written."""
    return UserError(what, remedy="Fetch or export the model again")


def _is_utf8(path: Path) -> bool:
    """Whether the library can open it by its name."""
    return not any("\ud800" <= sign <= "\udfff" for sign in str(path))


def _no_weights(folder: Path) -> UserError:
    what = f"{folder} has no {WEIGHTS_FILE}"
    if not (folder / PICKLE_FILE).is_file():
        return UserError(what, remedy=f"Give a folder with {WEIGHTS_FILE}, or with its shards and {INDEX_FILE}")
    program = (
        "import torch, safetensors.torch as s; "
        f"w = torch.load({str(folder / PICKLE_FILE)!r}, map_location='cpu', weights_only=True); "
        f"s.save_file({{n: t.clone().contiguous() for n, t in w.items()}}, {str(folder / WEIGHTS_FILE)!r})"
    )
    return UserError(
        f"{what}, and its {PICKLE_FILE} is a pickle, which can run code",
        remedy=f"Convert it with: {shell_command('python', '-c', program)}",
    )
