"""Arrays that are read where they were written, by another holder of the same memory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from lambert.utils.shared_arrays import SharedArrays


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_what_one_writes_the_other_reads_as_the_memory_grows(
    has_memory_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_memory_files:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    one = SharedArrays()
    other = SharedArrays(os.dup(one.descriptor))
    draw = np.random.default_rng(0)
    for size in (0, 3, 100_000, 7):
        arrays: dict[str, Any] = {
            "numbers": draw.integers(0, 1 << 60, (size, 2)),
            "narrow": draw.integers(0, 60_000, size).astype(np.uint16),
            "flags": draw.integers(0, 2, size) == 1,
            "empty": np.zeros((0, 4)),
        }
        layout = one.write(arrays)
        found = other.read(layout)
        assert {name: array.dtype for name, array in found.items()} == {n: a.dtype for n, a in arrays.items()}
        assert all(np.array_equal(found[name], array) for name, array in arrays.items())
        assert all(layout[name][2] % 64 == 0 for name in layout)
        first = layout["flags"][2]
        assert other.bytes(layout)[first:].view(bool)[:size].tolist() == arrays["flags"].tolist()
    assert one.size == other.size >= 100_000 * 19
