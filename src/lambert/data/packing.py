"""Packed sequences: several short examples in one row, with block-diagonal attention.

Shapes: N examples in R rows of W positions.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lambert.data.dataset import Rows
from lambert.data.masking import MaskedTokens

MIN_SAVED_ROWS = 0.05
"""Fraction of the rows that packing must save to be worth its attention mask."""


@dataclass(frozen=True)
class PackedRows:
    """N examples in R rows."""

    token_ids: NDArray[np.int64]
    """[R, W]"""
    segment_ids: NDArray[np.int64]
    """[R, W]: 0 in A and in the padding, 1 in B."""
    sequence_ids: NDArray[np.int64]
    """[R, W] number of the example from 0; −1 in the padding."""
    position_ids: NDArray[np.int64]
    """[R, W] position in the example; 0 in the padding."""
    first_positions: NDArray[np.int64]
    """[N] where each example begins in the flattened rows."""
    masked: MaskedTokens
    """Positions in these rows, rising within an example."""


def pack(rows: Rows, *, pad_id: int) -> PackedRows | None:
    """The same examples in fewer rows of the same width; None where that saves too little."""
    width = rows.token_ids.shape[1]
    row_of, start_of = _best_fit(rows.lengths, width)
    count = int(row_of.max()) + 1
    if count > (1 - MIN_SAVED_ROWS) * len(rows.lengths):
        return None
    first = row_of * width + start_of
    in_row = np.arange(width) < rows.lengths[:, None]
    inside = np.broadcast_to(np.arange(width), in_row.shape)[in_row]
    target = np.repeat(first, rows.lengths) + inside
    token_ids, sequence_ids = np.full(count * width, pad_id, np.int64), np.full(count * width, -1, np.int64)
    segment_ids, position_ids = np.zeros((2, count * width), np.int64)
    token_ids[target] = rows.token_ids[in_row]
    sequence_ids[target] = np.repeat(np.arange(len(rows.lengths)), rows.lengths)
    segment_ids[target] = inside >= np.repeat(rows.second_segment_starts, rows.lengths)
    position_ids[target] = inside
    example, inside = np.divmod(rows.masked.positions, width)
    shape = (count, width)
    return PackedRows(
        token_ids.reshape(shape),
        segment_ids.reshape(shape),
        sequence_ids.reshape(shape),
        position_ids.reshape(shape),
        first,
        MaskedTokens(first[example] + inside, rows.masked.labels),
    )


def _best_fit(lengths: NDArray[np.int64], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and first column of each example: best-fit decreasing."""
    row_of, start_of = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    order = np.argsort(-lengths, kind="stable")
    full = int((lengths[order] == width).sum())
    row_of[order[:full]] = np.arange(full)
    rows = full
    free_rows: list[tuple[int, int]] = []  # (free positions, row), rising
    for example, length in zip(order[full:].tolist(), lengths[order[full:]].tolist(), strict=True):
        index = bisect_left(free_rows, (length, -1))
        if index == len(free_rows):
            free, row = width, rows
            rows += 1
        else:
            free, row = free_rows.pop(index)
        row_of[example], start_of[example] = row, width - free
        if free > length:
            insort(free_rows, (free - length, row))
    return row_of, start_of
