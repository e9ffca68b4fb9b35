"""The most memory that this process has had since it was last asked to forget."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory(device: torch.device) -> None:
    """Count from what is taken now, what is free given back before that; where the system cannot, the peak stays that
    of the whole process.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # of glibc only
    if trim is not None:
        trim(0)
    try:
        _CLEAR.write_text("5")  # proc(5): reset the peak resident set size
    except OSError:
        return


def peak_memory_bytes(device: torch.device) -> int:
    """Of a GPU what PyTorch has taken; of the machine all that was resident of this process, libraries included; 0
    where the system does not tell (other than Linux).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return 1_024 * int(found[1]) if found else 0
