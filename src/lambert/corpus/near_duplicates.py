"""Near-duplicates: documents that share most of their 5-token shingles, found by MinHash and then compared exactly.

MinHash (Broder 1997) with banded locality-sensitive hashing and FineWeb's parameters (Penedo et al. 2024): 5-token
shingles, 112 hashes in 14 bands of 8. Two documents are compared when they agree in a whole band, which happens in 92 %
of the pairs with Jaccard similarity 0.8 and in 99 % at 0.85. Their exact similarity then decides, so there are no false
positives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lambert.corpus.shard import Shard, TokenArray
from lambert.utils.hashing import next_value

MIN_SIMILARITY = 0.8
"""Jaccard similarity from which on two documents are near-duplicates."""
SHINGLE_TOKENS = 5
BANDS, ROWS = 14, 8

_BLOCK_TOKENS = 1 << 18

Keys = NDArray[np.uint64]


def near_duplicates(shards: Sequence[Shard]) -> NDArray[np.int64]:
    """For each document, in order, the first of its cluster of near-duplicates; itself where it has none before it.

    Holds 112 bytes per document. Documents of fewer than five tokens are near-duplicates only of exact copies.

    Returns:
        int64 [documents of all shards].
    """
    documents = _Documents(shards)
    if not documents.count:
        return np.zeros(0, np.int64)
    keys = np.concatenate([_band_keys(documents.block(start, stop)) for start, stop in documents.blocks()])
    _, distinct, copies = np.unique(
        np.concatenate([shard.hashes for shard in shards]), return_index=True, return_inverse=True
    )
    first: NDArray[np.int64] = distinct[copies]  # copies need no comparison
    distinct.sort()
    for earlier, later in _candidates(keys[distinct]):
        one, other = _root(first, int(distinct[earlier])), _root(first, int(distinct[later]))
        if one != other and documents.similarity(int(distinct[earlier]), int(distinct[later])) >= MIN_SIMILARITY:
            first[max(one, other)] = min(one, other)
    while True:
        shorter = first[first]
        if np.array_equal(shorter, first):
            return first
        first = shorter


class _Documents:
    """The documents of all shards, numbered through."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._starts = [shard.sentence_offsets[shard.document_offsets] for shard in shards]
        self._first = np.cumsum([0, *(len(shard.hashes) for shard in shards)])
        self.count = int(self._first[-1])

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Ranges of documents of about `_BLOCK_TOKENS` tokens within one shard, in order."""
        for before, starts in zip(self._first.tolist(), self._starts, strict=False):
            edges = np.searchsorted(starts, np.arange(0, starts[-1], _BLOCK_TOKENS))
            for start, stop in pairwise(np.unique([*edges, len(starts) - 1]).tolist()):
                yield before + start, before + stop

    def block(self, start: int, stop: int) -> tuple[TokenArray, NDArray[np.int64]]:
        """Tokens of the documents [start, stop), of one shard, and their bounds [documents + 1] in them."""
        shard = int(np.searchsorted(self._first, start, side="right")) - 1
        before = int(self._first[shard])
        bounds = self._starts[shard][start - before : stop - before + 1].astype(np.int64)
        return self._shards[shard].read_tokens(int(bounds[0]), int(bounds[-1])), bounds - bounds[0]

    def similarity(self, one: int, other: int) -> float:
        """Jaccard similarity of the shingles of two documents."""
        mine, theirs = (np.unique(_shingles(*self.block(number, number + 1))[0]) for number in (one, other))
        shared = len(np.intersect1d(mine, theirs, assume_unique=True))
        return shared / (len(mine) + len(theirs) - shared)


def _shingles(tokens: TokenArray, bounds: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """A hash of each 5-token shingle within a document, and the bounds [documents + 1] of documents in them.

    A document of fewer tokens is one shingle.
    """
    lengths = np.diff(bounds)
    counts = np.maximum(lengths - SHINGLE_TOKENS + 1, 1)
    edges = np.concatenate([[0], np.cumsum(counts)])
    positions = np.arange(edges[-1]) + np.repeat(bounds[:-1] - edges[:-1], counts)
    ends = np.repeat(bounds[1:], counts)
    padded = np.concatenate([tokens.astype(np.uint64) + np.uint64(1), np.zeros(SHINGLE_TOKENS, np.uint64)])
    mixed = np.zeros(len(positions), np.uint64)
    for step in range(SHINGLE_TOKENS):
        mixed += np.where(positions + step < ends, padded[positions + step], np.uint64(0))
        mixed = next_value(mixed)
    return (mixed >> np.uint64(32)).astype(np.uint32), edges


_HASHES = next_value(np.arange(1, 2 * BANDS * ROWS + 1, dtype=np.uint64))
_FACTORS = (_HASHES[: BANDS * ROWS] >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
_TERMS = (_HASHES[BANDS * ROWS :] >> np.uint64(32)).astype(np.uint32)


def _band_keys(block: tuple[TokenArray, NDArray[np.int64]]) -> Keys:
    """uint64 [documents, bands]: equal where two documents have the same eight minimum hashes."""
    shingles, edges = _shingles(*block)
    keys = np.zeros((len(edges) - 1, BANDS), np.uint64)
    for number, (factor, term) in enumerate(zip(_FACTORS, _TERMS, strict=True)):
        minimum = np.minimum.reduceat(shingles * factor + term, edges[:-1])
        keys[:, number // ROWS] = next_value(keys[:, number // ROWS] + minimum)
    return keys


def _candidates(table: Keys) -> Iterator[tuple[int, int]]:
    """Pairs of documents with the same key in a band: each with the first that has it and with the previous one."""
    for keys in table.T:
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
        begins = np.flatnonzero(np.concatenate([[True], keys[order][1:] != keys[order][:-1]]))
        leaders = begins[np.searchsorted(begins, same, side="right") - 1]
        for leader, position in zip(leaders.tolist(), same.tolist(), strict=True):
            yield int(order[leader]), int(order[position])
            if position - 1 != leader:
                yield int(order[position - 1]), int(order[position])


def _root(first: NDArray[np.int64], number: int) -> int:
    while first[number] != number:
        first[number] = first[first[number]]
        number = int(first[number])
    return number
