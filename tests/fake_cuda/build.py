"""Compiles the device shim and loads it, before torch is imported."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.cpp")


def torch_folder() -> Path:
    """Where torch is installed, without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def missing() -> str | None:
    """Why the shim cannot be built here; None if it can."""
    if sys.platform != "linux":
        return "the fake GPU needs Linux"
    if shutil.which("c++") is None:
        return "the fake GPU needs a C++ compiler (c++)"
    if not (torch_folder() / "include").is_dir():
        return "this PyTorch comes without its C++ headers"
    return None


def build(folder: Path) -> Path:
    """The compiled shim in `folder`; compiles it unless this source was compiled for this torch before."""
    root = torch_folder()
    key = hashlib.sha256(SOURCE.read_bytes() + str(root).encode() + (root / "version.py").read_bytes()).hexdigest()[:16]
    library = folder / f"fake_cuda_{key}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(f".{os.getpid()}")
        options = ("-O1", "-shared", "-fPIC", "-std=c++20", f"-I{root / 'include'}", "-o", str(partial))
        subprocess.run(["c++", *options, str(SOURCE)], check=True)
        partial.replace(library)
    return library


def load(library: Path) -> None:
    """Load torch's C++ libraries, then the shim; torch's Python side must come after it."""
    assert "torch" not in sys.modules, "import torch after the shim is loaded"
    libraries = torch_folder() / "lib"
    for name in (*sorted(libraries.glob("libgomp*")), libraries / "libc10.so", libraries / "libtorch_cpu.so"):
        ctypes.CDLL(str(name), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library))
