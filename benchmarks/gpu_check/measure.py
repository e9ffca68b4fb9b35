"""Clocks of a device, and the two ceilings that others are compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gpu_check.stages import Settings

_FILLER, _FILLED = 4_096, 250
"""Side and number of the products that keep a GPU busy, some 50 ms, while the host launches what is measured."""


@dataclass(frozen=True)
class Times:
    """Medians, seconds."""

    device: float
    """From the first kernel to the end of the last, launched ahead; on a CPU the call."""
    host: float
    """Until the call returns."""
    wall: float
    """Of one call among many, until the device is done with all."""


def wait(settings: Settings) -> None:
    """Until the device is done."""
    if settings.on_gpu:
        torch.cuda.synchronize()


def times(settings: Settings, work: Callable[[], Any]) -> Times:
    """Time of `work` on the device, on the host and in a row."""
    warm_up, repeats = (1, 2) if settings.small else (3, 10)
    for _ in range(warm_up):
        work()
    wait(settings)
    began, host = time.perf_counter(), []
    for _ in range(repeats):
        before = time.perf_counter()
        work()
        host.append(time.perf_counter() - before)
    wait(settings)
    wall = (time.perf_counter() - began) / repeats
    if not settings.on_gpu:
        return Times(statistics.median(host), statistics.median(host), wall)
    side = 64 if settings.small else _FILLER
    filler = torch.randn(side, side, device=settings.device, dtype=torch.bfloat16)
    pairs = []
    for _ in range(repeats // 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(1 if settings.small else _FILLED):
            filler @ filler
        begin.record()
        work()
        end.record()
        end.synchronize()
        pairs.append(begin.elapsed_time(end) / 1e3)
    return Times(statistics.median(pairs), statistics.median(host), wall)


def copy_bandwidth(settings: Settings) -> float:
    """Bytes read and written per second by a large copy."""
    source = torch.empty(2**18 if settings.small else 2**29, dtype=torch.float32, device=settings.device).normal_()
    target = torch.empty_like(source)
    seconds = times(settings, lambda: target.copy_(source)).device
    return 2 * source.numel() * source.element_size() / max(seconds, 1e-9)


def product_rate(settings: Settings, dtype: torch.dtype, *, random: bool = True) -> float:
    """FLOP/s of a large square product."""
    side = 128 if settings.small else 8_192
    shape = (2, side, side)
    factors = torch.randn(shape, device=settings.device) if random else torch.ones(shape, device=settings.device)
    one, other = factors.to(dtype)
    seconds = times(settings, lambda: one @ other).device
    return 2 * side**3 / max(seconds, 1e-9)
