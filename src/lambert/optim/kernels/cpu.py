"""The compiled kernel on CPU tensors: which layers it supports, and how threads share them."""

from __future__ import annotations

import functools
import math
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lambert.optim.equations import LayerHyperparameters, trust_ratio
from lambert.optim.kernels import plain
from lambert.optim.layers import Layer, flat

if TYPE_CHECKING:
    from numpy.typing import NDArray

with suppress(ModuleNotFoundError):  # NumPy comes with numba; without them nothing here is used
    import numpy as np

INSTALL = "pip install 'lambert-bert[fused]'"

MAX_KEPT = 4_194_304
"""Largest layer, in elements, whose directions are kept between the two sweeps; those of a larger one fall out of every
cache, and computing them twice is faster than reading them back."""


@functools.cache
def compiled() -> ModuleType | None:
    """The compiled loops; None where numba cannot be used, with one warning."""
    loops, why = load()
    if why:
        message = f"LAMB steps on the CPU with plain tensor operations, about twice as slowly: {why}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return loops


def load() -> tuple[ModuleType | None, str]:
    """The compiled loops, or None and the reason as text."""
    try:
        from lambert.optim.kernels import compiled as loops

        loops.compile_now()
    except Exception as error:  # numba fails in many ways: not installed, too old for this Python or this NumPy
        return None, _why(error)
    return loops, ""


def _why(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; install it with: {INSTALL}"
    return (
        f"numba cannot be used ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'})"
    )


def runs(layer: Layer) -> bool:
    """Whether the kernel takes `layer`: float32 on a CPU, dense, with a gradient in float32 or bfloat16."""
    x, g, *moments = layer.tensors
    return (
        all(tensor.device.type == "cpu" for tensor in layer.tensors)
        and all(tensor.dtype == torch.float32 for tensor in (x, *moments))
        and g.dtype in (torch.float32, torch.bfloat16)
        and layer.flat is not None
        and compiled() is not None
    )


def fused_step(layers: Sequence[Layer], rows: Sequence[Tensor]) -> None:
    """Both sweeps of unsharded layers, each while it is in the cache; `rows` receive the sums of squares."""
    if not layers:
        return
    queue = sorted(zip(layers, rows, strict=True), key=lambda item: -item[0].x.numel())
    sizes = [layer.x.numel() for layer, _ in queue]
    threads = torch.get_num_threads()
    # A layer that would keep one thread busy after the others have finished is split over all threads.
    large = sum(threads > 1 and size > sum(sizes) / threads for size in sizes)
    for layer, row in queue[:large]:
        job = _Job(layer, row)
        _update_moments_threaded(job, threads)
        _apply_update_threaded(job, threads)
    del queue[:large]
    sizes_kept = _scratch_sizes(sizes[large:], sum(sizes) // 4, threads)

    def work(worker: int) -> None:
        scratch = _scratch(sizes_kept[worker])
        while True:
            try:
                job = _Job(*queue.pop(0))
            except IndexError:
                return
            job.fused_step(scratch[: job.size] if job.size <= sizes_kept[worker] else None)

    _in_threads(work, min(threads, len(queue)))


def update_moments(layers: Sequence[Layer], rows: Sequence[Tensor]) -> None:
    """The first sweep of each layer."""
    for layer, row in zip(layers, rows, strict=True):
        _update_moments_threaded(_Job(layer, row), torch.get_num_threads())


def apply_update(layers: Sequence[Layer], rows: Sequence[Tensor]) -> None:
    """The second sweep of each layer, with `rows` as they are now."""
    for layer, row in zip(layers, rows, strict=True):
        _apply_update_threaded(_Job(layer, row), torch.get_num_threads())


def gradient_squares(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Σg² of each gradient, 0-dimensional; by the kernel where it can."""
    squares: list[Tensor | None] = [None] * len(gradients)
    queue = []
    for index, g in enumerate(gradients):
        views = flat([g]) if g.device.type == "cpu" and g.dtype in (torch.float32, torch.bfloat16) else None
        if views is None or compiled() is None:
            squares[index] = plain.gradient_square(g)
        else:
            queue.append((index, _array(views[0])))
    queue.sort(key=lambda item: -item[1].size)

    def work(worker: int) -> None:
        loops = _loops()
        while True:
            try:
                index, g = queue.pop(0)
            except IndexError:
                return
            sums = np.empty(-(-g.size // loops.BLOCK))
            loops.gradient_squares(g, sums)
            squares[index] = torch.tensor(sums.sum())

    _in_threads(work, min(torch.get_num_threads(), len(queue)))
    return [square for square in squares if square is not None]


def _loops() -> ModuleType:
    loops = compiled()
    assert loops is not None
    return loops


class _Job:
    """One layer as arrays."""

    def __init__(self, layer: Layer, row: Tensor) -> None:
        assert layer.flat is not None
        self.x, self.g, self.m, self.v = (_array(view) for view in layer.flat)
        self.hyper = layer.hyper
        self.constants = _constants(layer.hyper)
        self.row = row.numpy()
        self.size = self.x.size

    def fused_step(self, u: NDArray[np.float32] | None) -> None:
        """The whole step; directions are kept in `u`, or computed twice without it."""
        loops = _loops()
        if self.hyper.adapt:
            min_norm, max_norm = self.hyper.norm_bounds or (0.0, math.inf)
            rate = self.hyper.learning_rate
            loops.fused_step(self.x, self.g, self.m, self.v, u, self.constants, rate, min_norm, max_norm, self.row)
        else:
            sums = np.empty((2, -(-self.size // loops.BLOCK)))
            loops.update_moments(self.x, self.g, self.m, self.v, None, self.step_size(), self.constants, sums)

    def step_size(self) -> np.float32:
        """η · ratio."""
        ratio = 1.0
        if self.hyper.adapt:
            norms = torch.from_numpy(self.row).sqrt()
            ratio = float(trust_ratio(norms[0], norms[1], self.hyper.norm_bounds))
        return np.float32(self.hyper.learning_rate * ratio)


def _update_moments_threaded(job: _Job, threads: int) -> None:
    """The first sweep of one layer, split over threads at block boundaries."""
    loops = _loops()
    sums = np.zeros((2, -(-job.size // loops.BLOCK)))
    edges = _edges(sums.shape[1], threads)

    def work(worker: int) -> None:
        blocks = slice(edges[worker], edges[worker + 1])
        part = slice(blocks.start * loops.BLOCK, blocks.stop * loops.BLOCK)
        own = np.zeros((2, blocks.stop - blocks.start))
        loops.update_moments(job.x[part], job.g[part], job.m[part], job.v[part], None, None, job.constants, own)
        sums[:, blocks] = own

    _in_threads(work, threads)
    if job.hyper.adapt:
        job.row[:] = sums.sum(1)


def _apply_update_threaded(job: _Job, threads: int) -> None:
    loops = _loops()
    edges = _edges(-(-job.size // loops.BLOCK), threads)
    step = job.step_size()

    def work(worker: int) -> None:
        part = slice(edges[worker] * loops.BLOCK, edges[worker + 1] * loops.BLOCK)
        loops.apply_update(job.x[part], job.m[part], job.v[part], None, step, job.constants)

    _in_threads(work, threads)


def _edges(blocks: int, threads: int) -> list[int]:
    return [blocks * worker // threads for worker in range(threads + 1)]


_own = threading.local()


def _scratch(size: int) -> NDArray[np.float32]:
    """Room for `size` elements that this thread keeps from step to step: new pages are slow."""
    buffer: NDArray[np.float32] | None = getattr(_own, "buffer", None)
    if buffer is None or buffer.size < size:
        buffer = _own.buffer = np.empty(size, np.float32)
    return buffer


def _scratch_sizes(sizes: Sequence[int], budget: int, threads: int) -> list[int]:
    """Elements of u that each thread may keep, at most `budget` in all (a byte a parameter): the first thread, which
    starts with the largest layer, gets enough for it, and the others share the rest."""
    largest = max(sizes, default=0)
    alone = min(largest, budget, MAX_KEPT)
    others = min((budget - alone) // max(1, threads - 1), largest, MAX_KEPT)
    return [alone, *[others] * (threads - 1)]


def _array(view: Tensor) -> NDArray[Any]:
    if view.dtype == torch.bfloat16:
        bits: NDArray[Any] = view.detach().view(torch.int16).numpy().view(np.uint16)
        return bits
    array: NDArray[Any] = view.detach().numpy()
    return array


@functools.lru_cache(maxsize=64)
def _constants(hyper: LayerHyperparameters) -> tuple[np.float32, ...]:
    constants = (
        hyper.beta1,
        hyper.beta2,
        hyper.m_correction,
        hyper.v_correction,
        hyper.epsilon,
        hyper.weight_decay,
        hyper.gradient_factor,
        1 - hyper.beta1,
        1 - hyper.beta2,
    )
    return tuple(np.float32(constant) for constant in constants)


def _in_threads(work: Callable[[int], None], threads: int) -> None:
    """`work(0)` here, `work(1)` to `work(threads − 1)` in other threads; the compiled loops let one another run."""
    if threads < 1:
        return
    others = (
        [_pool(os.getpid(), threads - 1).submit(work, worker) for worker in range(1, threads)] if threads > 1 else []
    )
    work(0)
    for other in others:
        other.result()


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process (a fork has none of its parent's)."""
    return ThreadPoolExecutor(threads, thread_name_prefix="lamb")
