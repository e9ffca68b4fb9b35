"""Fused element-wise kernels between the matmuls of an encoder, compiled by numba for the CPU they run on.

Arrays hold float32, or bfloat16 as uint16. Every value is converted to float32, computed, and rounded to the nearest
even once when it is stored. Dropout keeps no mask: the random bits of an element are a hash of its index and a 64-bit
seed, the same in the forward and backward pass. `begin` and `end` bound the rows of a call, so that threads can
share the work.

Their machine code is kept on disk (`lambert.kernel_cache`), so none of them calls another.

Shapes: T tokens, H columns, F feed-forward size, V vocabulary size, M masked tokens.
"""

# numba compiles what it sees: no annotations inside, and mypy knows nothing of the decorators.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,call-arg,unreachable"
from __future__ import annotations

import numpy as np

from lambert.kernel_cache import kept
from lambert.model.ops.cpu_numerics import (
    FASTMATH,
    cast_to,
    dropout_factor,
    exp,
    normal_cdf_pdf,
    to_float32,
)

_KERNEL = kept(nogil=True, error_model="numpy", fastmath=FASTMATH)

TILE = 32
"""Rows and columns that are transposed at once: a cache line of bfloat16."""
CHUNK = 32
"""Vocabulary entries that share one maximum in the MLM softmax."""


@_KERNEL
def transpose(source, target):
    """target [C, R] ← transpose of source [R, C], both of one dtype."""
    rows, columns = source.shape
    tile = np.empty((TILE, TILE), source.dtype)
    for top in range(0, rows, TILE):
        for left in range(0, columns, TILE):
            if top + TILE <= rows and left + TILE <= columns:
                for row in range(TILE):
                    for column in range(TILE):
                        tile[row, column] = source[top + row, left + column]
                for column in range(TILE):
                    for row in range(TILE):
                        target[left + column, top + row] = tile[row, column]
            else:
                for column in range(left, min(left + TILE, columns)):
                    for row in range(top, min(top + TILE, rows)):
                        target[column, row] = source[row, column]


@_KERNEL
def dropout(source, target, rng, begin, end):
    """target ← dropout of source, both [N]."""
    values, out = source[begin:end], target[begin:end]
    for i in range(end - begin):
        out[i] = cast_to(out, to_float32(values[i]) * dropout_factor(begin + i, rng))


@_KERNEL
def add_norm(branch, residual, weight, bias, eps, rng, normalized, rstd, out, begin, end):
    """out ← LayerNorm(residual + dropout(branch)).

    Args:
        branch, residual: [T, H].
        weight, bias: float32 [H].
        normalized: [T, H], receives the output before weight and bias.
        rstd: float32 [T], receives 1 / standard deviation.
    """
    width = branch.shape[1]
    values = np.empty(width, np.float32)
    for row in range(begin, end):
        total = np.float32(0)
        for i in range(width):
            value = to_float32(residual[row, i]) + to_float32(branch[row, i]) * dropout_factor(row * width + i, rng)
            values[i] = value
            total += value
        mean = total / np.float32(width)
        squares = np.float32(0)
        for i in range(width):
            centred = values[i] - mean
            values[i] = centred
            squares += centred * centred
        scale = np.float32(1) / np.sqrt(squares / np.float32(width) + eps)
        rstd[row] = scale
        for i in range(width):
            value = values[i] * scale
            normalized[row, i] = cast_to(normalized, value)
            out[row, i] = cast_to(out, value * weight[i] + bias[i])


@_KERNEL
def add_norm_backward(grad, normalized, rstd, weight, rng, d_branch, d_residual, d_weight, d_bias, begin, end):
    """Gradients of `add_norm`; those of weight and bias are added to float32 [H]."""
    width = grad.shape[1]
    scaled = np.empty(width, np.float32)
    for row in range(begin, end):
        mean, mean_product = np.float32(0), np.float32(0)
        for i in range(width):
            value, unit = to_float32(grad[row, i]), to_float32(normalized[row, i])
            d_bias[i] += value
            d_weight[i] += value * unit
            value *= weight[i]
            scaled[i] = value
            mean += value
            mean_product += value * unit
        mean /= np.float32(width)
        mean_product /= np.float32(width)
        for i in range(width):
            value = rstd[row] * (scaled[i] - mean - to_float32(normalized[row, i]) * mean_product)
            d_residual[row, i] = cast_to(d_residual, value)
            d_branch[row, i] = cast_to(d_branch, value * dropout_factor(row * width + i, rng))


@_KERNEL
def gelu(source, target, begin, end):
    """target ← GELU(source), both [T, F]."""
    for row in range(begin, end):
        for i in range(source.shape[1]):
            value = to_float32(source[row, i])
            cdf, _ = normal_cdf_pdf(value)
            target[row, i] = cast_to(target, value * cdf)


@_KERNEL
def gelu_backward(source, grad, d_bias, begin, end):
    """grad [T, F] ← gradient of GELU's input; its column sums are added to d_bias, float32 [F]."""
    for row in range(begin, end):
        for i in range(source.shape[1]):
            value = to_float32(source[row, i])
            cdf, pdf = normal_cdf_pdf(value)
            result = to_float32(grad[row, i]) * (cdf + value * pdf)
            grad[row, i] = cast_to(grad, result)
            d_bias[i] += result


@_KERNEL
def norm(hidden, weight, eps, mean, rstd, out, begin, end):
    """out [T, H] ← layer norm of hidden [T, H] without a bias.

    Args:
        weight: float32 [H].
        mean, rstd: float32 [T], receive the mean and 1 / standard deviation.
    """
    width = hidden.shape[1]
    values = np.empty(width, np.float32)
    for row in range(begin, end):
        total = np.float32(0)
        for i in range(width):
            value = to_float32(hidden[row, i])
            values[i] = value
            total += value
        centre = total / np.float32(width)
        squares = np.float32(0)
        for i in range(width):
            centred = values[i] - centre
            values[i] = centred
            squares += centred * centred
        scale = np.float32(1) / np.sqrt(squares / np.float32(width) + eps)
        mean[row], rstd[row] = centre, scale
        for i in range(width):
            out[row, i] = cast_to(out, values[i] * scale * weight[i])


@_KERNEL
def norm_backward(grad, residual_grad, hidden, mean, rstd, weight, d_hidden, d_weight, begin, end):
    """d_hidden ← residual_grad + the gradient through `norm`, all [T, H]; that of weight is added to float32 [H]."""
    width = grad.shape[1]
    units, scaled = np.empty(width, np.float32), np.empty(width, np.float32)
    for row in range(begin, end):
        centre, scale = mean[row], rstd[row]
        average, average_product = np.float32(0), np.float32(0)
        for i in range(width):
            unit = (to_float32(hidden[row, i]) - centre) * scale
            value = to_float32(grad[row, i])
            d_weight[i] += value * unit
            value *= weight[i]
            units[i], scaled[i] = unit, value
            average += value
            average_product += value * unit
        average /= np.float32(width)
        average_product /= np.float32(width)
        for i in range(width):
            value = scale * (scaled[i] - average - units[i] * average_product)
            d_hidden[row, i] = cast_to(d_hidden, to_float32(residual_grad[row, i]) + value)


@_KERNEL
def geglu(expanded, rng, product, begin, end):
    """product [T, F] ← dropout of GELU(first half) · second half of expanded [T, 2 · F]."""
    width = product.shape[1]
    for row in range(begin, end):
        inner, gate, out = expanded[row, :width], expanded[row, width:], product[row]
        for i in range(width):
            value = to_float32(inner[i])
            cdf, _ = normal_cdf_pdf(value)
            result = value * cdf * to_float32(gate[i]) * dropout_factor(row * width + i, rng)
            out[i] = cast_to(out, result)


@_KERNEL
def geglu_backward(expanded, rng, grad, begin, end):
    """expanded [T, 2 · F] ← its gradient, and grad [T, F], that of the product of `geglu`, ← the product."""
    width = grad.shape[1]
    for row in range(begin, end):
        inner, gate, upstream = expanded[row, :width], expanded[row, width:], grad[row]
        for i in range(width):
            value, other = to_float32(inner[i]), to_float32(gate[i])
            cdf, pdf = normal_cdf_pdf(value)
            factor = dropout_factor(row * width + i, rng)
            direction, activated = to_float32(upstream[i]) * factor, value * cdf
            upstream[i] = cast_to(upstream, activated * other * factor)
            inner[i] = cast_to(inner, direction * other * (cdf + value * pdf))
            gate[i] = cast_to(gate, direction * activated)


@_KERNEL
def column_sums(values, sums, begin, end):
    """sums float32 [N] += the rows of values [T, N]."""
    for row in range(begin, end):
        for i in range(values.shape[1]):
            sums[i] += to_float32(values[row, i])


@_KERNEL
def mlm_softmax(logits, bias, chunk_max, chunk_sum, begin, end):
    """logits [V, M] ← exp(logit + bias − maximum of the chunk), for a range of columns.

    Args:
        bias: float32 [V].
        chunk_max, chunk_sum: float32 [chunks of V, M], receive each chunk's largest logit and its sum of exponentials.
    """
    size = logits.shape[0]
    for chunk in range(chunk_max.shape[0]):
        top, bottom = chunk * CHUNK, min((chunk + 1) * CHUNK, size)
        # Slices, since numba does not vectorize an index that might be negative.
        largest, total = chunk_max[chunk, begin:end], chunk_sum[chunk, begin:end]
        for m in range(end - begin):
            largest[m] = np.float32(-np.inf)
            total[m] = np.float32(0)
        for v in range(top, bottom):
            row, row_bias = logits[v, begin:end], bias[v]
            for m in range(end - begin):
                value = to_float32(row[m]) + row_bias
                largest[m] = value if value > largest[m] else largest[m]
        for v in range(top, bottom):
            row, row_bias = logits[v, begin:end], bias[v]
            for m in range(end - begin):
                value = exp(to_float32(row[m]) + row_bias - largest[m])
                total[m] += value
                row[m] = cast_to(row, value)


@_KERNEL
def mlm_softmax_backward(exponentials, chunk_scale, labels, d_bias, begin, end):
    """exponentials [V, M] of `mlm_softmax` ← probabilities less 1 at the labels, for a range of chunks.

    Args:
        chunk_scale: float32 [chunks, M], turns an exponential into a probability.
        d_bias: float32 [V], receives the sums over M.
    """
    size, count = exponentials.shape
    for chunk in range(begin, end):
        top, bottom = chunk * CHUNK, min((chunk + 1) * CHUNK, size)
        scale = chunk_scale[chunk]
        for v in range(top, bottom):
            total = np.float32(0)
            for m in range(count):
                value = to_float32(exponentials[v, m]) * scale[m] - np.float32(labels[m] == v)
                exponentials[v, m] = cast_to(exponentials, value)
                total += value
            d_bias[v] = total
