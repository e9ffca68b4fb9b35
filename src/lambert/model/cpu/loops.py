"""The loops between BERT's matrix products, compiled by numba for the processor at hand.

Arrays hold float32, or bfloat16 as uint16, of which every value is widened to float32, computed, and rounded to the
nearest even once when it is stored. Dropout is drawn where
it is needed, forward and backward alike, by hashing the number of an element with the two words of a seed: no mask is
kept. Loops that take `begin` and `end` do the rows between them, so that several threads can share the work.

Legend: T rows (tokens), H columns, A heads of D columns each, B sequences of S tokens, V vocabulary, M masked words.
"""

# numba compiles what it sees: no annotations inside, and mypy knows nothing of the decorators.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,call-arg,unreachable"
from __future__ import annotations

import math

import numba
import numpy as np
from numba.extending import overload

_FAST = {"reassoc", "nsz", "contract", "arcp"}
_INLINE = numba.njit(nogil=True, error_model="numpy", fastmath=_FAST, inline="always")
_LOOP = numba.njit(nogil=True, error_model="numpy", fastmath=_FAST)

BLOCK = 32
"""Rows and columns of a block that is turned at once: a cache line of bfloat16."""
STRIPE = 32
"""Rows of scores that are looked at together."""

_LOG2_E = np.float32(1.4426950408889634)
_SQRT_HALF = np.float32(math.sqrt(0.5))
_DENSITY = np.float32(1 / math.sqrt(2 * math.pi))


def _wide(value):
    """A number from memory as float32: bfloat16 is the upper 16 bits of one."""


@overload(_wide, inline="always")
def _wide_for(value):
    if value == numba.types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


def _as(target, value):
    """A float32 as array `target` holds it: as it is, or rounded to the nearest bfloat16, to even."""


@overload(_as, inline="always")
def _as_for(target, value):
    if target.dtype != numba.types.uint16:
        return lambda target, value: np.float32(value)

    def narrow(target, value):
        bits = np.float32(value).view(np.uint32)
        last = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16(np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + last) >> np.uint32(16))

    return narrow


@_INLINE
def _exp(value):
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
def _ordered(value):
    """A whole number that orders as `value` does, NaN above all: maxima of whole numbers become vector code."""
    bits = np.float32(value).view(np.int32)
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@_INLINE
def _unordered(number):
    """The value of such a number."""
    return np.int32(number ^ ((number >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)


@_INLINE
def _draw(number, seed0, seed1):
    """32 random bits of element `number`: a hash with the constants of Wellons' lowbias32, the seed mixed in twice."""
    # numba widens whole numbers to 64 bits unless it is told otherwise at every step.
    bits = np.uint32(np.uint32(np.uint32(number) * np.uint32(0x9E3779B9)) + seed0)
    bits = np.uint32(bits ^ np.uint32(bits >> np.uint32(16)))
    bits = np.uint32(bits * np.uint32(0x7FEB352D))
    bits = np.uint32(bits ^ np.uint32(np.uint32(bits >> np.uint32(15)) ^ seed1))
    bits = np.uint32(bits * np.uint32(0x846CA68B))
    return np.uint32(bits ^ np.uint32(bits >> np.uint32(16)))


@_INLINE
def _kept(number, dropout):
    """What element `number` is multiplied with: 0 or 1 / (1 − p)."""
    seed0, seed1, threshold, scale = dropout
    return scale if _draw(number, seed0, seed1) >= threshold else np.float32(0)


@_LOOP
def turn(source, target):
    """target [C, R] ← source [R, C] turned, both of one type."""
    rows, columns = source.shape
    block = np.empty((BLOCK, BLOCK), source.dtype)
    for top in range(0, rows, BLOCK):
        for left in range(0, columns, BLOCK):
            if top + BLOCK <= rows and left + BLOCK <= columns:
                for row in range(BLOCK):
                    for column in range(BLOCK):
                        block[row, column] = source[top + row, left + column]
                for column in range(BLOCK):
                    for row in range(BLOCK):
                        target[left + column, top + row] = block[row, column]
            else:
                for column in range(left, min(left + BLOCK, columns)):
                    for row in range(top, min(top + BLOCK, rows)):
                        target[column, row] = source[row, column]


@_LOOP
def drop(values, target, dropout, begin, end):
    """target ← dropout of values, both [N]."""
    own, out = values[begin:end], target[begin:end]
    for i in range(end - begin):
        out[i] = _as(out, _wide(own[i]) * _kept(begin + i, dropout))


@_LOOP
def add_norm(branch, residual, weight, bias, epsilon, dropout, unit, root, out, begin, end):
    """out ← layer norm of residual + dropout of branch.

    Args:
        branch, residual: [T, H].
        weight, bias: float32 [H].
        unit: [T, H], gets the sums less their mean over their deviation; `root` float32 [T] 1 / deviation.
    """
    width = branch.shape[1]
    sums = np.empty(width, np.float32)
    for row in range(begin, end):
        total = np.float32(0)
        for i in range(width):
            value = _wide(residual[row, i]) + _wide(branch[row, i]) * _kept(row * width + i, dropout)
            sums[i] = value
            total += value
        mean = total / np.float32(width)
        squares = np.float32(0)
        for i in range(width):
            centred = sums[i] - mean
            sums[i] = centred
            squares += centred * centred
        scale = np.float32(1) / np.sqrt(squares / np.float32(width) + epsilon)
        root[row] = scale
        for i in range(width):
            value = sums[i] * scale
            unit[row, i] = _as(unit, value)
            out[row, i] = _as(out, value * weight[i] + bias[i])


@_LOOP
def add_norm_backward(grad, unit, root, weight, dropout, d_branch, d_residual, d_weight, d_bias, begin, end):
    """Gradients of `add_norm`; those of weight and bias are added to float32 [H]."""
    width = grad.shape[1]
    scaled = np.empty(width, np.float32)
    for row in range(begin, end):
        total, along = np.float32(0), np.float32(0)
        for i in range(width):
            value, own = _wide(grad[row, i]), _wide(unit[row, i])
            d_bias[i] += value
            d_weight[i] += value * own
            value *= weight[i]
            scaled[i] = value
            total += value
            along += value * own
        total /= np.float32(width)
        along /= np.float32(width)
        for i in range(width):
            value = root[row] * (scaled[i] - total - _wide(unit[row, i]) * along)
            d_residual[row, i] = _as(d_residual, value)
            d_branch[row, i] = _as(d_branch, value * _kept(row * width + i, dropout))


@_INLINE
def _gelu_parts(value):
    """Φ(value) and the normal density there. Φ by Abramowitz and Stegun 7.1.26, error below 1.5e-7."""
    size = abs(value) * _SQRT_HALF
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * size)
    tail = np.float32(1.061405429)
    tail = tail * t + np.float32(-1.453152027)
    tail = tail * t + np.float32(1.421413741)
    tail = tail * t + np.float32(-0.284496736)
    tail = tail * t + np.float32(0.254829592)
    bell = _exp(-size * size)
    half = np.float32(0.5) * tail * t * bell
    share = half if value < np.float32(0) else np.float32(1) - half
    return share, bell * _DENSITY


@_LOOP
def gelu(before, after, begin, end):
    """after ← GELU of before, [T, F]."""
    for row in range(begin, end):
        for i in range(before.shape[1]):
            value = _wide(before[row, i])
            share, _ = _gelu_parts(value)
            after[row, i] = _as(after, value * share)


@_LOOP
def gelu_backward(before, grad, d_bias, begin, end):
    """grad ← gradient before GELU; its column sums are added to d_bias float32 [F]."""
    for row in range(begin, end):
        for i in range(before.shape[1]):
            value = _wide(before[row, i])
            share, density = _gelu_parts(value)
            result = _wide(grad[row, i]) * (share + value * density)
            grad[row, i] = _as(grad, result)
            d_bias[i] += result


@_LOOP
def column_sums(values, sums, begin, end):
    """sums float32 [N] += the rows of values [T, N]."""
    for row in range(begin, end):
        for i in range(values.shape[1]):
            sums[i] += _wide(values[row, i])


@_LOOP
def part_heads(stacked, parted, begin, end):
    """parted [K, B, A, S, D] ← stacked [B, S, K, A, D], for the sequences between begin and end."""
    _, length, kinds, heads, width = stacked.shape
    for sequence in range(begin, end):
        for place in range(length):
            for kind in range(kinds):
                for head in range(heads):
                    for i in range(width):
                        parted[kind, sequence, head, place, i] = stacked[sequence, place, kind, head, i]


@_LOOP
def join_heads(parted, stacked, begin, end):
    """stacked [B, S, K, A, D] ← parted [K, B, A, S, D]."""
    _, length, kinds, heads, width = stacked.shape
    for sequence in range(begin, end):
        for place in range(length):
            for kind in range(kinds):
                for head in range(heads):
                    for i in range(width):
                        stacked[sequence, place, kind, head, i] = parted[kind, sequence, head, place, i]


@_LOOP
def softmax(scores, visible, scale, dropout, dropped, begin, end):
    """Attention weights of the visible tokens: scores [B, A, S, S] ← softmax, dropped ← dropout of them.

    Args:
        visible: float32 [B, 1 or S, S], 0 where a token may be looked at and −inf elsewhere.
    """
    _, heads, length, width = scores.shape
    row = np.empty(width, np.float32)
    for sequence in range(begin, end):
        for head in range(heads):
            for place in range(length):
                seen = visible[sequence, min(place, visible.shape[1] - 1)]
                largest = np.int32(-(2**31))
                for i in range(width):
                    value = _wide(scores[sequence, head, place, i]) * scale + seen[i]
                    row[i] = value
                    largest = max(largest, _ordered(value))
                most = _unordered(largest)
                total = np.float32(0)
                for i in range(width):
                    value = _exp(row[i] - most)
                    row[i] = value
                    total += value
                first = ((sequence * heads + head) * length + place) * width
                for i in range(width):
                    value = row[i] / total
                    scores[sequence, head, place, i] = _as(scores, value)
                    dropped[sequence, head, place, i] = _as(dropped, value * _kept(first + i, dropout))


@_LOOP
def softmax_backward(weights, grad, scale, dropout, begin, end):
    """grad of the dropped weights ← that of the scores; weights ← the dropped weights. [B, A, S, S]."""
    _, heads, length, width = weights.shape
    own = np.empty(width, np.float32)
    shares = np.empty(width, np.float32)
    for sequence in range(begin, end):
        for head in range(heads):
            for place in range(length):
                first = ((sequence * heads + head) * length + place) * width
                total = np.float32(0)
                for i in range(width):
                    kept = _kept(first + i, dropout)
                    weight = _wide(weights[sequence, head, place, i])
                    share = _wide(grad[sequence, head, place, i]) * kept * weight
                    weights[sequence, head, place, i] = _as(weights, weight * kept)
                    own[i] = weight
                    shares[i] = share
                    total += share
                for i in range(width):
                    grad[sequence, head, place, i] = _as(grad, (shares[i] - own[i] * total) * scale)


@_LOOP
def word_losses(scores, bias, most, sums, begin, end):
    """Turned scores [V, M] ← e to (score + bias − the most of its stripe), for the columns between.

    Args:
        bias: float32 [V].
        most, sums: float32 [stripes of V, M], get the largest score of every stripe and the sum of what is left there.
    """
    size = scores.shape[0]
    for stripe in range(most.shape[0]):
        top, bottom = stripe * STRIPE, min((stripe + 1) * STRIPE, size)
        # Slices, for an index that may be negative to numba's knowledge is no vector code.
        largest, total = most[stripe, begin:end], sums[stripe, begin:end]
        for m in range(end - begin):
            largest[m] = np.float32(-np.inf)
            total[m] = np.float32(0)
        for v in range(top, bottom):
            row, own = scores[v, begin:end], bias[v]
            for m in range(end - begin):
                value = _wide(row[m]) + own
                largest[m] = value if value > largest[m] else largest[m]
        for v in range(top, bottom):
            row, own = scores[v, begin:end], bias[v]
            for m in range(end - begin):
                value = _exp(_wide(row[m]) + own - largest[m])
                total[m] += value
                row[m] = _as(row, value)


@_LOOP
def word_gradients(scores, factors, labels, d_bias, begin, end):
    """What `word_losses` left, times float32 [stripes, M] factors, less 1 at the labels: for the stripes between.

    Args:
        d_bias: float32 [V], gets the sums over M.
    """
    size, count = scores.shape
    for stripe in range(begin, end):
        top, bottom = stripe * STRIPE, min((stripe + 1) * STRIPE, size)
        own = factors[stripe]
        for v in range(top, bottom):
            total = np.float32(0)
            for m in range(count):
                value = _wide(scores[v, m]) * own[m] - np.float32(labels[m] == v)
                scores[v, m] = _as(scores, value)
                total += value
            d_bias[v] = total
