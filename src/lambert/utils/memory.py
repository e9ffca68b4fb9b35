"""Memory that runs out: how to tell, and a limit on what a library may allocate while it decodes a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAPPED = Path("/proc/self/statm")
_OUT_OF_MEMORY = (
    "can't allocate memory",  # PyTorch's CPU allocator
    "not enough memory",  # the same on Windows
    "Cannot allocate memory",  # the system, for a mapped file, a thread or a library that is loaded
    "can't start new thread",
    "could not create a primitive",  # oneDNN, whose code and scratch memory did not fit
    "could not create a memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU, where PyTorch raises a plain RuntimeError."""
    torch = sys.modules.get("torch")  # the error is none of its own if it was never loaded
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(said in str(error) for said in _OUT_OF_MEMORY)


def memory_words(error: BaseException) -> str:
    """What to say of an allocation that failed, in one line."""
    return f"memory ran out ({str(error).partition(chr(10))[0] or 'an allocation failed'})"


@contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    """Lets the block allocate `most` bytes more than the process has; the allocation that would pass that fails.

    It limits the address space, on Linux only; elsewhere it does nothing.

    Raises:
        MemoryError: in the block.
    """
    if not _MAPPED.exists():
        yield
        return
    import resource

    mapped = int(_MAPPED.read_bytes().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (soft, hard, mapped + most) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
