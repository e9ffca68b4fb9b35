"""Tensors as arrays for the loops, the loops in several threads, and products that lie across."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lambert.model.cpu import loops

_TURNED_COLUMNS_AT_LEAST = 512
"""From so many columns on, turning one factor of a weight's gradient costs less than a product that reads it across."""


Numbers = NDArray[np.uint16] | NDArray[np.float32]


def as_array(tensor: Tensor) -> Numbers:
    """A contiguous tensor's memory: float32, or bfloat16 as uint16."""
    assert tensor.is_contiguous() and tensor.dtype in (torch.bfloat16, torch.float32), (tensor.shape, tensor.dtype)
    tensor = tensor.detach()
    array: Numbers = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def as_floats(tensor: Tensor) -> NDArray[np.float32]:
    """A copy of a short tensor in float32. Weights that NumPy looked into could not be resized, as FSDP2 does."""
    floats: NDArray[np.float32] = tensor.detach().to(torch.float32, copy=True).contiguous().numpy()
    return floats


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """A pool for each process: a forked one has none of its parent's threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="bert")


def shared(count: int, work: Callable[[int, int], Any]) -> list[Any]:
    """`work(begin, end)` for parts of 0 … count, one for each of PyTorch's threads."""
    threads = max(1, min(torch.get_num_threads(), count))
    edges = [count * part // threads for part in range(threads + 1)]
    if threads == 1:
        return [work(0, count)]
    others = [_pool(os.getpid(), threads - 1).submit(work, *edges[part : part + 2]) for part in range(1, threads)]
    return [work(edges[0], edges[1]), *(other.result() for other in others)]


def turned(matrix: Tensor) -> Tensor:
    """[R, C] → [C, R], contiguous."""
    source = as_array(matrix.contiguous())
    target = torch.empty(matrix.shape[::-1], dtype=matrix.dtype)
    bits = as_array(target)
    shared(-(-source.shape[0] // loops.BLOCK), lambda begin, end: _turn_rows(source, bits, begin, end))
    return target


def _turn_rows(source: Numbers, target: Numbers, begin: int, end: int) -> None:
    rows = slice(begin * loops.BLOCK, end * loops.BLOCK)
    loops.turn(source[rows], target[:, rows])


def weight_gradient(grad: Tensor, hidden: Tensor) -> Tensor:
    """gradᵀ · hidden, [T, O] and [T, I] → [O, I].

    oneDNN multiplies bfloat16 at half its rate where the first factor lies across; so the narrower one is turned first.
    """
    outputs = grad.shape[1]
    inputs = hidden.shape[1]
    if grad.dtype != torch.bfloat16 or min(outputs, inputs) < _TURNED_COLUMNS_AT_LEAST:
        return grad.t() @ hidden
    if outputs <= inputs:
        return turned(grad) @ hidden
    return turned(turned(hidden) @ grad)


def column_sums(values: Tensor) -> Tensor:
    """Sums [N] of the columns of [T, N]."""
    bits = as_array(values)

    def work(begin: int, end: int) -> NDArray[np.float32]:
        sums = np.zeros(bits.shape[1], np.float32)
        loops.column_sums(bits, sums, begin, end)
        return sums

    return rounded(shared(len(bits), work), values.dtype)


def rounded(parts: list[NDArray[np.float32]], kind: torch.dtype) -> Tensor:
    """The sum of what the threads have added up."""
    return torch.from_numpy(np.sum(parts, axis=0)).to(kind)
