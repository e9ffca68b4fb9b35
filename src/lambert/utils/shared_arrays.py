"""Arrays in memory that several processes share: a file without a name, which ends with its last process."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64
"""Of each array, bytes."""

Layout = dict[str, tuple[str, tuple[int, ...], int]]
"""Data type, shape and first byte of each array, as JSON can say them."""


class SharedArrays:
    """Named arrays of any types and shapes, read where they lie. The memory grows to the most that was written.

    Unlike `/dev/shm` it has no limit of its own, and nothing is left of it when all processes are killed.

    Args:
        descriptor: of the memory that another process made; None makes it.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _memory() if descriptor is None else descriptor
        self._mapped: mmap.mmap | None = None

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> Layout:
        """Put `arrays` in place of what was written before; returns what `read` needs, in any of the processes."""
        layout: Layout = {}
        end = _ALIGNMENT  # never empty, or it could not be mapped
        for name, array in arrays.items():
            layout[name] = (array.dtype.str, array.shape, end)
            end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        if end > self.size:
            os.ftruncate(self.descriptor, end)
        for name, own in self.read(layout).items():
            own[...] = arrays[name]
        return layout

    def bytes(self, layout: Layout) -> NDArray[np.uint8]:
        """The memory from its begin to the end of the last array, not copied."""
        sizes = (first + np.dtype(kind).itemsize * math.prod(shape) for kind, shape, first in layout.values())
        return self.read({"all": ("|u1", (max(sizes, default=0),), 0)})["all"]

    def read(self, layout: Layout) -> dict[str, NDArray[Any]]:
        """The arrays, not copied: the next `write` changes them."""
        if self._mapped is None or len(self._mapped) < self.size:
            self._mapped = mmap.mmap(self.descriptor, self.size)
        return {name: np.ndarray(shape, kind, self._mapped, first) for name, (kind, shape, first) in layout.items()}

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self.descriptor).st_size

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self.descriptor)


def _memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("lambert")
    with tempfile.TemporaryFile() as file:  # macOS
        return os.dup(file.fileno())
