"""The Triton kernels on GPU tensors: which layers they support, and the tables they read. Untested on GPU."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lambert.optim.equations import LayerHyperparameters
from lambert.optim.layers import Layer

REMEDY = (
    "Triton (pip install triton), a C compiler and Python's headers (Debian and Ubuntu: apt install gcc python3-dev); "
    "the environment variable CC names another compiler"
)
"""What Triton needs, to be put after "install"."""
_ADDING = 1_024


@functools.cache
def load(device: torch.device) -> tuple[ModuleType | None, str]:
    """The loops, or None and the reason as text why they cannot run on `device`.

    One launch tries it: Triton compiles its own driver only then, for which it needs a C compiler.
    """
    try:
        from lambert.optim.kernels import triton_loops as loops

        with on(device):
            partial, sums = torch.zeros(1, 2, device=device), torch.zeros(1, 2, dtype=torch.float64, device=device)
            loops.add_up[(1,)](partial, torch.tensor([0, 1], device=device), sums, _ADDING)
    except torch.OutOfMemoryError:  # the step's own error, which ends with smaller micro-batches
        raise
    except Exception as error:  # Triton raises many kinds where its driver or compiler is missing
        return None, _why(error)
    return loops, ""


def _why(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    first = next(iter(str(error).splitlines()), "no message")
    return f"Triton cannot compile or launch its kernels ({type(error).__name__}: {first})"


@functools.cache
def loops_for(device: torch.device) -> ModuleType | None:
    """The loops; None where they cannot run, with one warning."""
    loops, why = load(device)
    if why:
        message = f"LAMB steps on {device} with plain tensor operations, which is slower: {why}. Install {REMEDY}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return loops


def is_interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on CPU tensors, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def waits(tensor: Tensor) -> bool:
    """Whether reading the tensor on the host waits for a device, or is to be avoided as if it did."""
    return tensor.device.type != "cpu" or is_interpreted()


def on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Context in which `device` is the current GPU: Triton launches there, wherever its tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def runs(layer: Layer) -> bool:
    """Whether the loops take `layer`: float32 on a GPU, dense, its gradient in float32, bfloat16 or float16."""
    return (
        all(tensor.device == layer.x.device for tensor in layer.tensors)
        and (layer.x.device.type == "cuda" or is_interpreted())
        and all(tensor.dtype == torch.float32 for tensor in (layer.x, *layer.moments))
        and layer.g.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and layer.flat is not None
        and loops_for(layer.x.device) is not None
    )


class Tables:
    """A table of the layers of each device, kept while their tensors stay where they are."""

    def __init__(self) -> None:
        self._kept: dict[torch.device, _Table] = {}
        self._in_graphs: list[_Table] = []

    def of(self, layers: Sequence[Layer], found_inf: Tensor | None) -> list[tuple[_Table, list[int]]]:
        """A table for each device, ready for this step, and the indices of its layers.

        Args:
            found_inf: 0-dimensional on any device; where it is not 0 the step changes nothing.
        """
        indices: dict[torch.device, list[int]] = {}
        for index, layer in enumerate(layers):
            indices.setdefault(layer.x.device, []).append(index)
        tables = []
        for device, chosen in indices.items():
            own = [layers[index] for index in chosen]
            static = _static_facts(own)
            table = self._kept.get(device)
            if table is None or table.static != static:
                if table is not None and table.captured:
                    self._in_graphs.append(table)
                table = self._kept[device] = _Table(device, own, static)
            table.upload(own, found_inf)
            tables.append((table, chosen))
        return tables


def _static_facts(layers: Sequence[Layer]) -> list[tuple[Any, ...]]:
    """What a table holds of each layer: addresses of x, m, v and the step count, size, gradient's type, alignment, and
    the row of its hyperparameters."""
    rows: dict[int, int] = {}
    facts = []
    for layer in layers:
        addresses = [tensor.data_ptr() for tensor in (layer.x, *layer.moments)]
        size, kind = layer.x.numel(), layer.g.dtype
        is_aligned = not (size % 8 or any(address % 16 for address in addresses) or layer.g.data_ptr() % 16)
        row = rows.setdefault(id(layer.hyper), len(rows))
        facts.append((*addresses, layer.step.data_ptr(), size, kind, is_aligned, row))
    return facts


class _Table:
    """Addresses, sizes and numbers of the layers on one device.

    Every step uploads the gradients' addresses and the hyperparameters, in one copy, where they have changed.
    """

    def __init__(self, device: torch.device, layers: Sequence[Layer], static: list[tuple[Any, ...]]) -> None:
        code = loops_for(device)
        assert code is not None
        self.device, self.code, self.static = device, code, static
        kinds = [(kind, is_aligned) for *_, kind, is_aligned, _ in static]
        # Layers of one type and alignment lie side by side: one launch each.
        self.order = sorted(range(len(layers)), key=lambda index: (str(kinds[index][0]), not kinds[index][1]))
        ordered = [static[index] for index in self.order]
        counts = torch.tensor([-(-facts[4] // code.CHUNK) for facts in ordered])
        first_chunk = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        self.chunks = int(first_chunk[-1])
        self.parts: list[tuple[torch.dtype, bool, int, int]] = []
        """Type, alignment, first chunk and number of chunks."""
        for index, count in zip(self.order, counts.tolist(), strict=True):
            if count == 0:
                continue
            *_, begin, number = self.parts[-1] if self.parts else (0, 0)
            if self.parts and self.parts[-1][:2] == kinds[index]:
                self.parts[-1] = (*kinds[index], begin, number + count)
            else:
                self.parts.append((*kinds[index], begin + number, count))
        chunk_layer = torch.repeat_interleave(torch.arange(len(layers), dtype=torch.int32), counts)
        self.addresses = torch.tensor([facts[:4] for facts in ordered]).to(device)
        self.sizes = torch.tensor([facts[4] for facts in ordered]).to(device)
        self.row_of_layer = torch.tensor([facts[-1] for facts in ordered], dtype=torch.int32).to(device)
        self.first_chunk, self.chunk_layer = first_chunk.to(device), chunk_layer.to(device)
        self.numbers = torch.zeros(len(layers), code.NUMBERS, device=device)
        self.nothing_found = torch.zeros((), device=device)
        self.found_inf = self.nothing_found
        self.sums = torch.zeros(len(layers), 2, dtype=torch.float64, device=device)
        self.rows = [self.sums[place] for place in sorted(range(len(layers)), key=self.order.__getitem__)]
        """‖x‖² and ‖u‖² of each layer, in the order in which the layers came."""
        row_count = 1 + max(facts[-1] for facts in static)
        self.slots = len(layers) + len(layers) % 2  # what follows is aligned to 16 bytes
        self.uploaded = torch.zeros(self.slots + row_count * (2 + code.VALUES), dtype=torch.int64, device=device)
        self.gradients = self.uploaded[: self.slots]
        self.scalars = self.uploaded[self.slots : self.slots + 2 * row_count]
        self.values = self.uploaded[self.slots + 2 * row_count :].view(torch.float64)
        self._last: tuple[list[int], list[list[float]]] | None = None
        self._used: list[Tensor] = []
        self.captured: list[Tensor] = []
        """What CUDA graphs copy from at every replay, whatever other steps have uploaded in between."""

    def upload(self, layers: Sequence[Layer], found_inf: Tensor | None) -> None:
        """Give the device what differs from the last step: one copy, or none."""
        self.found_inf = self.nothing_found if found_inf is None else found_inf.to(self.device, torch.float32)
        hypers = list({id(layer.hyper): layer.hyper for layer in layers}.values())
        scalars = [_scalar(number, self.device) for h in hypers for number in (h.learning_rate, h.gradient_factor)]
        self._used = [scalar for scalar in scalars if scalar is not None]  # until they have been read
        addresses = [layers[index].g.data_ptr() for index in self.order]
        addresses += [0] * (self.slots - len(addresses))
        addresses += [0 if scalar is None else scalar.data_ptr() for scalar in scalars]
        values = [_values(hyper) for hyper in hypers]
        is_capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
        if (addresses, values) == self._last and not (is_capturing or self.captured):
            return
        self._last = addresses, values
        # Page-locked memory comes from PyTorch's allocator, which does not reuse it before the copy has ended.
        pinned = torch.empty(self.uploaded.shape, dtype=torch.int64, pin_memory=self.device.type == "cuda")
        pinned[: len(addresses)] = torch.tensor(addresses)
        pinned[len(addresses) :].view(torch.float64).copy_(torch.tensor(values, dtype=torch.float64).flatten())
        self.uploaded.copy_(pinned, non_blocking=True)
        if is_capturing:
            self.captured.append(pinned)

    def update_moments(self) -> None:
        """Moments of all layers, and their sums of squares."""
        code = self.code
        rows = (self.row_of_layer, self.scalars, self.values)
        with on(self.device):
            code.prepare[(len(self.rows),)](
                self.addresses, *rows, self.found_inf, self.numbers, code.VALUES, num_warps=1
            )
            partial = torch.empty(self.chunks, 2, device=self.device)
            shared = (self.sizes, self.numbers, self.chunk_layer, self.first_chunk)
            for kind, is_aligned, first, count in self.parts:
                arguments = (self.addresses, self.gradients, *shared, partial, first)
                kind_there = getattr(code.tl, str(kind).removeprefix("torch."))
                code.update_moments[(count,)](*arguments, kind_there, code.CHUNK, is_aligned, num_warps=code.WARPS)
            code.add_up[(len(self.rows),)](partial, self.first_chunk, self.sums, _ADDING)

    def apply_update(self) -> None:
        """Weights of all layers, with `rows` as they are now."""
        code = self.code
        shared = (self.sizes, self.numbers, self.chunk_layer, self.first_chunk)
        with on(self.device):
            for _, is_aligned, first, count in self.parts:
                arguments = (self.addresses, *shared, self.sums, first)
                code.apply_update[(count,)](*arguments, code.CHUNK, is_aligned, num_warps=code.WARPS)


def _scalar(number: float | Tensor, device: torch.device) -> Tensor | None:
    return number.to(device, torch.float32) if isinstance(number, Tensor) else None


def _values(hyper: LayerHyperparameters) -> list[float]:
    """A row of `triton_loops.VALUES`."""
    rate, factor = hyper.learning_rate, hyper.gradient_factor
    low, high = hyper.norm_bounds or (0.0, math.inf)
    return [
        0.0 if isinstance(rate, Tensor) else rate,
        hyper.beta1,
        hyper.beta2,
        hyper.epsilon,
        hyper.weight_decay,
        1.0 if isinstance(factor, Tensor) else factor,
        float(hyper.adapt),
        low,
        high,
        float(hyper.correction_step != math.inf),
    ]
