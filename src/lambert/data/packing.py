"""Several short examples in one row, each of which attends to itself alone, so that short text wastes nothing.

Shapes: N examples in R rows of W places.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lambert.data.dataset import Rows
from lambert.data.masking import Hidden

LEAST_GAIN = 0.05
"""Share of the rows that packing must save to be worth its mask."""


@dataclass(frozen=True)
class PackedRows:
    """N examples in R rows."""

    token_ids: NDArray[np.int64]
    """[R, W]"""
    segment_ids: NDArray[np.int64]
    """[R, W]: 0 in A and in the padding, 1 in B."""
    example_of: NDArray[np.int64]
    """[R, W] number of the example from 0; −1 in the padding."""
    position_ids: NDArray[np.int64]
    """[R, W] place in the example; 0 in the padding."""
    first_positions: NDArray[np.int64]
    """[N] where each example begins in the flattened rows."""
    hidden: Hidden
    """Its places lie in these rows; they rise within an example."""


def pack(rows: Rows, *, pad_id: int) -> PackedRows | None:
    """The same examples in fewer rows of the same width; None where that would save next to nothing."""
    width = rows.token_ids.shape[1]
    row_of, start_of = _places(rows.lengths, width)
    count = int(row_of.max()) + 1
    if count > (1 - LEAST_GAIN) * len(rows.lengths):
        return None
    first = row_of * width + start_of
    examples = np.repeat(np.arange(len(rows.lengths)), rows.lengths)
    ends = np.cumsum(rows.lengths)
    inside = np.arange(int(ends[-1])) - np.repeat(ends - rows.lengths, rows.lengths)
    target = first[examples] + inside
    token_ids, example_of = np.full(count * width, pad_id, np.int64), np.full(count * width, -1, np.int64)
    segment_ids, position_ids = np.zeros((2, count * width), np.int64)
    token_ids[target] = rows.token_ids[examples, inside]
    example_of[target] = examples
    segment_ids[target] = inside >= rows.second_segment_starts[examples]
    position_ids[target] = inside
    own, place = np.divmod(rows.hidden.places, width)
    shape = (count, width)
    return PackedRows(
        token_ids.reshape(shape),
        segment_ids.reshape(shape),
        example_of.reshape(shape),
        position_ids.reshape(shape),
        first,
        Hidden(first[own] + place, rows.hidden.labels),
    )


def _places(lengths: NDArray[np.int64], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and first place of each example: the longest first, each into the fullest row that has room."""
    row_of, start_of = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    order = np.argsort(-lengths, kind="stable")
    full = int((lengths[order] == width).sum())
    row_of[order[:full]] = np.arange(full)
    rows = full
    room: list[tuple[int, int]] = []  # (free places, row), rising
    for example, length in zip(order[full:].tolist(), lengths[order[full:]].tolist(), strict=True):
        place = bisect_left(room, (length, -1))
        if place == len(room):
            free, row = width, rows
            rows += 1
        else:
            free, row = room.pop(place)
        row_of[example], start_of[example] = row, width - free
        if free > length:
            insort(room, (free - length, row))
    return row_of, start_of
