"""Writes the shards of a token store; memory is bounded by one shard for each split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from lambert.corpus.store import SPLITS
from lambert.utils.io import atomic_write, file_sha256

SHARD_TOKENS = 1 << 24
_UINT16_IDS = 1 << 16

Lengths = npt.NDArray[np.int64]


def token_type(tokenizer: Tokenizer) -> str:
    """The narrowest type that holds the tokenizer's ids."""
    return "uint16" if tokenizer.get_vocab_size(with_added_tokens=True) <= _UINT16_IDS else "uint32"


class ShardWriter:
    """Collects documents of token ids and writes a shard as soon as a split has `shard_tokens` of them.

    Args:
        folder: where the shards go; a half-written one never has its final name.
        prefix: follows the split in their names, so that several writers can share a folder.
        data_type: `uint16` or `uint32`.
    """

    def __init__(self, folder: Path, prefix: str, data_type: str, *, shard_tokens: int = SHARD_TOKENS) -> None:
        self.folder = folder
        self.prefix = prefix
        self.data_type = data_type
        self.shard_tokens = shard_tokens
        self.entries: list[dict[str, Any]] = []
        self._waiting: dict[str, list[tuple[npt.NDArray[Any], ...]]] = {name: [] for name in SPLITS}
        self._tokens = dict.fromkeys(SPLITS, 0)

    def add(
        self,
        split: str,
        ids: npt.NDArray[np.uint32],
        sentence_lengths: Lengths,
        sentences_in_documents: Lengths,
        words_in_documents: Lengths,
        hashes: npt.NDArray[np.uint64],
    ) -> None:
        """Adds D documents.

        Args:
            ids: [tokens] of all of them.
            sentence_lengths: [sentences] tokens of each, none 0.
            sentences_in_documents: [D], none 0.
            words_in_documents: [D].
            hashes: [D] of their texts.
        """
        if not len(hashes):
            return
        arrays = (sentence_lengths, sentences_in_documents, words_in_documents, hashes)
        self._waiting[split].append((ids.astype(self.data_type), *arrays))
        self._tokens[split] += len(ids)
        if self._tokens[split] >= self.shard_tokens:
            self._write(split)

    def finish(self) -> list[dict[str, Any]]:
        """Writes what is left; returns the manifest's entry of each shard, in order."""
        for split in SPLITS:
            if self._waiting[split]:
                self._write(split)
        return self.entries

    def _write(self, split: str) -> None:
        waiting = zip(*self._waiting[split], strict=True)
        ids, lengths, documents, words, hashes = (np.concatenate(parts) for parts in waiting)
        sentences = pa.ListArray.from_arrays(_arrow_offsets(lengths), pa.array(ids))
        column = pa.ListArray.from_arrays(_arrow_offsets(documents), sentences)
        columns = [column, pa.array(words, pa.int64()), pa.array(hashes, pa.uint64())]
        batch = pa.record_batch(columns, names=["sentences", "words", "hash"])
        number = sum(entry["split"] == split for entry in self.entries)
        self.entries.append(write_shard(self.folder / f"{split}-{self.prefix}{number:03}.arrow", split, batch))
        self._waiting[split], self._tokens[split] = [], 0


def write_shard(file: Path, split: str, batch: pa.RecordBatch) -> dict[str, Any]:
    """Writes one shard atomically; returns its entry in the manifest."""
    with (
        atomic_write(file) as partial,
        partial.open("wb") as sink,
        pa.ipc.new_file(sink, batch.schema) as writer,
    ):
        writer.write_batch(batch)
    sentences = batch.column("sentences").values
    return {
        "file": file.name,
        "split": split,
        "bytes": file.stat().st_size,
        "sha256": file_sha256(file),
        "documents": batch.num_rows,
        "sentences": len(sentences),
        "words": pc.sum(batch.column("words")).as_py(),
        "tokens": len(sentences.values),
    }


def keep_documents(file: Path, split: str, kept: npt.NDArray[np.bool_]) -> dict[str, Any] | None:
    """Writes a shard with only the documents where `kept`, under another name.

    Returns:
        Its entry in the manifest; None where no document is kept.
    """
    with file.open("rb") as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    filtered = pc.filter(batch, pa.array(kept))
    return write_shard(file.with_name(f"{file.stem}-distinct.arrow"), split, filtered) if filtered.num_rows else None


def _arrow_offsets(lengths: Lengths) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
