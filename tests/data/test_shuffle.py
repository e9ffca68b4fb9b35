"""The shuffle that is never written down."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lambert.data.shuffle import Shuffle


@given(count=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1))
def test_every_index_comes_once(count: int, seed: int) -> None:
    indices = Shuffle(count, (seed, 1, 0))(np.arange(count))
    assert np.array_equal(np.sort(indices), np.arange(count))


def test_any_portion_gives_the_same_indices() -> None:
    shuffle = Shuffle(1000, (3, 1, 0))
    whole = shuffle(np.arange(1000))
    pieces = np.concatenate([shuffle(np.arange(start, start + 125)) for start in range(0, 1000, 125)])
    assert np.array_equal(whole, pieces)


def test_other_keys_give_other_orders() -> None:
    orders = [Shuffle(1000, key)(np.arange(1000)) for key in ((0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1))]
    for place, order in enumerate(orders):
        for other in orders[place + 1 :]:
            assert (order == other).mean() < 0.02


def test_positions_look_independent_of_indices() -> None:
    count = 20_000
    indices = Shuffle(count, (7, 1, 0))(np.arange(count))
    # Both between position and index, and between neighbours, correlation is of the order 1/√n.
    assert abs(np.corrcoef(np.arange(count), indices)[0, 1]) < 4 / np.sqrt(count)
    assert abs(np.corrcoef(indices[:-1], indices[1:])[0, 1]) < 4 / np.sqrt(count)


def test_a_far_position_of_a_huge_count_is_found_at_once() -> None:
    index = Shuffle(10**12, (0, 1, 0))(np.array([10**12 - 1]))
    assert 0 <= index[0] < 10**12
