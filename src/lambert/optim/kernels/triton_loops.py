"""The loops of LAMB's step for a GPU, in Triton: a few launches for any number of layers. Untested on GPU.

A table holds the addresses of every layer; each program works on one chunk of one layer. Sums are kept chunk by chunk
and added up in a fixed order, so the same step gives the same bits.
"""

# Triton compiles what it sees: no annotations inside, and mypy knows nothing of the decorators.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,misc"
from __future__ import annotations

import triton
import triton.language as tl

CHUNK = 4_096
"""Elements that one program works on."""
WARPS = 8
"""Of a program that works on a chunk: 16 elements for each thread."""
ALIGNED_BYTES, ALIGNED_ELEMENTS = 16, 8
"""Where every address of a layer is a multiple of the first, and its size of the second, loads are 16 bytes wide."""
NUMBERS = 14
"""Columns of `numbers` float32 [layers, 14]: η, β₁, β₂, 1 − β₁, 1 − β₂, corrections of m and v, ε, λ, the factor of g,
whether the layer is adapted, min and max of φ, and whether this step changes anything."""
VALUES = 10
"""Columns of `values` float64 [rows, 10]: η, β₁, β₂, ε, λ, the factor of g, whether the layer is adapted, min and max
of φ, whether moments are corrected. Their row of `scalars` int64 [rows, 2]: addresses of a float32 η and of a float32
by which the factor is multiplied, on the device; 0 without one."""
# Rows of `addresses`, four columns: x, m, v, and the number of earlier steps.


@triton.jit
def _on_device(address, otherwise):
    pointer = address.to(tl.pointer_type(tl.float32))
    return tl.load(pointer, mask=address != 0, other=otherwise)


@triton.jit
def prepare(addresses, row_of_layer, scalars, values, found_inf, numbers, value_columns: tl.constexpr):
    """`numbers` of every layer for this step; one program each."""
    layer = tl.program_id(0)
    row = tl.load(row_of_layer + layer)
    value = values + row * value_columns
    beta1, beta2 = tl.load(value + 1), tl.load(value + 2)
    step = tl.load(tl.load(addresses + layer * 4 + 3).to(tl.pointer_type(tl.float32))).to(tl.float64) + 1
    is_corrected = tl.load(value + 9) > 0
    rate = _on_device(tl.load(scalars + row * 2), tl.load(value).to(tl.float32))
    factor = tl.load(value + 5).to(tl.float32) * _on_device(tl.load(scalars + row * 2 + 1), 1.0)
    number = numbers + layer * 14
    tl.store(number, rate)
    tl.store(number + 1, beta1.to(tl.float32))
    tl.store(number + 2, beta2.to(tl.float32))
    tl.store(number + 3, (1 - beta1).to(tl.float32))
    tl.store(number + 4, (1 - beta2).to(tl.float32))
    tl.store(number + 5, tl.where(is_corrected, 1 / (1 - tl.exp(step * tl.log(beta1))), 1.0).to(tl.float32))
    tl.store(number + 6, tl.where(is_corrected, 1 / (1 - tl.exp(step * tl.log(beta2))), 1.0).to(tl.float32))
    tl.store(number + 7, tl.load(value + 3).to(tl.float32))
    tl.store(number + 8, tl.load(value + 4).to(tl.float32))
    tl.store(number + 9, factor)
    tl.store(number + 10, tl.load(value + 6).to(tl.float32))
    tl.store(number + 11, tl.load(value + 7).to(tl.float32))
    tl.store(number + 12, tl.load(value + 8).to(tl.float32))
    tl.store(number + 13, tl.where(tl.load(found_inf) == 0, 1.0, 0.0))


@triton.jit
def _address(addresses, index, kind: tl.constexpr, is_aligned: tl.constexpr):
    address = tl.load(addresses + index).to(tl.pointer_type(kind))
    if is_aligned:
        address = tl.multiple_of(address, 16)
    return address


@triton.jit
def _elements(layer, chunk, sizes, first_chunk, numbers, size: tl.constexpr, is_aligned: tl.constexpr):
    """Indices of a chunk, and which of them are in the layer; none if the step changes nothing."""
    index = (chunk - tl.load(first_chunk + layer)) * size + tl.arange(0, size)
    end = tl.where(tl.load(numbers + layer * 14 + 13) > 0, tl.load(sizes + layer), 0)
    if is_aligned:
        end = tl.multiple_of(end, 8)
    return index, index < end


@triton.jit
def _direction(x, m, v, row):
    m_correction, v_correction = tl.load(row + 5), tl.load(row + 6)
    epsilon, weight_decay = tl.load(row + 7), tl.load(row + 8)
    return (m * m_correction) / (tl.sqrt(v * v_correction) + epsilon) + weight_decay * x


@triton.jit
def update_moments(
    addresses,
    gradients,
    sizes,
    numbers,
    chunk_layer,
    first_chunk,
    partial,
    first,
    gradient_type: tl.constexpr,
    size: tl.constexpr,
    is_aligned: tl.constexpr,
):
    """Moments in place; Σx² and Σu² of each chunk into `partial` float32 [chunks, 2]. `first` is the first chunk."""
    chunk = first + tl.program_id(0)
    layer = tl.load(chunk_layer + chunk)
    index, inside = _elements(layer, chunk, sizes, first_chunk, numbers, size, is_aligned)
    row = numbers + layer * 14
    x = tl.load(_address(addresses, layer * 4, tl.float32, is_aligned) + index, inside, other=0.0)
    g = tl.load(_address(gradients, layer, gradient_type, is_aligned) + index, inside, other=0.0).to(tl.float32)
    g = g * tl.load(row + 9)
    m_address = _address(addresses, layer * 4 + 1, tl.float32, is_aligned)
    v_address = _address(addresses, layer * 4 + 2, tl.float32, is_aligned)
    m = tl.load(row + 1) * tl.load(m_address + index, inside, other=0.0) + tl.load(row + 3) * g
    v = tl.load(row + 2) * tl.load(v_address + index, inside, other=0.0) + tl.load(row + 4) * (g * g)
    tl.store(m_address + index, m, inside)
    tl.store(v_address + index, v, inside)
    u = tl.where(inside, _direction(x, m, v, row), 0.0)
    tl.store(partial + 2 * chunk, tl.sum(x * x))
    tl.store(partial + 2 * chunk + 1, tl.sum(u * u))


@triton.jit
def add_up(partial, first_chunk, sums, size: tl.constexpr):
    """The chunks of each layer into `sums` float64 [layers, 2], always in the same order."""
    layer = tl.program_id(0)
    begin, end = tl.load(first_chunk + layer), tl.load(first_chunk + layer + 1)
    x_square = tl.zeros((size,), tl.float64)
    u_square = tl.zeros((size,), tl.float64)
    for start in range(begin, end, size):
        index = start + tl.arange(0, size)
        inside = index < end
        x_square += tl.load(partial + 2 * index, inside, other=0.0).to(tl.float64)
        u_square += tl.load(partial + 2 * index + 1, inside, other=0.0).to(tl.float64)
    tl.store(sums + 2 * layer, tl.sum(x_square))
    tl.store(sums + 2 * layer + 1, tl.sum(u_square))


@triton.jit
def apply_update(
    addresses,
    sizes,
    numbers,
    chunk_layer,
    first_chunk,
    sums,
    first,
    size: tl.constexpr,
    is_aligned: tl.constexpr,
):
    """x ← x − η · ratio · u."""
    chunk = first + tl.program_id(0)
    layer = tl.load(chunk_layer + chunk)
    index, inside = _elements(layer, chunk, sizes, first_chunk, numbers, size, is_aligned)
    row = numbers + layer * 14
    x_norm = tl.sqrt(tl.load(sums + 2 * layer))
    u_norm = tl.sqrt(tl.load(sums + 2 * layer + 1))
    phi = tl.minimum(tl.maximum(x_norm, tl.load(row + 11).to(tl.float64)), tl.load(row + 12).to(tl.float64))
    is_defined = (x_norm > 0) & (u_norm > 0) & (tl.load(row + 10) > 0)
    ratio = tl.where(is_defined, phi / tl.where(u_norm > 0, u_norm, 1.0), 1.0).to(tl.float32)
    x_address = _address(addresses, layer * 4, tl.float32, is_aligned)
    x = tl.load(x_address + index, inside, other=0.0)
    m = tl.load(_address(addresses, layer * 4 + 1, tl.float32, is_aligned) + index, inside, other=0.0)
    v = tl.load(_address(addresses, layer * 4 + 2, tl.float32, is_aligned) + index, inside, other=0.0)
    tl.store(x_address + index, x - tl.load(row) * ratio * _direction(x, m, v, row), inside)
