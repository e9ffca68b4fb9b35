"""Fused kernels of attention on CPUs; see `cpu_kernels`.

Shapes: T tokens, A heads of D columns each, B sequences of S tokens; K = 3 for queries, keys and values;
P = 2 where the halves of a head are pairs that are turned, else 1.
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
    to_float32,
    to_ordered_int,
)

_KERNEL = kept(nogil=True, error_model="numpy", fastmath=FASTMATH)


@_KERNEL
def split_heads(tokens, cu_seqlens, cosines, sines, split, begin, end):
    """split [K, B, A, S, P, D / P] ← tokens [T, K, A, P, D / P], zeros behind the last token of each sequence.

    Args:
        cu_seqlens: int32 [B + 1] first token of each sequence, and T.
        cosines, sines: float32 [T or S, D / 2] by which queries and keys are turned, with P = 2; or [0, 0].
    """
    parts, _, heads, _, pair, width = split.shape
    places = len(cosines)
    for sequence in range(begin, end):
        first = cu_seqlens[sequence]
        own = cu_seqlens[sequence + 1] - first
        for token in range(own):
            for part in range(parts):
                if places > 0 and part < 2:
                    place = (first + token) % places
                    for head in range(heads):
                        for i in range(width):
                            x = to_float32(tokens[first + token, part, head, 0, i])
                            y = to_float32(tokens[first + token, part, head, 1, i])
                            left = x * cosines[place, i] - y * sines[place, i]
                            right = y * cosines[place, i] + x * sines[place, i]
                            split[part, sequence, head, token, 0, i] = cast_to(split, left)
                            split[part, sequence, head, token, 1, i] = cast_to(split, right)
                else:
                    for head in range(heads):
                        for p in range(pair):
                            for i in range(width):
                                split[part, sequence, head, token, p, i] = tokens[first + token, part, head, p, i]
        for part in range(parts):
            for head in range(heads):
                split[part, sequence, head, own:] = 0


@_KERNEL
def merge_heads(split, cu_seqlens, cosines, sines, tokens, begin, end):
    """tokens [T, K, A, P, D / P] ← split [K, B, A, S, P, D / P]: `split_heads` undone."""
    parts, _, heads, _, pair, width = split.shape
    places = len(cosines)
    for sequence in range(begin, end):
        first = cu_seqlens[sequence]
        for token in range(cu_seqlens[sequence + 1] - first):
            for part in range(parts):
                if places > 0 and part < 2:
                    place = (first + token) % places
                    for head in range(heads):
                        for i in range(width):
                            x = to_float32(split[part, sequence, head, token, 0, i])
                            y = to_float32(split[part, sequence, head, token, 1, i])
                            left = x * cosines[place, i] + y * sines[place, i]
                            right = y * cosines[place, i] - x * sines[place, i]
                            tokens[first + token, part, head, 0, i] = cast_to(tokens, left)
                            tokens[first + token, part, head, 1, i] = cast_to(tokens, right)
                else:
                    for head in range(heads):
                        for p in range(pair):
                            for i in range(width):
                                tokens[first + token, part, head, p, i] = split[part, sequence, head, token, p, i]


@_KERNEL
def softmax(scores, cu_seqlens, bias, scale, rng, dropped, begin, end):
    """scores [B, A, S, S] ← softmax(scale · scores + bias) over the real tokens; dropped ← dropout of that.

    Args:
        dropped: None without dropout.
        cu_seqlens: as in `split_heads`; scores become 0 behind the last token of a sequence.
        bias: float32 [B or 1, S or 1, S], 0 where a token may attend and −inf elsewhere.
    """
    _, heads, length, _ = scores.shape
    row = np.empty(length, np.float32)
    for sequence in range(begin, end):
        width = cu_seqlens[sequence + 1] - cu_seqlens[sequence]
        for head in range(heads):
            scores[sequence, head, width:] = 0
            if dropped is not None:
                dropped[sequence, head, width:] = 0
            for query in range(width):
                scores[sequence, head, query, width:] = 0
                if dropped is not None:
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
                    if dropped is not None:
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
                    if len(rng) > 0:
                        weights[sequence, head, query, i] = cast_to(weights, weight * factor)
                    probabilities[i] = weight
                    products[i] = product
                    total += product
                for i in range(width):
                    value = (products[i] - probabilities[i] * total) * scale
                    grad[sequence, head, query, i] = cast_to(grad, value)
