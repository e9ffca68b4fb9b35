"""Writes a token store shard by shard; memory is bounded by one shard for each split."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from lambert.corpus.store import FORMAT_VERSION, MANIFEST_NAME, SPLITS, TOKENIZER_FOLDER, sha256_of_file
from lambert.corpus.vocabulary import is_cased, save_tokenizer

SHARD_TOKENS = 1 << 24
_UINT16_IDS = 1 << 16


class _Growing:
    """The shard of a split that is being filled."""

    def __init__(self, type_code: str) -> None:
        self.tokens = array(type_code)
        self.sentence_lengths = array("i")
        self.document_lengths = array("i")


class StoreWriter:
    """Collects documents of token ids into shards of a folder, and describes them in a manifest at the end.

    The folder is not a store before `finish` has written its manifest: the caller makes the folder beside its
    final place and renames it afterwards.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, *, shard_tokens: int = SHARD_TOKENS) -> None:
        self.folder = folder
        self.shard_tokens = shard_tokens
        self.vocabulary_size = tokenizer.get_vocab_size(with_added_tokens=True)
        self.token_type = "uint16" if self.vocabulary_size <= _UINT16_IDS else "uint32"
        self.cased = is_cased(tokenizer)
        self._growing = {name: _Growing("H" if self.token_type == "uint16" else "I") for name in SPLITS}
        self._shards: list[dict[str, Any]] = []
        save_tokenizer(tokenizer, folder / TOKENIZER_FOLDER)

    def add(self, split: str, sentences: list[list[int]]) -> None:
        """Adds one document: the ids of its sentences, none of them empty."""
        growing = self._growing[split]
        for ids in sentences:
            growing.tokens.extend(ids)
            growing.sentence_lengths.append(len(ids))
        growing.document_lengths.append(len(sentences))
        if len(growing.tokens) >= self.shard_tokens:
            self._write_shard(split)

    def _write_shard(self, split: str) -> None:
        growing = self._growing[split]
        tokens = pa.array(np.frombuffer(growing.tokens, self.token_type))
        sentences = pa.ListArray.from_arrays(_arrow_offsets(growing.sentence_lengths), tokens)
        documents = pa.ListArray.from_arrays(_arrow_offsets(growing.document_lengths), sentences)
        batch = pa.record_batch([documents], names=["sentences"])
        number = sum(entry["split"] == split for entry in self._shards)
        file = self.folder / f"{split}-{number:05}.arrow"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        _sync(file)
        self._shards.append(
            {
                "file": file.name,
                "split": split,
                "bytes": file.stat().st_size,
                "sha256": sha256_of_file(file),
                "documents": len(documents),
                "sentences": len(sentences),
                "tokens": len(tokens),
            }
        )
        self._growing[split] = _Growing(growing.tokens.typecode)

    def finish(
        self,
        *,
        language: str,
        settings: dict[str, Any],
        sources: list[dict[str, Any]],
        statistics: dict[str, Any],
    ) -> dict[str, Any]:
        """Writes what is left and, last, the manifest, which it returns."""
        for split in SPLITS:
            if self._growing[split].document_lengths:
                self._write_shard(split)
        shards = sorted(self._shards, key=lambda entry: (SPLITS.index(entry["split"]), entry["file"]))
        contents: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "vocabulary_size": self.vocabulary_size,
            "cased": self.cased,
            "language": language,
            "token_type": self.token_type,
            "tokenizer_sha256": sha256_of_file(self.folder / TOKENIZER_FOLDER / "tokenizer.json"),
            "shards": shards,
        }
        # Names and places of the sources do not belong to it: the same text elsewhere is the same corpus.
        fingerprint = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
        manifest = {
            **contents,
            "fingerprint": fingerprint,
            "settings": settings,
            "sources": sources,
            "statistics": statistics,
        }
        file = self.folder / MANIFEST_NAME
        file.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        _sync(file)
        return manifest


def _arrow_offsets(lengths: array[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(np.frombuffer(lengths, np.int32))]).astype(np.int32))


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
