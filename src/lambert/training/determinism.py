"""PyTorch's deterministic algorithms, for deterministic runs on a GPU."""

from __future__ import annotations

import os

import torch


def use_deterministic_algorithms(device: torch.device) -> None:
    """Let PyTorch use only operations that give the same bits each time, from now on in this process.

    On a GPU, cuBLAS gets workspaces of a fixed size, which it reads at its first matmul, and attention's backward pass
    sums without atomics. On a CPU there is nothing to change. Untested on GPU.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it
