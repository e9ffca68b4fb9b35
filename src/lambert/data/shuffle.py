"""A global shuffle that is computed, not stored: position → sample index, each once per epoch, with random access."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lambert.utils.hashing import mix

_ROUNDS = 6


class Shuffle:
    """A pseudo-random permutation of 0 … count−1, computed on demand.

    A balanced Feistel network over the smallest even number of bits that holds `count`, applied again until the value
    is in range (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"). Its state is six round keys.

    Args:
        count: number of indices, at least 1.
        key: integers that name this shuffle, such as (seed, phase, epoch).
    """

    def __init__(self, count: int, key: tuple[int, ...]) -> None:
        assert count >= 1
        self.count = count
        self._half_bits = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
        self._half_mask = np.uint64((1 << int(self._half_bits)) - 1)
        self._round_keys = np.random.SeedSequence(key).generate_state(_ROUNDS, np.uint64)

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices at `positions`, integers in 0 … count−1, in the same shape."""
        values = self._encrypt(np.asarray(positions, dtype=np.uint64))
        outside = values >= self.count
        while outside.any():
            values[outside] = self._encrypt(values[outside])
            outside = values >= self.count
        return values.astype(np.int64)

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half_bits, values & self._half_mask
        for key in self._round_keys:
            left, right = right, left ^ (mix(right ^ key) & self._half_mask)
        mixed: NDArray[np.uint64] = (left << self._half_bits) | right
        return mixed
