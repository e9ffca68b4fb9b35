"""Random numbers that have names: the same name gives the same number, whoever asks and in whatever order.

Nothing is run up to a draw and nothing is kept: every number is a hash of its name. The hash is SplitMix64 (Steele et
al. 2014), whose n-th number is the mix of a start plus n times a constant.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

_STRIDE = np.uint64(0x9E3779B97F4A7C15)
_FLOAT_BITS = np.uint64(11)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@functools.lru_cache(maxsize=64)
def _start_of(name: tuple[int, ...]) -> NDArray[np.uint64]:
    return np.random.SeedSequence(name).generate_state(1, np.uint64).astype(np.uint64)


class Draws:
    """The numbers of N things, such as examples; each thing has as many as are asked for.

    Args:
        keys: uint64 [N], one for each thing, from `of`.
    """

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        self.keys = keys

    @classmethod
    def of(cls, name: tuple[int, ...], things: NDArray[np.int64]) -> Draws:
        """Those of `things` [N], whole numbers from 0, within what `name` names (whole numbers from 0)."""
        return cls(mix(_start_of(name) + (things.astype(np.uint64) + np.uint64(1)) * _STRIDE))

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Draws:
        """The same numbers, of some of the things."""
        return Draws(self.keys[which])

    def bits(self, number: int | NDArray[np.int64]) -> NDArray[np.uint64]:
        """uint64 [N]: draw `number` (from 0) of each thing; 64 random bits."""
        steps = np.atleast_1d(number).astype(np.uint64) + np.uint64(1)
        return mix(self.keys + steps * _STRIDE)

    def uniform(self, number: int | NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 [N] from 0 to below 1."""
        return (self.bits(number) >> _FLOAT_BITS).astype(np.float64) * 2.0**-53

    def below(self, number: int | NDArray[np.int64], limits: int | NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [N]: whole numbers from 0 to below `limits`, which are at least 1."""
        return (self.uniform(number) * limits).astype(np.int64)

    def heads(self, first_number: int, tosses: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [N]: how many of `tosses` [N] of a fair coin fall heads. Draws `first_number` and those after it.

        Beyond 512 tosses half of the rest are heads.
        """
        heads = np.maximum(0, tosses - 512) // 2
        for word in range(8):
            left = np.clip(tosses - 64 * word, 0, 64)
            if not left.any():
                break
            tossed = np.where(left == 64, ~np.uint64(0), (np.uint64(1) << (left % 64).astype(np.uint64)) - np.uint64(1))
            heads += np.bitwise_count(self.bits(first_number + word) & tossed)
        return heads
