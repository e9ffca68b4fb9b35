"""Reads a safetensors file once, into the memory of its tensors, and verifies what was read.

The library's `load` needs the file's bytes in memory beside the tensors, and its `safe_open` reads a file that may have
changed since it was hashed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from lambert.utils.io import TENSOR_HEADER_BYTES

PIECE_BYTES = 1 << 24
"""Bytes that are read, and hashed, at a time."""
_DTYPES = {
    **{f"F{torch.finfo(kind).bits}": kind for kind in (torch.float64, torch.float32, torch.float16)},
    **{f"I{torch.iinfo(kind).bits}": kind for kind in (torch.int64, torch.int32, torch.int16, torch.int8)},
    "BF16": torch.bfloat16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Altered(ValueError):
    """A file that differs from what was saved."""


def read_tensors(path: Path, *, size: int, sha256: str) -> dict[str, Tensor]:
    """Name → tensor of a safetensors file, on the CPU, in the order of the file.

    Args:
        size, sha256: of the file, as recorded.

    Raises:
        OSError: it cannot be read.
        Altered: its size or its SHA-256 is another one.
        ValueError, KeyError, TypeError, AttributeError, RecursionError: it was saved so, but is no safetensors file.
    """
    with path.open("rb", buffering=0) as file:
        if (found := os.fstat(file.fileno()).st_size) != size:
            raise Altered(f"{path.name} has {found:,} bytes instead of {size:,}")
        digest = hashlib.sha256()
        problem: Exception | None = None
        tensors: dict[str, Tensor] = {}
        try:
            for name, dtype, shape in _header(file, digest, size):
                data = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8)
                for piece in data.split(PIECE_BYTES):
                    _fill(memoryview(piece.numpy()), file, digest)
                tensors[name] = _viewed(data, dtype, shape)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problem = error
        hashlib.file_digest(file, lambda: digest)  # what is left of it
        if digest.hexdigest() != sha256:
            raise Altered(f"{path.name} is not what was saved (its SHA-256 differs)")
        if problem is not None:
            raise problem
        return tensors


def _header(file: BinaryIO, digest: Any, size: int) -> Iterator[tuple[str, torch.dtype, list[int]]]:
    """Name, dtype and shape of each tensor, which follow each other without gaps to the end of the file."""
    first = bytearray(8)
    _fill(memoryview(first), file, digest)
    length = int.from_bytes(first, "little")
    if length > min(TENSOR_HEADER_BYTES, size - 8):
        raise ValueError(f"its header has {length:,} bytes, more than {min(TENSOR_HEADER_BYTES, size - 8):,}")
    text = bytearray(length)
    _fill(memoryview(text), file, digest)
    entries = json.loads(text.decode("utf-8"))
    entries.pop("__metadata__", None)
    end = 0
    found = []
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
        if any(type(extent) is not int or extent < 0 for extent in shape):
            raise ValueError(f"its tensor {name} has the shape {shape}")
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        if entry["data_offsets"] != [begin, end]:
            raise ValueError(f"its tensor {name} is at {entry['data_offsets']} instead of {[begin, end]}")
        found.append((name, dtype, shape))
    if 8 + length + end != size:
        raise ValueError(f"its tensors have {end:,} bytes instead of {size - 8 - length:,}")
    yield from found


def _viewed(data: Tensor, dtype: torch.dtype, shape: list[int]) -> Tensor:
    try:
        return data.view(dtype).view(shape)
    except RuntimeError as error:  # more dimensions or larger ones than a tensor can have
        raise ValueError(str(error)) from None


def _fill(memory: memoryview, file: BinaryIO, digest: Any) -> None:
    """Read so many bytes, and hash them."""
    place = 0
    while place < len(memory):
        count = file.readinto(memory[place:])  # type: ignore[attr-defined]
        if not count:
            raise ValueError("it ends early")
        place += count
    digest.update(memory)
