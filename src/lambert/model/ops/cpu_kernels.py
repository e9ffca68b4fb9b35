"""Fused element-wise kernels between BERT's matmuls, compiled by numba for the CPU they run on.

Arrays hold float32, or bfloat16 as uint16. Every value is converted to float32, computed, and rounded to the nearest
even once when it is stored. Dropout keeps no mask: the random bits of an element are a hash of its index and a 64-bit
seed, the same in the forward and backward pass. `begin` and `end` bound the rows of a call, so that threads can
share the work.

Their machine code is kept on disk (`lambert.kernel_cache`), so none of them calls another.

Shapes: T tokens, H columns, A heads of D columns each, B sequences of S tokens, V vocabulary size, M masked tokens.
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
    from_ordered_int,
    normal_cdf_pdf,
    to_float32,
    to_ordered_int,
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
def column_sums(values, sums, begin, end):
    """sums float32 [N] += the rows of values [T, N]."""
    for row in range(begin, end):
        for i in range(values.shape[1]):
            sums[i] += to_float32(values[row, i])


@_KERNEL
def split_heads(tokens, cu_seqlens, split, begin, end):
    """split [K, B, A, S, D] ← tokens [T, K, A, D] of B sequences, zeros behind the last token of each.

    Args:
        cu_seqlens: int32 [B + 1] first token of each sequence, and T.
    """
    parts, _, heads, length, width = split.shape
    for sequence in range(begin, end):
        first = cu_seqlens[sequence]
        own = cu_seqlens[sequence + 1] - first
        for part in range(parts):
            for head in range(heads):
                for token in range(own):
                    for i in range(width):
                        split[part, sequence, head, token, i] = tokens[first + token, part, head, i]
                for token in range(own, length):
                    for i in range(width):
                        split[part, sequence, head, token, i] = 0


@_KERNEL
def merge_heads(split, cu_seqlens, tokens, begin, end):
    """tokens [T, K, A, D] ← split [K, B, A, S, D]: `split_heads` undone."""
    parts, _, heads, _, width = split.shape
    for sequence in range(begin, end):
        first = cu_seqlens[sequence]
        for token in range(cu_seqlens[sequence + 1] - first):
            for part in range(parts):
                for head in range(heads):
                    for i in range(width):
                        tokens[first + token, part, head, i] = split[part, sequence, head, token, i]


@_KERNEL
def softmax(scores, cu_seqlens, bias, scale, rng, dropped, begin, end):
    """scores [B, A, S, S] ← softmax(scale · scores + bias) over the real tokens; dropped ← dropout of that.

    Args:
        cu_seqlens: as in `split_heads`; scores become 0 behind the last token of a sequence.
        bias: float32 [B or 1, S or 1, S], 0 where a token may attend and −inf elsewhere.
    """
    _, heads, length, _ = scores.shape
    row = np.empty(length, np.float32)
    for sequence in range(begin, end):
        width = cu_seqlens[sequence + 1] - cu_seqlens[sequence]
        for head in range(heads):
            scores[sequence, head, width:] = 0
            dropped[sequence, head, width:] = 0
            for query in range(width):
                scores[sequence, head, query, width:] = 0
                dropped[sequence, head, query, width:] = 0
                mask = bias[min(sequence, bias.shape[0] - 1), min(query, bias.shape[1] - 1)]
                ordered_max = np.int32(-(2**31))
                for i in range(width):
                    value = to_float32(scores[sequence, head, query, i]) * scale + mask[i]
                    row[i] = value
                    ordered_max = max(ordered_max, to_ordered_int(value))
                maximum = from_ordered_int(ordered_max)
                total = np.float32(0)
                for i in range(width):
                    value = exp(row[i] - maximum)
                    row[i] = value
                    total += value
                first = ((sequence * heads + head) * length + query) * length
                for i in range(width):
                    value = row[i] / total
                    scores[sequence, head, query, i] = cast_to(scores, value)
                    dropped[sequence, head, query, i] = cast_to(dropped, value * dropout_factor(first + i, rng))


@_KERNEL
def softmax_backward(weights, grad, cu_seqlens, scale, rng, begin, end):
    """grad of the dropped weights ← grad of the scores; weights ← the dropped weights. Both [B, A, S, S].

    Both are, and become, 0 behind the last token of a sequence.
    """
    _, heads, length, _ = weights.shape
    probabilities = np.empty(length, np.float32)
    products = np.empty(length, np.float32)
    for sequence in range(begin, end):
        width = cu_seqlens[sequence + 1] - cu_seqlens[sequence]
        for head in range(heads):
            for query in range(width):
                first = ((sequence * heads + head) * length + query) * length
                total = np.float32(0)
                for i in range(width):
                    factor = dropout_factor(first + i, rng)
                    weight = to_float32(weights[sequence, head, query, i])
                    product = to_float32(grad[sequence, head, query, i]) * factor * weight
                    weights[sequence, head, query, i] = cast_to(weights, weight * factor)
                    probabilities[i] = weight
                    products[i] = product
                    total += product
                for i in range(width):
                    value = (products[i] - probabilities[i] * total) * scale
                    grad[sequence, head, query, i] = cast_to(grad, value)


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
