"""The tensors of a Hugging Face folder: `model.safetensors` or `pytorch_model.bin`, or several files with an index."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

from lambert.errors import UserError
from lambert.model.pickled_weights import read_pickled
from lambert.utils import hub
from lambert.utils.io import SETTINGS_BYTES, check_tensor_header, file_sha256, read_json


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder that hold its weights, in the order of their names: safetensors rather than pickles.

    Raises:
        UserError: it has none, one of the index is missing, or the index is damaged.
    """
    main = _main_file(folder)
    if not main.name.endswith(".index.json"):
        return [main]
    names = sorted(set(_shards(main).values()))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise damaged(f"{main} names {name!r}, which is not in the folder")
    return [folder / name for name in names]


def _main_file(folder: Path) -> Path:
    """The one file, or the index of several, that `transformers` would read."""
    if (found := next((folder / name for name in hub.MODEL_FILES if (folder / name).is_file()), None)) is None:
        raise UserError(
            f"{folder} has no {hub.WEIGHTS_FILE} and no {hub.PICKLE_FILE}",
            remedy="Give a folder with one of them, or with shards and their index, as transformers saves it",
        )
    return found


def _shards(index: Path) -> dict[str, str]:
    """From an index: name of a tensor → its file."""
    try:
        shards: dict[str, str] = read_json(index, SETTINGS_BYTES)["weight_map"]
        if not all(isinstance(name, str) for name in shards.values()):
            raise ValueError("a file's name is not text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(f"{index} cannot be read: {type(error).__name__}: {error}") from None
    return shards


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
    main = _main_file(folder)
    for path in weight_files(folder):
        try:
            tensors = _read_file(path, pickled=main.name in hub.PICKLES)
        except (SafetensorError, OSError, ValueError) as error:
            raise damaged(f"{path} cannot be read: {error}") from None
        if twice := found.keys() & tensors.keys():
            raise damaged(f"{path} holds {min(twice)}, which is in another file, too")
        found |= tensors
    promised = _shards(main) if main.name.endswith(".index.json") else {}
    if missing := sorted(promised.keys() - found.keys()):
        raise damaged(f"{main} names {missing[0]}, which is not in {promised[missing[0]]}")
    return found


def _read_file(path: Path, *, pickled: bool) -> dict[str, Tensor]:
    if pickled:
        return read_pickled(path)
    check_tensor_header(path)
    return load_file(path) if _is_utf8(path) else load(path.read_bytes())


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


def damaged(what: str) -> UserError:
    """The error for a folder that is not as it was written."""
    return UserError(what, remedy="Fetch or export the model again")


def _is_utf8(path: Path) -> bool:
    """Whether the library can open it by its name."""
    return not any("\ud800" <= sign <= "\udfff" for sign in str(path))
