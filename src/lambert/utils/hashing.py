"""SplitMix64 over arrays (Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INCREMENT = np.uint64(0x9E3779B97F4A7C15)
"""The constant between two states of the generator: 2^64 divided by the golden ratio, made odd."""
FIRST_FACTOR, SECOND_FACTOR = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser: every input bit affects every output bit. A bijection of uint64, element by element."""
    values = (values ^ (values >> np.uint64(30))) * FIRST_FACTOR
    values = (values ^ (values >> np.uint64(27))) * SECOND_FACTOR
    return values ^ (values >> np.uint64(31))


def next_value(states: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The generator's output for each state."""
    return mix(states + INCREMENT)
