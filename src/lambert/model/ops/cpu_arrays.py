"""What the autograd functions share: tensors as NumPy arrays, kernels in several threads, dropout patterns, and weight
gradients."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lambert.model.ops import cpu_kernels

Array = NDArray[np.uint16] | NDArray[np.float32]
Result = TypeVar("Result")
DropoutRNG = tuple[np.uint32, np.uint32, np.uint32, np.float32] | tuple[()]
"""Two words of a seed, the random bits below which an element is dropped, and 1 / (1 − p); empty where p = 0."""

_MIN_TRANSPOSED_COLUMNS = 512
"""From here on, transposing an operand of a weight gradient costs less than a matmul that reads it transposed."""
_MIN_LARGE_OPERAND = 1 << 21
"""From so many elements on, 4 MB in bfloat16, the narrower operand of a product is the one to be read transposed."""


def as_array(tensor: Tensor) -> Array:
    """A contiguous tensor's memory: float32, or bfloat16 as uint16."""
    assert tensor.is_contiguous() and tensor.dtype in (torch.bfloat16, torch.float32), (tensor.shape, tensor.dtype)
    tensor = tensor.detach()
    array: Array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def as_floats(tensor: Tensor) -> NDArray[np.float32]:
    """A float32 copy of a short tensor. A copy, since FSDP2 resizes weights and NumPy views would forbid that."""
    floats: NDArray[np.float32] = tensor.detach().to(torch.float32, copy=True).contiguous().numpy()
    return floats


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """A thread pool for each process: a fork inherits none of its parent's threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="bert")


def parallel(count: int, work: Callable[[int, int], Result]) -> list[Result]:
    """`work(begin, end)` for equal parts of 0 … count, one for each of PyTorch's threads."""
    threads = max(1, min(torch.get_num_threads(), count))
    edges = [count * part // threads for part in range(threads + 1)]
    if threads == 1:
        return [work(0, count)]
    others = [_pool(os.getpid(), threads - 1).submit(work, *edges[part : part + 2]) for part in range(1, threads)]
    return [work(edges[0], edges[1]), *(other.result() for other in others)]


def run(kernel: Any, count: int, *arguments: Any) -> None:
    """`kernel(*arguments, begin, end)` for 0 … count, in parallel."""
    parallel(count, lambda begin, end: kernel(*arguments, begin, end))


def run_with_sums(kernel: Any, like: Tensor, sums: int, *arguments: Any) -> Tensor:
    """`run` over the rows of `like` [T, N] for a kernel that also adds to float32 [N] arrays, passed before `begin`.

    Returns:
        The totals over all threads, [sums, N] in the dtype of `like`.
    """
    rows, columns = like.shape

    def work(begin: int, end: int) -> NDArray[np.float32]:
        partial = np.zeros((sums, columns), np.float32)
        kernel(*arguments, *partial, begin, end)
        return partial

    return torch.from_numpy(np.sum(parallel(rows, work), axis=0)).to(like.dtype)


def new_dropout(p: float) -> DropoutRNG:
    """A new dropout pattern, seeded by PyTorch's generator."""
    if p == 0:
        return ()
    seed0, seed1 = torch.randint(0, 1 << 32, (2,)).tolist()
    return np.uint32(seed0), np.uint32(seed1), np.uint32(round(p * 2**32)), np.float32(1 / (1 - p))


def overwritable(ctx: Any, saved: Tensor) -> Tensor:
    """A saved tensor that the backward pass overwrites, so it may run only once."""
    if getattr(ctx, "overwritten", False):
        raise RuntimeError("these gradients can be computed only once: run the forward pass again")
    ctx.overwritten = True
    return saved


def transpose_contiguous(matrix: Tensor) -> Tensor:
    """[R, C] → [C, R], contiguous."""
    source = as_array(matrix.contiguous())
    target = torch.empty(matrix.shape[::-1], dtype=matrix.dtype)
    transposed = as_array(target)

    def work(begin: int, end: int) -> None:
        rows = slice(begin * cpu_kernels.TILE, end * cpu_kernels.TILE)
        cpu_kernels.transpose(source[rows], transposed[:, rows])

    parallel(-(-source.shape[0] // cpu_kernels.TILE), work)
    return target


def weight_gradient(grad: Tensor, input: Tensor) -> Tensor:
    """gradᵀ · input, [T, O] and [T, I] → [O, I].

    oneDNN's bfloat16 matmul runs at half its rate when the first operand is transposed, so the narrower operand is
    copied into its transpose first.
    """
    outputs, inputs = grad.shape[1], input.shape[1]
    if grad.dtype != torch.bfloat16 or min(outputs, inputs) < _MIN_TRANSPOSED_COLUMNS:
        return grad.t() @ input
    if outputs <= inputs:
        return transpose_contiguous(grad) @ input
    return transpose_contiguous(transpose_contiguous(input) @ grad)


def transposed_matmul(left: Tensor, right: Tensor) -> Tensor:
    """leftᵀ · right, [V, M] and [V, H] → [M, H].

    oneDNN's bfloat16 matmul is slower with a large transposed operand than with a small one: the product is then
    computed as (rightᵀ · left)ᵀ, with the same bits (measured: docs/performance.md).
    """
    if left.dtype == torch.bfloat16 and right.shape[1] < left.shape[1] and left.numel() >= _MIN_LARGE_OPERAND:
        return transpose_contiguous(right.t() @ left)
    return left.t() @ right


def column_sums(values: Tensor) -> Tensor:
    """Sums [N] of the columns of [T, N]."""
    return run_with_sums(cpu_kernels.column_sums, values, 1, as_array(values))[0]
