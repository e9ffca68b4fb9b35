"""Whole-word masking at its limits: words longer than what a row may hide, and longer than the row has words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lambert.data.counter_rng import CounterRNG
from lambert.data.masking import WordBoundaries, choose_spans, choose_words

BEGINS, GOES_ON = 10, 11
CONTINUES = np.arange(20) == GOES_ON


def hidden_words(first: list[int], second: list[int], room: int, *, seed: int = 0) -> tuple[NDArray[np.bool_], int]:
    """Which words `choose_words` hides of segments of words of so many tokens; and how many positions that are."""
    segments = [
        [token for length in words for token in [BEGINS] + [GOES_ON] * (length - 1)] for words in (first, second)
    ]
    ids = np.array([[2, *segments[0], 3, *segments[1], 3]])
    words = WordBoundaries.of(ids, ids >= BEGINS, np.array([len(segments[0]) + 2]), CONTINUES)
    draws = CounterRNG.of((seed,), np.array([0]))
    chosen = choose_words(draws, words, np.array([room]))
    counts = np.bincount(words.word_of[0][chosen[0]], minlength=len(first) + len(second) + 1)[1:]
    lengths = np.array([*first, *second])
    assert np.isin(counts, (0, *lengths)).all() and (counts[counts > 0] == lengths[counts > 0]).all(), (
        "whole words only"
    )
    assert choose_spans(draws, words, np.array([room]))[0].sum() == min(room, lengths.sum())
    return counts > 0, int(counts.sum())


@given(
    first=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    second=st.lists(st.integers(1, 90), max_size=6),
    room=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_some_word_is_always_hidden(first: list[int], second: list[int], room: int, seed: int) -> None:
    hidden, count = hidden_words(first, second, room, seed=seed)
    lengths = np.array([*first, *second])
    if (lengths <= room).any():
        assert 0 < count <= room
        assert not (~hidden & (lengths <= room - count)).any(), "a word that still fits is hidden"
    else:
        assert list(hidden).count(True) == 1 and count == lengths.min()


@pytest.mark.parametrize("words", [(6, 7), (30, 40), (95, 60)])
def test_the_shortest_word_is_hidden_where_none_fits(words: tuple[int, int]) -> None:
    assert hidden_words([words[0]], [words[1]], 1)[1] == min(words)
