"""Settings of the C library's allocator that a training process gives itself.

glibc returns large blocks to the system when they are freed, and every step then faults the same pages in anew, which
for the scores of a large vocabulary costs more than the product that fills them. A training process keeps them.
"""

from __future__ import annotations

import ctypes
import platform

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 1 << 28


def apply_allocator_settings() -> bool:
    """Keeps freed memory in this process, on Linux with glibc; returns whether it does.

    The process then holds the most memory it ever used until it ends.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    never = -1  # as an unsigned size: the largest there is
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, never), (_M_TOP_PAD, _TOP_PAD_BYTES))
    taken: list[int] = [mallopt(name, value) for name, value in settings]
    return all(taken)
