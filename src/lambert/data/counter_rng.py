"""A counter-based, stateless random number generator: every number is a hash of its key and its index.

The hash is SplitMix64, whose n-th number is the mix of a start plus n times a constant. No number depends on the order
of draws, so any worker can make any batch, by array operations.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from lambert.utils.hashing import INCREMENT, mix

_FLOAT_BITS = np.uint64(11)


@functools.lru_cache(maxsize=64)
def _start_of(name: tuple[int, ...]) -> NDArray[np.uint64]:
    return np.random.SeedSequence(name).generate_state(1, np.uint64).astype(np.uint64)


class CounterRNG:
    """Random numbers for N items, such as examples; each item has its own endless sequence, indexed by draw number.

    Args:
        keys: uint64 [N], one for each item, from `of`.
    """

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        self.keys = keys

    @classmethod
    def of(cls, name: tuple[int, ...], items: NDArray[np.int64]) -> CounterRNG:
        """Numbers for `items` [N] within the stream `name`, such as (seed, phase, epoch); all integers from 0."""
        return cls(mix(_start_of(name) + (items.astype(np.uint64) + np.uint64(1)) * INCREMENT))

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> CounterRNG:
        """The same numbers, for some of the items."""
        return CounterRNG(self.keys[which])

    def bits(self, number: int | NDArray[np.int64]) -> NDArray[np.uint64]:
        """uint64 [N]: draw `number` (from 0) of each item; 64 random bits."""
        steps = np.atleast_1d(number).astype(np.uint64) + np.uint64(1)
        return mix(self.keys + steps * INCREMENT)

    def uniform(self, number: int | NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 [N] from 0 to below 1."""
        return (self.bits(number) >> _FLOAT_BITS).astype(np.float64) * 2.0**-53

    def integers(self, number: int | NDArray[np.int64], limits: int | NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [N] from 0 to below `limits`, which are at least 1."""
        return (self.uniform(number) * limits).astype(np.int64)

    def coin_flips(self, first_number: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [N]: heads in `counts` [N] flips of a fair coin; uses draws `first_number` to `first_number + 7`.

        Beyond 512 flips half of the rest are heads.
        """
        heads = np.maximum(0, counts - 512) // 2
        for word in range(8):
            left = np.clip(counts - 64 * word, 0, 64)
            if not left.any():
                break
            flips = np.where(left == 64, ~np.uint64(0), (np.uint64(1) << (left % 64).astype(np.uint64)) - np.uint64(1))
            heads += np.bitwise_count(self.bits(first_number + word) & flips)
        return heads
