"""Scalar functions that numba inlines into the kernels: dtype conversion, exponential, dropout's random bits, GELU."""

# numba compiles what it sees: no annotations inside, and mypy knows nothing of the decorators.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,call-arg,unreachable"
from __future__ import annotations

import math

import numba
import numpy as np
from numba.extending import overload

FASTMATH = {"reassoc", "nsz", "contract", "arcp"}
"""The compiler may reorder and contract arithmetic; NaN and infinity keep their meaning."""

_INLINE = numba.njit(nogil=True, error_model="numpy", fastmath=FASTMATH, inline="always")

_LOG2_E = np.float32(1.4426950408889634)
_SQRT_HALF = np.float32(math.sqrt(0.5))
_PDF_AT_0 = np.float32(1 / math.sqrt(2 * math.pi))


def to_float32(value):
    """An array element as float32; uint16 holds the upper 16 bits of a float32, which is bfloat16."""


@overload(to_float32, inline="always")
def _to_float32(value):
    if value == numba.types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


def cast_to(target, value):
    """A float32 as an element of the array `target`: unchanged, or rounded to the nearest bfloat16, ties to even."""


@overload(cast_to, inline="always")
def _cast_to(target, value):
    if target.dtype != numba.types.uint16:
        return lambda target, value: np.float32(value)

    def to_bfloat16(target, value):
        bits = np.float32(value).view(np.uint32)
        last = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16(np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + last) >> np.uint32(16))

    return to_bfloat16


@_INLINE
def exp(value):
    """e^value for value ≤ 0: 2^floor(x) times a polynomial in the rest, x = value · log₂ e; 0 below e^−87."""
    power = np.float32(value) * _LOG2_E
    underflows = power <= np.float32(-126.0)  # false for NaN, which must stay
    power = np.float32(-126.0) if underflows else power
    whole = np.floor(power)
    rest = power - whole
    # Minimax fit of 2^x over [0, 1) by weighted least squares: relative error at most 7.5e-8.
    result = np.float32(1.8775767e-3)
    result = result * rest + np.float32(8.9893397e-3)
    result = result * rest + np.float32(5.5826318e-2)
    result = result * rest + np.float32(2.4015361e-1)
    result = result * rest + np.float32(6.9315308e-1)
    result = result * rest + np.float32(9.9999994e-1)
    scale = np.uint32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    # Exactly 0: subnormal numbers would slow down every operation that reads them.
    return np.float32(0) if underflows else result * scale


@_INLINE
def to_ordered_int(value):
    """An int32 in the same order as the float32 values, NaN largest: the maximum of integers vectorizes."""
    bits = np.float32(value).view(np.int32)
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@_INLINE
def from_ordered_int(number):
    """Inverse of `to_ordered_int`."""
    return np.int32(number ^ ((number >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)


@_INLINE
def random_bits(index, seed0, seed1):
    """32 random bits for element `index`: Wellons' lowbias32 hash, with the seed mixed in twice."""
    # numba widens integers to 64 bits unless every step casts.
    bits = np.uint32(np.uint32(np.uint32(index) * np.uint32(0x9E3779B9)) + seed0)
    bits = np.uint32(bits ^ np.uint32(bits >> np.uint32(16)))
    bits = np.uint32(bits * np.uint32(0x7FEB352D))
    bits = np.uint32(bits ^ np.uint32(np.uint32(bits >> np.uint32(15)) ^ seed1))
    bits = np.uint32(bits * np.uint32(0x846CA68B))
    return np.uint32(bits ^ np.uint32(bits >> np.uint32(16)))


def dropout_factor(index, rng):
    """What dropout multiplies element `index` by: 0 or 1 / (1 − p); 1 if `rng` is empty."""


@overload(dropout_factor, inline="always")
def _dropout_factor(index, rng):
    if len(rng) == 0:
        return lambda index, rng: np.float32(1)

    def factor(index, rng):
        seed0, seed1, threshold, scale = rng
        return scale if random_bits(index, seed0, seed1) >= threshold else np.float32(0)

    return factor


@_INLINE
def normal_cdf_pdf(value):
    """Φ(value) and φ(value). Φ by Abramowitz and Stegun 7.1.26, error below 1.5e-7."""
    size = abs(value) * _SQRT_HALF
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * size)
    tail = np.float32(1.061405429)
    tail = tail * t + np.float32(-1.453152027)
    tail = tail * t + np.float32(1.421413741)
    tail = tail * t + np.float32(-0.284496736)
    tail = tail * t + np.float32(0.254829592)
    bell = exp(-size * size)
    half = np.float32(0.5) * tail * t * bell
    cdf = half if value < np.float32(0) else np.float32(1) - half
    return cdf, bell * _PDF_AT_0
