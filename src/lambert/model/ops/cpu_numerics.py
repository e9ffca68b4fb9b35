"""Single numbers in the loops, compiled into them: formats, exponentials, dropout's draws, the parts of GELU."""

# numba compiles what it sees: no annotations inside, and mypy knows nothing of the decorators.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,call-arg,unreachable"
from __future__ import annotations

import math

import numba
import numpy as np
from numba.extending import overload

FAST = {"reassoc", "nsz", "contract", "arcp"}
"""What the compiler may do to sums and products; NaN and infinity keep their meaning."""

_INLINE = numba.njit(nogil=True, error_model="numpy", fastmath=FAST, inline="always")

_LOG2_E = np.float32(1.4426950408889634)
_SQRT_HALF = np.float32(math.sqrt(0.5))
_DENSITY = np.float32(1 / math.sqrt(2 * math.pi))


def wide(value):
    """A number from memory as float32: bfloat16 is the upper 16 bits of one."""


@overload(wide, inline="always")
def _wide_for(value):
    if value == numba.types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


def stored(target, value):
    """A float32 as array `target` holds it: as it is, or rounded to the nearest bfloat16, to even."""


@overload(stored, inline="always")
def _as_for(target, value):
    if target.dtype != numba.types.uint16:
        return lambda target, value: np.float32(value)

    def narrow(target, value):
        bits = np.float32(value).view(np.uint32)
        last = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16(np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + last) >> np.uint32(16))

    return narrow


@_INLINE
def exp(value):
    """e to `value` ≤ 0: two to the whole part of the exponent, times a polynomial for the rest; 0 below e^−87."""
    power = np.float32(value) * _LOG2_E
    small = power <= np.float32(-126.0)  # NaN is not, and stays
    power = np.float32(-126.0) if small else power
    whole = np.floor(power)
    rest = power - whole
    # Least worst relative error over [0, 1) for 2 to x: 7.5e-8 (fitted by weighted least squares).
    result = np.float32(1.8775767e-3)
    result = result * rest + np.float32(8.9893397e-3)
    result = result * rest + np.float32(5.5826318e-2)
    result = result * rest + np.float32(2.4015361e-1)
    result = result * rest + np.float32(6.9315308e-1)
    result = result * rest + np.float32(9.9999994e-1)
    scale = np.uint32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    # A clean 0: what lies below the smallest normal number would slow down everything that meets it.
    return np.float32(0) if small else result * scale


@_INLINE
def ordered(value):
    """A whole number that orders as `value` does, NaN above all: maxima of whole numbers become vector code."""
    bits = np.float32(value).view(np.int32)
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@_INLINE
def unordered(number):
    """The value of such a number."""
    return np.int32(number ^ ((number >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)


@_INLINE
def draw(number, seed0, seed1):
    """32 random bits of element `number`: a hash with the constants of Wellons' lowbias32, the seed mixed in twice."""
    # numba widens whole numbers to 64 bits unless it is told otherwise at every step.
    bits = np.uint32(np.uint32(np.uint32(number) * np.uint32(0x9E3779B9)) + seed0)
    bits = np.uint32(bits ^ np.uint32(bits >> np.uint32(16)))
    bits = np.uint32(bits * np.uint32(0x7FEB352D))
    bits = np.uint32(bits ^ np.uint32(np.uint32(bits >> np.uint32(15)) ^ seed1))
    bits = np.uint32(bits * np.uint32(0x846CA68B))
    return np.uint32(bits ^ np.uint32(bits >> np.uint32(16)))


@_INLINE
def kept(number, dropout):
    """What element `number` is multiplied with: 0 or 1 / (1 − p)."""
    seed0, seed1, threshold, scale = dropout
    return scale if draw(number, seed0, seed1) >= threshold else np.float32(0)


@_INLINE
def gelu_parts(value):
    """Φ(value) and the normal density there. Φ by Abramowitz and Stegun 7.1.26, error below 1.5e-7."""
    size = abs(value) * _SQRT_HALF
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * size)
    tail = np.float32(1.061405429)
    tail = tail * t + np.float32(-1.453152027)
    tail = tail * t + np.float32(1.421413741)
    tail = tail * t + np.float32(-0.284496736)
    tail = tail * t + np.float32(0.254829592)
    bell = exp(-size * size)
    half = np.float32(0.5) * tail * t * bell
    share = half if value < np.float32(0) else np.float32(1) - half
    return share, bell * _DENSITY
