"""Allocator settings of a training process.

glibc returns large freed blocks to the system, so every step faults the same pages in again. For the logits of a large
vocabulary this costs more than the matmul that fills them. A training process keeps the blocks.
"""

from __future__ import annotations

import ctypes
import os
import platform

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 1 << 28
_KERNELS = "128"
"""oneDNN keeps that many compiled matmuls, one for each shape. The number of masked tokens differs from micro-batch to
micro-batch, and its own limit of 1,024 holds some 200 MB more; fewer than 128 cost time (docs/performance.md)."""


def apply_allocator_settings() -> bool:
    """Keep freed memory in this process (Linux with glibc); returns whether it is supported. Also limit oneDNN's cache.

    The process then holds its peak memory until it ends.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KERNELS)  # read when oneDNN is first used
    library = glibc()
    if library is None:
        return False
    never = -1  # the largest unsigned size
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, never), (_M_TOP_PAD, _TOP_PAD_BYTES))
    taken: list[int] = [library.mallopt(name, value) for name, value in settings]
    return all(taken)


def release_free_memory() -> None:
    """Return what the heap holds but nobody uses (glibc; elsewhere nothing happens).

    Blocks of passing shapes, of an evaluation or a finished phase, leave gaps that no later block fits, so that the
    heap of a long run grows. This costs some milliseconds, and a page fault for each page that is needed again.
    """
    if (library := glibc()) is not None:
        library.malloc_trim(0)


def glibc() -> ctypes.CDLL | None:
    """The C library of this process; None where it is not glibc."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
