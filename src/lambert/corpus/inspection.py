"""Statistics of a corpus: lengths, lost characters, duplicates, how much held-out text is also in the training text.

Everything is counted in blocks; memory holds one hash per sentence and fifteen per document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambert.corpus.near_duplicates import near_duplicates
from lambert.corpus.store import Corpus, Split
from lambert.utils.hashing import FIRST_FACTOR, INCREMENT

MIN_INFORMATIVE_TOKENS = 8
"""Shorter sentences ("See also.") occur in many texts and say nothing about an overlap."""

_QUANTILES = (0, 1, 10, 25, 50, 75, 90, 99, 100)
_BLOCK_SENTENCES = 1 << 18
_REPEATED_SHOWN = 10


@dataclass(frozen=True)
class Lengths:
    """How long things are."""

    mean: float
    quantiles: dict[str, int]
    """Percentile → length."""
    histogram: list[tuple[int, int]]
    """(smallest length of the bin, count); bins double in width."""

    @classmethod
    def of(cls, lengths: NDArray[np.int64]) -> Lengths:
        """Of `lengths` [N], each 1 or more."""
        if not len(lengths):
            return cls(0.0, {}, [])
        values = np.percentile(lengths, _QUANTILES, method="lower")
        quantiles = {f"{percent}": int(value) for percent, value in zip(_QUANTILES, values, strict=True)}
        counts = np.bincount(np.floor(np.log2(lengths)).astype(np.int64))
        return cls(float(lengths.mean()), quantiles, [(1 << power, int(count)) for power, count in enumerate(counts)])


def text_statistics(corpus: Corpus) -> dict[str, Any]:
    """Counts, lengths, lost characters, duplicates and overlap, as plain values for JSON. Reads the whole store."""
    splits = {name: corpus.split(name) for name in ("train", "held_out")}
    hashes = {name: _sentence_hashes(split) for name, split in splits.items()}
    statistics: dict[str, Any] = {"splits": {name: _split_statistics(split) for name, split in splits.items()}}
    statistics["counts"] = corpus.manifest["statistics"].get("counts", {})
    near = near_duplicates([shard for split in splits.values() for shard in split.shards])
    statistics["duplicates"] = _duplicates(splits, hashes, near)
    statistics["overlap"] = _overlap(splits, hashes, near)
    statistics["repeated_sentences"] = _repeated(corpus, hashes["train"])
    return statistics


def _split_statistics(split: Split) -> dict[str, Any]:
    sentences = np.diff(split.sentence_offsets)
    documents = np.diff(split.document_offsets)
    tokens = np.diff(split.sentence_offsets[split.document_offsets])
    counts = split.token_counts() if split.token_count else np.zeros(0, np.int64)
    return {
        "documents": split.document_count,
        "sentences": split.sentence_count,
        "tokens": split.token_count,
        "vocabulary_used": int((counts > 0).sum()),
        "tokens_per_sentence": Lengths.of(sentences).__dict__,
        "sentences_per_document": Lengths.of(documents).__dict__,
        "tokens_per_document": Lengths.of(tokens).__dict__,
    }


def _sentence_hashes(split: Split) -> NDArray[np.uint64]:
    """uint64 [sentences]: equal for sentences of the same tokens."""
    hashes = np.empty(split.sentence_count, np.uint64)
    for start, stop in _blocks(split):
        offsets = split.sentence_offsets[start : stop + 1]
        tokens = split.tokens(int(offsets[0]), int(offsets[-1])).astype(np.uint64)
        positions = (np.arange(len(tokens)) - np.repeat(offsets[:-1] - offsets[0], np.diff(offsets))).astype(np.uint64)
        # A sum over the tokens, each mixed with its position, so that order counts.
        values = (tokens + np.uint64(1)) * INCREMENT + positions * np.uint64(0xD1B54A32D192ED03)
        values = (values ^ (values >> np.uint64(30))) * FIRST_FACTOR
        values ^= values >> np.uint64(31)
        hashes[start:stop] = np.add.reduceat(values, offsets[:-1] - offsets[0])
    return hashes


def _blocks(split: Split) -> Iterator[tuple[int, int]]:
    edges = [*range(0, split.sentence_count, _BLOCK_SENTENCES), split.sentence_count]
    return pairwise(edges)


def _duplicates(
    splits: dict[str, Split], hashes: dict[str, NDArray[np.uint64]], near: NDArray[np.int64]
) -> dict[str, Any]:
    documents = splits["train"].document_hashes
    informative = hashes["train"][_is_informative(splits["train"])]
    return {
        "documents": len(documents) - len(np.unique(documents)),
        "near_documents": int((near[: len(documents)] != np.arange(len(documents))).sum()),
        "sentences": len(informative) - len(np.unique(informative)),
        "sentences_counted": len(informative),
    }


def _overlap(
    splits: dict[str, Split], hashes: dict[str, NDArray[np.uint64]], near: NDArray[np.int64]
) -> dict[str, Any]:
    training = splits["train"].document_count
    held_out = hashes["held_out"][_is_informative(splits["held_out"])]
    return {
        "held_out_documents_in_training": int(
            np.isin(splits["held_out"].document_hashes, splits["train"].document_hashes).sum()
        ),
        "held_out_documents_near_training": int((near[training:] < training).sum()),
        "held_out_sentences_in_training": int(np.isin(held_out, hashes["train"]).sum()),
        "held_out_sentences_counted": len(held_out),
    }


def _is_informative(split: Split) -> NDArray[np.bool_]:
    lengths: NDArray[np.bool_] = np.diff(split.sentence_offsets) >= MIN_INFORMATIVE_TOKENS
    return lengths


def _repeated(corpus: Corpus, hashes: NDArray[np.uint64]) -> list[dict[str, Any]]:
    """The training sentences that occur most often, longer ones first among equals."""
    split = corpus.split("train")
    values, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    lengths = np.diff(split.sentence_offsets)[first]
    order = np.lexsort((values, -lengths, -counts))[:_REPEATED_SHOWN]
    tokenizer = corpus.tokenizer()
    shown = []
    for index in order[counts[order] > 1]:
        start, stop = split.sentence_offsets[first[index] : first[index] + 2]
        text = tokenizer.decode(split.tokens(int(start), int(stop)).tolist(), skip_special_tokens=False).strip()
        shown.append({"sentence": text, "count": int(counts[index])})
    return shown
