"""The loops of LAMB's step for a GPU, in Triton: three launches for any number of layers. Untested on GPU.

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
# Rows of `addresses`, four columns: x, g, m, v. Rows of `numbers`, thirteen columns: η, β₁, β₂, 1 − β₁, 1 − β₂,
# corrections of m and v, ε, λ, the factor of g, whether the layer is adapted, min and max of φ.


@triton.jit
def _float32(addresses, layer, column: tl.constexpr):
    return tl.load(addresses + layer * 4 + column).to(tl.pointer_type(tl.float32))


@triton.jit
def _direction(x, m, v, numbers, layer):
    row = numbers + layer * 13
    m_correction, v_correction = tl.load(row + 5), tl.load(row + 6)
    epsilon, weight_decay = tl.load(row + 7), tl.load(row + 8)
    return (m * m_correction) / (tl.sqrt(v * v_correction) + epsilon) + weight_decay * x


@triton.jit
def update_moments(
    addresses, sizes, numbers, chunk_layer, chunk_start, partial, gradient_type: tl.constexpr, size: tl.constexpr
):
    """Moments in place; Σx² and Σu² of each chunk into `partial` float32 [chunks, 2]."""
    chunk = tl.program_id(0)
    layer = tl.load(chunk_layer + chunk)
    index = tl.load(chunk_start + chunk) + tl.arange(0, size)
    inside = index < tl.load(sizes + layer)
    row = numbers + layer * 13
    x = tl.load(_float32(addresses, layer, 0) + index, inside, other=0.0)
    g_address = tl.load(addresses + layer * 4 + 1).to(tl.pointer_type(gradient_type))
    g = tl.load(g_address + index, inside, other=0.0).to(tl.float32) * tl.load(row + 9)
    m_address, v_address = _float32(addresses, layer, 2), _float32(addresses, layer, 3)
    m = tl.load(row + 1) * tl.load(m_address + index, inside, other=0.0) + tl.load(row + 3) * g
    v = tl.load(row + 2) * tl.load(v_address + index, inside, other=0.0) + tl.load(row + 4) * (g * g)
    tl.store(m_address + index, m, inside)
    tl.store(v_address + index, v, inside)
    u = tl.where(inside, _direction(x, m, v, numbers, layer), 0.0)
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
def apply_update(addresses, sizes, numbers, chunk_layer, chunk_start, sums, size: tl.constexpr):
    """x ← x − η · ratio · u."""
    chunk = tl.program_id(0)
    layer = tl.load(chunk_layer + chunk)
    index = tl.load(chunk_start + chunk) + tl.arange(0, size)
    inside = index < tl.load(sizes + layer)
    row = numbers + layer * 13
    x_norm = tl.sqrt(tl.load(sums + 2 * layer))
    u_norm = tl.sqrt(tl.load(sums + 2 * layer + 1))
    phi = tl.minimum(tl.maximum(x_norm, tl.load(row + 11).to(tl.float64)), tl.load(row + 12).to(tl.float64))
    is_defined = (x_norm > 0) & (u_norm > 0) & (tl.load(row + 10) > 0)
    ratio = tl.where(is_defined, phi / tl.where(u_norm > 0, u_norm, 1.0), 1.0).to(tl.float32)
    x_address = _float32(addresses, layer, 0)
    x = tl.load(x_address + index, inside, other=0.0)
    m = tl.load(_float32(addresses, layer, 2) + index, inside, other=0.0)
    v = tl.load(_float32(addresses, layer, 3) + index, inside, other=0.0)
    u = _direction(x, m, v, numbers, layer)
    tl.store(x_address + index, x - tl.load(row) * ratio * u, inside)
