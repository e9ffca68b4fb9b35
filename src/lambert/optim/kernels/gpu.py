"""The Triton kernels on GPU tensors: which layers they support, and the tables they read. Untested on GPU."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from lambert.optim.equations import LayerHyperparameters
from lambert.optim.layers import Layer

_ADDING = 1_024


@functools.cache
def loops() -> ModuleType | None:
    """The Triton loops; None where Triton is not installed or does not load."""
    try:
        from lambert.optim.kernels import triton_loops

        return triton_loops
    except Exception:  # Triton raises many kinds where its driver or compiler is missing
        return None


def is_interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on CPU tensors, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def runs(layer: Layer) -> bool:
    """Whether the loops take `layer`: float32 on a GPU, dense, its gradient in float32, bfloat16 or float16."""
    return (
        all(tensor.device == layer.x.device for tensor in layer.tensors)
        and (layer.x.device.type == "cuda" or is_interpreted())
        and all(tensor.dtype == torch.float32 for tensor in (layer.x, *layer.moments))
        and layer.g.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and layer.x.numel() > 0
        and layer.flat is not None
        and loops() is not None
    )


def fused_step(layers: Sequence[Layer], rows: Sequence[Tensor]) -> None:
    """Both sweeps of whole layers; `rows` [2] get their sums."""
    for table in _tables(layers, rows):
        table.update_moments()
        table.apply_update()


def update_moments(layers: Sequence[Layer], rows: Sequence[Tensor]) -> None:
    """Moments of all layers, and the local sums of squares into `rows`."""
    for table in _tables(layers, rows):
        table.update_moments()


def apply_update(layers: Sequence[Layer], rows: Sequence[Tensor]) -> None:
    """Weights of all layers, with `rows` as they are now."""
    for table in _tables(layers, rows):
        table.apply_update()


class _Table:
    """Addresses, sizes and numbers of layers on one device with gradients of one type."""

    def __init__(self, layers: Sequence[Layer], rows: Sequence[Tensor]) -> None:
        code = loops()
        assert code is not None
        self.code = code
        self.rows = list(rows)
        self.device = layers[0].x.device
        self.gradient_type = {
            torch.float32: code.tl.float32,
            torch.bfloat16: code.tl.bfloat16,
            torch.float16: code.tl.float16,
        }[layers[0].g.dtype]
        sizes = [layer.x.numel() for layer in layers]
        counts = [-(-size // code.CHUNK) for size in sizes]
        self.chunks = sum(counts)
        addresses = [[t.data_ptr() for t in (layer.x, layer.g, *layer.moments)] for layer in layers]
        table = [_row_of(layer.hyper) for layer in layers]
        self.first_chunk = self._on_device([0, *itertools.accumulate(counts)], torch.int64)
        self.arguments = (
            self._on_device(addresses, torch.int64),
            self._on_device(sizes, torch.int64),
            self._on_device(table, torch.float32),
            self._on_device([i for i, count in enumerate(counts) for _ in range(count)], torch.int64),
            self._on_device([code.CHUNK * i for count in counts for i in range(count)], torch.int64),
        )

    def update_moments(self) -> None:
        partial = torch.empty(self.chunks, 2, dtype=torch.float32, device=self.device)
        self.code.update_moments[(self.chunks,)](*self.arguments, partial, self.gradient_type, self.code.CHUNK)
        sums = torch.empty(len(self.rows), 2, dtype=torch.float64, device=self.device)
        self.code.add_up[(len(self.rows),)](partial, self.first_chunk, sums, _ADDING)
        torch._foreach_copy_(self.rows, list(sums))

    def apply_update(self) -> None:
        sums = torch.stack(self.rows).double()
        self.code.apply_update[(self.chunks,)](*self.arguments, sums, self.code.CHUNK)

    def _on_device(self, values: list[list[int]] | list[list[float]] | list[int], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype).to(self.device, non_blocking=True)


def _tables(layers: Sequence[Layer], rows: Sequence[Tensor]) -> list[_Table]:
    by_type: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, layer in enumerate(layers):
        by_type.setdefault((layer.x.device, layer.g.dtype), []).append(index)
    return [_Table([layers[i] for i in chosen], [rows[i] for i in chosen]) for chosen in by_type.values()]


def _row_of(hyper: LayerHyperparameters) -> list[float]:
    min_norm, max_norm = hyper.norm_bounds or (0.0, float("inf"))
    return [
        hyper.learning_rate,
        hyper.beta1,
        hyper.beta2,
        1 - hyper.beta1,
        1 - hyper.beta2,
        hyper.m_correction,
        hyper.v_correction,
        hyper.epsilon,
        hyper.weight_decay,
        hyper.gradient_factor,
        float(hyper.adapt),
        min_norm,
        max_norm,
    ]
