"""A safetensors file is read once, into its tensors alone; any bytes give tensors or one of the named errors."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lambert.planning.memory import peak_memory_bytes, reset_peak_memory
from lambert.training.checkpoint import tensor_file
from lambert.training.checkpoint.tensor_file import Altered, read_tensors

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def read(path: Path) -> dict[str, torch.Tensor]:
    content = path.read_bytes()
    return read_tensors(path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def test_it_gives_what_the_library_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "PIECE_BYTES", 64)
    shapes = {"matrix": (3, 50), "number": (), "nothing": (0, 4), "é": (7,)}
    tensors = {
        f"{name} {dtype}": torch.arange(200).remainder(2 if dtype is torch.bool else 100)[: torch.Size(shape).numel()]
        .to(dtype)
        .view(shape)
        for dtype in DTYPES
        for name, shape in shapes.items()
    }  # fmt: skip
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    found, theirs = read(path), load_file(path)
    assert found.keys() == theirs.keys() == tensors.keys()
    for name, tensor in theirs.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_a_file_is_read_once_and_not_held_beside_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({f"t{number}": torch.full((4_000_000,), float(number)) for number in range(8)}, path)
    content = path.read_bytes()
    size, sha256 = len(content), hashlib.sha256(content).hexdigest()
    del content
    reset_peak_memory(torch.device("cpu"))
    before, read_before = peak_memory_bytes(torch.device("cpu")), _read_bytes()
    found = read_tensors(path, size=size, sha256=sha256)
    assert _read_bytes() - read_before < size + 100_000
    assert peak_memory_bytes(torch.device("cpu")) - before < 1.2 * size
    assert float(found["t7"][-1]) == 7


def _read_bytes() -> int:
    """What this process has read so far, from whatever it was."""
    return int(Path("/proc/self/io").read_text().split()[1])


def entry(begin: Any, end: Any, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(0, 8), "b": entry(4, 12)},
        {"a": entry(0, 8), "b": entry(12, 20)},
        {"a": entry(0, 4)},
        {"a": entry(0, 8, [-2])},
        {"a": entry(0, 8, [2.0])},
        {"a": entry(0, 8, [True, 2])},
        {"a": entry(0, 8, [2**62, 2**62])},
        {"a": entry(0, 4 * 10**30, [10**30])},
        {"a": entry(0, 0, [0, 10**30]), "b": entry(0, 16, [4])},
        {"a": entry(-8, 0)},
        {"a": entry(0, 8, dtype="F4")},
        {"a": entry(0, 8, dtype=[])},
        {"a": entry(0, 8, "2")},
        {"a": entry(None, 8)},
        {"a": {}},
        {"a": None},
        {"a": entry(0, 8), "b": entry("0", 8)},
        {},
        [],
        "text",
        None,
    ],
)
def test_a_header_that_is_none_is_refused_before_anything_is_allocated(tmp_path: Path, header: Any) -> None:
    """Also with the right SHA-256, as a malicious file has."""
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        read(path)


def test_any_bytes_give_tensors_or_a_named_error(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(3, 2), "b": torch.ones(2, dtype=torch.bool)}, path)
    content, draws, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(500):
        broken = bytearray(content)
        for _ in range(draws.randint(1, 3)):
            broken[draws.randrange(len(content) - 20)] = draws.choice(b'\0\xff"{}[]0198,:')
        path.write_bytes(broken[: draws.choice([len(broken), draws.randrange(len(broken))])])
        try:
            read(path)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            refused += 1
    assert refused > 300


@pytest.mark.parametrize("change", ["size", "sha256", "header"])
def test_another_file_is_told_from_a_wrong_one(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(3)}, path)
    content = path.read_bytes()
    facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if change == "size":
        path.write_bytes(content[:-1])
    else:
        path.write_bytes(b"\xff" * 8 + content[8:] if change == "header" else content[:-1] + b"\xff")
    with pytest.raises(Altered, match="bytes instead of" if change == "size" else "SHA-256 differs"):
        read_tensors(path, **facts)
