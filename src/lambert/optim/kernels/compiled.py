"""The loops of LAMB's step, compiled by numba for the processor at hand; gradients may be bfloat16.

Bits depend neither on the number of threads nor on the function that a loop is inlined into: the compiler may not
reorder or contract. Sums are taken over blocks of `BLOCK` elements, in `STRIP` float32 sums that are added up in
float64, and the blocks are added up in float64 in their order.
"""

# numba compiles what it sees: no annotations inside, and mypy knows nothing of the decorators.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,call-arg,unreachable"
from __future__ import annotations

import numba
import numpy as np
from numba.extending import overload

from lambert.kernel_cache import kept
from lambert.optim.kernels.memory import AHEAD, STRIP, accessors, request

BLOCK = 8_192
"""Elements of one sum."""

_load_x, _store_x = accessors("x")
_load_g, _ = accessors("g")
_load_m, _store_m = accessors("m")
_load_v, _store_v = accessors("v")
_load_u, _store_u = accessors("u")
_load_x_sum, _store_x_sum = accessors("x_sums")
_load_u_sum, _store_u_sum = accessors("u_sums")


_KEPT = kept(nogil=True, error_model="numpy")
"""For what Python calls: machine code that is kept on disk. Nothing compiled calls it, see `lambert.kernel_cache`."""


def _inlined(**options):
    """For what compiled functions call: inlined, since a sum in a function of its own has another order once loaded."""
    return numba.njit(nogil=True, error_model="numpy", forceinline=True, **options)


def _wide(value):
    """A gradient as float32: bfloat16 comes as the upper 16 bits of one."""


@overload(_wide, inline="always")
def _wide_for(value):
    if value == numba.types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@_inlined()
def _direction(x, m, v, m_correction, v_correction, epsilon, weight_decay):
    return (m * m_correction) / (np.sqrt(v * v_correction) + epsilon) + weight_decay * x


@_inlined()
def _moved(x, u, step):
    return x - step * u


# Loops go by strips of a constant length and request a later strip before they compute one. `u` and `step` may be None,
# which compiles to code without them; `c` are the constants of `update_moments`.


@_inlined()
def _moments_of_one(x, g, m, v, u, step, c, i, x_sums, u_sums, lane):
    beta1, beta2, m_correction, v_correction, epsilon, weight_decay, factor, one_minus_beta1, one_minus_beta2 = c
    gradient = _wide(_load_g(g, i)) * factor
    new_m = beta1 * _load_m(m, i) + one_minus_beta1 * gradient
    new_v = beta2 * _load_v(v, i) + one_minus_beta2 * (gradient * gradient)
    _store_m(m, i, new_m)
    _store_v(v, i, new_v)
    old = _load_x(x, i)
    direction = _direction(old, new_m, new_v, m_correction, v_correction, epsilon, weight_decay)
    if u is not None:
        _store_u(u, i, direction)
    if step is not None:
        _store_x(x, i, _moved(old, direction, step))
    _store_x_sum(x_sums, lane, _load_x_sum(x_sums, lane) + old * old)
    _store_u_sum(u_sums, lane, _load_u_sum(u_sums, lane) + direction * direction)


@_inlined()
def _moments(x, g, m, v, u, step, c, begin, end, x_sums, u_sums):
    x_sums[:] = 0
    u_sums[:] = 0
    strips = (end - begin) // STRIP
    for strip in range(strips):
        start = begin + strip * STRIP
        request(x, start + AHEAD)
        request(g, start + AHEAD)
        request(m, start + AHEAD)
        request(v, start + AHEAD)
        for i in range(STRIP):
            _moments_of_one(x, g, m, v, u, step, c, start + i, x_sums, u_sums, i)
    rest = begin + strips * STRIP
    for i in range(end - rest):
        _moments_of_one(x, g, m, v, u, step, c, rest + i, x_sums, u_sums, i)


@_inlined()
def _total(sums):
    total = 0.0
    for i in range(STRIP):
        total += sums[i]
    return total


@_inlined()
def _move_one(x, m, v, u, step, c, i):
    old = _load_x(x, i)
    if u is not None:
        direction = _load_u(u, i)
    else:
        direction = _direction(old, _load_m(m, i), _load_v(v, i), c[2], c[3], c[4], c[5])
    _store_x(x, i, _moved(old, direction, step))


@_inlined()
def _all_moments(x, g, m, v, u, step, c, block_sums):
    x_sums, u_sums = np.empty(STRIP, np.float32), np.empty(STRIP, np.float32)
    for block in range(block_sums.shape[1]):
        start = block * BLOCK
        _moments(x, g, m, v, u, step, c, start, min(start + BLOCK, x.shape[0]), x_sums, u_sums)
        block_sums[0, block], block_sums[1, block] = _total(x_sums), _total(u_sums)


@_KEPT
def update_moments(x, g, m, v, u, step, c, block_sums):
    """Moments of a stretch of a layer, and the sums of its blocks.

    Args:
        x, m, v: float32 [N], m and v changed in place.
        g: float32 [N], or bfloat16 as uint16.
        u: float32 [N] that gets the direction, or None.
        step: x ← x − step · u too, for a layer whose ratio is 1, or None.
        c: nine float32: β₁, β₂, corrections of m and v, ε, λ, the factor of g, 1 − β₁, 1 − β₂.
        block_sums: float64 [2, blocks], gets Σx² and Σu² of each block.
    """
    _all_moments(x, g, m, v, u, step, c, block_sums)


@_inlined()
def _move(x, m, v, u, step, c):
    """From the end to the start, where the first sweep left the cache warm."""
    strips = x.shape[0] // STRIP
    for i in range(strips * STRIP, x.shape[0]):
        _move_one(x, m, v, u, step, c, i)
    for strip in range(strips - 1, -1, -1):
        start = strip * STRIP
        request(x, start - AHEAD)
        if u is not None:
            request(u, start - AHEAD)
        else:
            request(m, start - AHEAD)
            request(v, start - AHEAD)
        for i in range(STRIP):
            _move_one(x, m, v, u, step, c, start + i)


@_KEPT
def apply_update(x, m, v, u, step, c):
    """x ← x − step · u.

    Args:
        u: float32 [N] from the first sweep, or None to compute it again.
    """
    _move(x, m, v, u, step, c)


@_KEPT
def fused_step(x, g, m, v, u, c, learning_rate, min_norm, max_norm, sums):
    """The whole step of an adapted layer; `sums` float64 [2] gets Σx² and Σu².

    Args:
        min_norm, max_norm: the bounds of φ.
    """
    block_sums = np.empty((2, (x.shape[0] + BLOCK - 1) // BLOCK))
    _all_moments(x, g, m, v, u, None, c, block_sums)
    sums[0], sums[1] = block_sums[0].sum(), block_sums[1].sum()
    ratio = 1.0
    if sums[0] > 0 and sums[1] > 0:
        ratio = min(max(np.sqrt(sums[0]), min_norm), max_norm) / np.sqrt(sums[1])
    _move(x, m, v, u, np.float32(learning_rate * ratio), c)


def compile_now() -> None:
    """Compile what float32 gradients need, so that a numba or LLVM that cannot fails here and not in a step.

    The form that computes directions twice waits for a layer so large: each form takes seconds of every start.
    """
    x, g, m, v, u = np.zeros((5, 1), np.float32)
    constants = tuple(np.float32(0) for _ in range(9))
    fused_step(x, g, m, v, u, constants, 0.0, 0.0, np.inf, np.zeros(2))


@_inlined(fastmath={"reassoc", "nsz", "contract"})
def _square(g, begin, end):
    total = np.float32(0)
    quarter = (end - begin) // 4  # four streams at once keep the memory busier than one, and than requests
    for i in range(begin, begin + quarter):
        for stream in range(4):
            value = _wide(_load_g(g, i + stream * quarter))
            total += value * value
    for i in range(begin + 4 * quarter, end):
        value = _wide(_load_g(g, i))
        total += value * value
    return total


@_KEPT
def gradient_squares(g, block_sums):
    """Σg² of each block of a float32 or bfloat16 gradient [N], into float64 [blocks]."""
    for block in range(block_sums.shape[0]):
        block_sums[block] = _square(g, block * BLOCK, min((block + 1) * BLOCK, g.shape[0]))
