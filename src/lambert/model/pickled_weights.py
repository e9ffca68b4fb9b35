"""`pytorch_model.bin`: read by PyTorch's unpickler for tensors alone, in a process of its own with bounded memory."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lambert.utils.io import check_tensor_header
from lambert.utils.memory import bounded_memory

_TENSORS, _REASON = "tensors.safetensors", "reason.txt"
_SPARE_BYTES = 256 << 20
_MOST_SECONDS = 600
_FOUND = re.compile(r"unsupported GLOBAL ([\w.]+)|Unsupported (?:global: GLOBAL|class) ([\w.]+)", re.IGNORECASE)
_PROGRAM = """import sys
sys.path.append({package!r})
from lambert.model.pickled_weights import convert
convert({path!r}, {folder!r})
"""


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that `torch.save` wrote; no code in it runs.

    Raises:
        ValueError: it holds anything but named dense tensors, is damaged, or would take more than three times its size
            (on Linux) or ten minutes.
        OSError: no temporary folder can be made.
    """
    with tempfile.TemporaryDirectory(prefix="lambert-", ignore_cleanup_errors=True) as private:
        program = _PROGRAM.format(package=str(Path(__file__).parents[2]), path=str(path), folder=private)
        try:  # -P: no module beside the model, where the command may have been given
            subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, timeout=_MOST_SECONDS)
        except subprocess.TimeoutExpired:
            raise ValueError(f"its pickle takes more than {_MOST_SECONDS} seconds") from None
        written = Path(private, _TENSORS)
        if not written.exists():
            reason = Path(private, _REASON)
            raise ValueError(reason.read_text("utf-8") if reason.exists() else _too_large(path))
        check_tensor_header(written)
        return load_file(written)


def convert(path: str, folder: str) -> None:
    """Write the tensors of the pickle, or the reason why not, to `folder`: in a process of its own."""
    source, target = Path(path), Path(folder)
    torch.set_num_threads(1)
    try:
        with bounded_memory(3 * source.stat().st_size + _SPARE_BYTES):
            save_file(_tensors(source), target / "partial", {"format": "pt"})
        (target / "partial").rename(target / _TENSORS)
    except Exception as error:  # PyTorch raises what it likes for a damaged file
        (target / _REASON).write_text(_reason(source, error), "utf-8")


def _tensors(path: Path) -> dict[str, Tensor]:
    """Contiguous tensors, each with memory of its own."""
    # Only the archives that PyTorch has written since 1.6 can be mapped.
    loaded = torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))  # noqa: TID251
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds {type(loaded).__name__}, not tensors by their names")
    for name, tensor in loaded.items():
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{name!r} in it is not a dense tensor")
    # The decoder may share the word embedding's memory, and its bias the other.
    if sum(tensor.nbytes for tensor in loaded.values()) > 2 * path.stat().st_size:
        raise MemoryError
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in loaded.items():
        dense = tensor.detach().resolve_neg().contiguous()
        memory = dense.untyped_storage().data_ptr()
        found[name] = dense.clone() if memory in seen else dense
        seen.add(memory)
    return found


def _reason(path: Path, error: Exception) -> str:
    """Why the file is refused, without PyTorch's advice to load it unsafely."""
    said = str(error)
    if code := _FOUND.search(said):
        return f"its pickle asks for {code[1] or code[2]}, which is no tensor and could run code"
    if isinstance(error, MemoryError) or "memory" in said or "bad_alloc" in said:
        return _too_large(path)
    if isinstance(error, EOFError) or "weights_only" in said:
        return "it is not a pickle of tensors"
    printed = "".join(letter if letter.isprintable() else " " for letter in said)
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return f"{kind}{printed[:300]}"


def _too_large(path: Path) -> str:
    return f"its tensors need more memory than three times its {path.stat().st_size:,} bytes, or it is damaged"
