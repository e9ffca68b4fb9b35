"""The loops between BERT's matrix products, compiled by numba for the processor at hand.

Arrays hold float32, or bfloat16 as uint16, of which every value is widened to float32, computed, and rounded to the
nearest even once when it is stored. Dropout is drawn where it is needed, forward and backward alike, by hashing the
number of an element with the two words of a seed: no mask is kept. Loops that take `begin` and `end` do the rows
between them, so that several threads can share the work.

Legend: T rows (tokens), H columns, A heads of D columns each, B sequences of S tokens, V vocabulary, M masked words.
"""

# numba compiles what it sees: no annotations inside, and mypy knows nothing of the decorators.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,call-arg,unreachable"
from __future__ import annotations

import numba
import numpy as np

from lambert.model.cpu.numbers import FAST, exp, gelu_parts, kept, ordered, stored, unordered, wide

_LOOP = numba.njit(nogil=True, error_model="numpy", fastmath=FAST)

BLOCK = 32
"""Rows and columns of a block that is turned at once: a cache line of bfloat16."""
STRIPE = 32
"""Rows of scores that are looked at together."""


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
        out[i] = stored(out, wide(own[i]) * kept(begin + i, dropout))


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
            value = wide(residual[row, i]) + wide(branch[row, i]) * kept(row * width + i, dropout)
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
            unit[row, i] = stored(unit, value)
            out[row, i] = stored(out, value * weight[i] + bias[i])


@_LOOP
def add_norm_backward(grad, unit, root, weight, dropout, d_branch, d_residual, d_weight, d_bias, begin, end):
    """Gradients of `add_norm`; those of weight and bias are added to float32 [H]."""
    width = grad.shape[1]
    scaled = np.empty(width, np.float32)
    for row in range(begin, end):
        total, along = np.float32(0), np.float32(0)
        for i in range(width):
            value, own = wide(grad[row, i]), wide(unit[row, i])
            d_bias[i] += value
            d_weight[i] += value * own
            value *= weight[i]
            scaled[i] = value
            total += value
            along += value * own
        total /= np.float32(width)
        along /= np.float32(width)
        for i in range(width):
            value = root[row] * (scaled[i] - total - wide(unit[row, i]) * along)
            d_residual[row, i] = stored(d_residual, value)
            d_branch[row, i] = stored(d_branch, value * kept(row * width + i, dropout))


@_LOOP
def gelu(before, after, begin, end):
    """after ← GELU of before, [T, F]."""
    for row in range(begin, end):
        for i in range(before.shape[1]):
            value = wide(before[row, i])
            share, _ = gelu_parts(value)
            after[row, i] = stored(after, value * share)


@_LOOP
def gelu_backward(before, grad, d_bias, begin, end):
    """grad ← gradient before GELU; its column sums are added to d_bias float32 [F]."""
    for row in range(begin, end):
        for i in range(before.shape[1]):
            value = wide(before[row, i])
            share, density = gelu_parts(value)
            result = wide(grad[row, i]) * (share + value * density)
            grad[row, i] = stored(grad, result)
            d_bias[i] += result


@_LOOP
def column_sums(values, sums, begin, end):
    """sums float32 [N] += the rows of values [T, N]."""
    for row in range(begin, end):
        for i in range(values.shape[1]):
            sums[i] += wide(values[row, i])


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
def softmax(scores, attn_mask, scale, dropout, dropped, begin, end):
    """Attention weights of the visible tokens: scores [B, A, S, S] ← softmax, dropped ← dropout of them.

    Args:
        visible: float32 [B, 1 or S, S], 0 where a token may be looked at and −inf elsewhere.
    """
    _, heads, length, width = scores.shape
    row = np.empty(width, np.float32)
    for sequence in range(begin, end):
        for head in range(heads):
            for place in range(length):
                seen = attn_mask[sequence, min(place, attn_mask.shape[1] - 1)]
                largest = np.int32(-(2**31))
                for i in range(width):
                    value = wide(scores[sequence, head, place, i]) * scale + seen[i]
                    row[i] = value
                    largest = max(largest, ordered(value))
                most = unordered(largest)
                total = np.float32(0)
                for i in range(width):
                    value = exp(row[i] - most)
                    row[i] = value
                    total += value
                first = ((sequence * heads + head) * length + place) * width
                for i in range(width):
                    value = row[i] / total
                    scores[sequence, head, place, i] = stored(scores, value)
                    dropped[sequence, head, place, i] = stored(dropped, value * kept(first + i, dropout))


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
                    factor = kept(first + i, dropout)
                    weight = wide(weights[sequence, head, place, i])
                    share = wide(grad[sequence, head, place, i]) * factor * weight
                    weights[sequence, head, place, i] = stored(weights, weight * factor)
                    own[i] = weight
                    shares[i] = share
                    total += share
                for i in range(width):
                    grad[sequence, head, place, i] = stored(grad, (shares[i] - own[i] * total) * scale)


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
                value = wide(row[m]) + own
                largest[m] = value if value > largest[m] else largest[m]
        for v in range(top, bottom):
            row, own = scores[v, begin:end], bias[v]
            for m in range(end - begin):
                value = exp(wide(row[m]) + own - largest[m])
                total[m] += value
                row[m] = stored(row, value)


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
                value = wide(scores[v, m]) * own[m] - np.float32(labels[m] == v)
                scores[v, m] = stored(scores, value)
                total += value
            d_bias[v] = total
