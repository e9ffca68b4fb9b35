"""A limit on what a library may allocate while it decodes a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAPPED = Path("/proc/self/statm")


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
