"""The loops of LAMB's step, compiled by numba for the processor at hand; gradients may be bfloat16.

Bits do not depend on the number of threads: the direction is computed without reordering or contraction, in either
sweep; sums are taken over blocks of `BLOCK` elements in float32, each block by the same code, and the blocks are added
up in float64 in their order.
"""

# numba compiles what it sees: no annotations inside, and mypy knows nothing of the decorators.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"
from __future__ import annotations

import numba
import numpy as np
from numba.extending import overload

BLOCK = 8_192
"""Elements of one sum: with x, g, m, v and u 160 kB, a share of a second-level cache."""


def _wide(value):
    """A gradient as float32: bfloat16 comes as the upper 16 bits of one."""


@overload(_wide, inline="always")
def _wide_for(value):
    if value == numba.types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@numba.njit(nogil=True, error_model="numpy")
def _direction(x, m, v, m_correction, v_correction, epsilon, weight_decay):
    return (m * m_correction) / (np.sqrt(v * v_correction) + epsilon) + weight_decay * x


# Loops run from 0 over views, and their constants are scalars: only so does the compiler make vector code of them.


@numba.njit(nogil=True, error_model="numpy")
def _scaled(g, u, factor):
    for i in range(g.shape[0]):
        u[i] = _wide(g[i]) * factor


@numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _moments_and_directions(
    x, m, v, u, beta1, beta2, one_minus_beta1, one_minus_beta2, m_correction, v_correction, epsilon, weight_decay
):
    """`u` holds the gradient and gets the direction (with g in a fifth array the compiler gives up on vectors)."""
    x_square, u_square = np.float32(0), np.float32(0)
    for i in range(x.shape[0]):
        gradient = u[i]
        m[i] = beta1 * m[i] + one_minus_beta1 * gradient
        v[i] = beta2 * v[i] + one_minus_beta2 * (gradient * gradient)
        direction = _direction(x[i], m[i], v[i], m_correction, v_correction, epsilon, weight_decay)
        u[i] = direction
        x_square += x[i] * x[i]
        u_square += direction * direction
    return x_square, u_square


@numba.njit(nogil=True, error_model="numpy")
def _directions(x, m, v, u, m_correction, v_correction, epsilon, weight_decay):
    for i in range(x.shape[0]):
        u[i] = _direction(x[i], m[i], v[i], m_correction, v_correction, epsilon, weight_decay)


@numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _square(a):
    total = np.float32(0)
    for i in range(a.shape[0]):
        value = _wide(a[i])
        total += value * value
    return total


@numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _four_squares(a, b, c, d):
    a_total, b_total, c_total, d_total = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for i in range(a.shape[0]):
        a_value, b_value, c_value, d_value = _wide(a[i]), _wide(b[i]), _wide(c[i]), _wide(d[i])
        a_total += a_value * a_value
        b_total += b_value * b_value
        c_total += c_value * c_value
        d_total += d_value * d_value
    return a_total, b_total, c_total, d_total


@numba.njit(nogil=True, error_model="numpy")
def _subtract(x, u, step):
    for i in range(x.shape[0]):
        x[i] -= step * u[i]


@numba.njit(nogil=True, error_model="numpy")
def first(x, g, m, v, u, keeps, c, block_sums):
    """Moments of a stretch of a layer, and the sums of its blocks.

    Args:
        x, m, v: float32 [N], m and v changed in place.
        g: float32 [N], or bfloat16 as uint16.
        u: float32, [N] when `keeps`, else one block that is written over.
        c: float32 [9]: β₁, β₂, corrections of m and v, ε, λ, the factor of g, 1 − β₁, 1 − β₂.
        block_sums: float64 [2, blocks], gets Σx² and Σu² of each block.
    """
    n = x.shape[0]
    for block in range(block_sums.shape[1]):
        start = block * BLOCK
        stop = min(start + BLOCK, n)
        place = start if keeps else 0
        xs, ms, vs, us = x[start:stop], m[start:stop], v[start:stop], u[place : place + stop - start]
        _scaled(g[start:stop], us, c[6])
        sums = _moments_and_directions(xs, ms, vs, us, c[0], c[1], c[7], c[8], c[2], c[3], c[4], c[5])
        block_sums[0, block], block_sums[1, block] = sums


@numba.njit(nogil=True, error_model="numpy")
def second(x, m, v, u, keeps, c, step):
    """x ← x − step · u, from the end to the start, where the first sweep left the cache warm.

    Args:
        u: float32 [N] from the first sweep when it `keeps` it, else room for one block.
    """
    n = x.shape[0]
    for block in range((n + BLOCK - 1) // BLOCK - 1, -1, -1):
        start = block * BLOCK
        stop = min(start + BLOCK, n)
        xs = x[start:stop]
        if keeps:
            _subtract(xs, u[start:stop], step)
        else:
            us = u[: stop - start]
            _directions(xs, m[start:stop], v[start:stop], us, c[2], c[3], c[4], c[5])
            _subtract(xs, us, step)


@numba.njit(nogil=True, error_model="numpy")
def not_adapted(x, g, m, v, u, c, step):
    """Both sweeps at once, for a layer whose ratio is 1; `u` is room for one block."""
    n = x.shape[0]
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        xs, ms, vs, us = x[start:stop], m[start:stop], v[start:stop], u[: stop - start]
        _scaled(g[start:stop], us, c[6])
        _moments_and_directions(xs, ms, vs, us, c[0], c[1], c[7], c[8], c[2], c[3], c[4], c[5])
        _subtract(xs, us, step)


@numba.njit(nogil=True, error_model="numpy")
def gradient_squares(g, block_sums):
    """Σg² of each block of a float32 or bfloat16 gradient [N], into float64 [blocks]."""
    blocks = block_sums.shape[0]
    quarter = max(0, blocks - 1) // 4  # whole blocks only; four streams at once keep the memory busier than one
    for block in range(quarter):
        first_one, second_one, third_one = block * BLOCK, (quarter + block) * BLOCK, (2 * quarter + block) * BLOCK
        last_one = (3 * quarter + block) * BLOCK
        sums = _four_squares(
            g[first_one : first_one + BLOCK],
            g[second_one : second_one + BLOCK],
            g[third_one : third_one + BLOCK],
            g[last_one : last_one + BLOCK],
        )
        block_sums[block], block_sums[quarter + block] = sums[0], sums[1]
        block_sums[2 * quarter + block], block_sums[3 * quarter + block] = sums[2], sums[3]
    for block in range(4 * quarter, blocks):
        start = block * BLOCK
        block_sums[block] = _square(g[start : start + BLOCK])
