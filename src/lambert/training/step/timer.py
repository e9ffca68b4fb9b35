"""Step time breakdown, and the peak matmul throughput of the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from lambert.training.config.precision import Precision

PARTS = ("data", "forward", "backward", "communication", "optimizer")
"""Sections of a step, in order; the rest of the step is not counted."""

_PEAK_SIZE = {"cpu": 2_048, "cuda": 8_192}
_PEAK_REPEATS = 3


class StepTimer:
    """Measures the seconds of each section: wall time on a CPU, device events on a GPU.

    On a GPU nothing synchronizes until the seconds are asked for.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Context that counts as section `name`."""
        if self._on_gpu and name != "data":  # batches are built on the host
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((name, begin, end))
            return
        began = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - began

    def lap(self) -> Callable[[], dict[str, float]]:
        """End a step; the returned function gives the seconds of its sections, and waits for the device if it must."""
        seconds, self._seconds = self._seconds, dict.fromkeys(PARTS, 0.0)
        events, self._events = self._events, []

        def read() -> dict[str, float]:
            if events and not events[-1][2].query():
                events[-1][2].synchronize()
            for name, begin, end in events:
                seconds[name] += begin.elapsed_time(end) / 1_000
            events.clear()
            return seconds

        return read


def peak_matmul_flops(device: torch.device, precision: Precision) -> float:
    """FLOP/s of large square matmuls of random numbers, median of three, in the run's dtype, on all threads.

    On ones a GPU takes less power, keeps a higher clock and is faster than any training can be.
    """
    size = _PEAK_SIZE.get(device.type, _PEAK_SIZE["cpu"])
    kind = torch.float32 if precision is Precision.FLOAT32 else torch.bfloat16
    random = torch.Generator(device).manual_seed(0)  # not the one that dropout draws from
    factor = torch.randn(size, size, generator=random, device=device, dtype=kind)
    seconds = []
    for _ in range(1 + _PEAK_REPEATS):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        factor @ factor
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(seconds[1:])
