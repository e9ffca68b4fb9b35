"""From finished partitions to a store: finds duplicates, drops them on request, writes the manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lambert.corpus.build_folder import PARTITIONS_FOLDER
from lambert.corpus.judgement import judged, refuse
from lambert.corpus.near_duplicates import near_duplicates
from lambert.corpus.partitions import PartitionRecord
from lambert.corpus.shard import Shard
from lambert.corpus.sources import ReadStatistics
from lambert.corpus.store import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    SPLITS,
    TOKENIZER_FOLDER,
)
from lambert.corpus.summary import SplitCounts
from lambert.corpus.vocabulary import is_cased
from lambert.corpus.writer import keep_documents, token_type
from lambert.errors import UserError
from lambert.utils.io import file_sha256, write_json

_NAMED = 10
_NOT_KEPT = ("files", "stored_bytes", "parsers", "encodings")
Marks = Sequence[NDArray[np.bool_]]
"""For each shard, in the order of the records, a mask of its documents."""


def counts_of(records: Sequence[PartitionRecord]) -> dict[str, SplitCounts]:
    """Sizes of the splits, all partitions together."""
    return {split: SplitCounts.total([record.splits[split] for record in records]) for split in SPLITS}


def statistics_of(records: Sequence[PartitionRecord]) -> ReadStatistics:
    """Reading statistics of all partitions together."""
    sums = ReadStatistics()
    for record in records:
        sums.add(record.statistics)
    return sums


def check_text(folder: Path, records: Sequence[PartitionRecord], settings: Mapping[str, Any]) -> None:
    """Refuses text that makes no corpus, and removes its partitions: preparing it again would not help.

    Args:
        settings: of the manifest.
    """
    counts = counts_of(records)
    try:
        if not sum(split.tokens for split in counts.values()):
            raise UserError("the text has no words in it", remedy="Give files of plain text in UTF-8")
        statistics = {**asdict(statistics_of(records)), "counts": characters_of(records)}
        refuse(judged({"statistics": statistics, "settings": settings, "shards": []}))
        if not counts["train"].documents:
            raise UserError(
                f"all {counts['held_out'].documents:,} documents are held out",
                remedy="Give a smaller `validation_fraction`",
            )
    except UserError:
        shutil.rmtree(folder / PARTITIONS_FOLDER)
        raise


def characters_of(records: Sequence[PartitionRecord]) -> dict[str, int]:
    """What was counted in characters, all partitions together; of dropped characters the commonest."""
    total: Counter[str] = Counter()
    for record in records:
        total.update(record.counts)
    dropped = sorted((name for name in total if name.startswith("U+")), key=lambda name: (-total[name], name))
    for name in dropped[_NAMED:]:
        del total[name]
    return dict(total)


def find_duplicates(folder: Path, records: Sequence[PartitionRecord]) -> Marks:
    """Marks documents with the text of an earlier one; copies are always in the same split."""
    hashes = [Shard(folder / entry["file"]).hashes for record in records for entry in record.shards]
    everything = np.concatenate(hashes)
    _, first = np.unique(everything, return_index=True)
    repeated = np.ones(len(everything), bool)
    repeated[first] = False
    return np.split(repeated, np.cumsum([len(some) for some in hashes])[:-1])


def find_near_duplicates(folder: Path, records: Sequence[PartitionRecord], data_type: str) -> Marks:
    """Marks near-duplicates of an earlier document; training text counts as earlier than held-out text."""
    entries = [entry for record in records for entry in record.shards]
    order = sorted(range(len(entries)), key=lambda index: SPLITS.index(entries[index]["split"]))
    shards = [Shard(folder / entries[index]["file"], entries[index], data_type) for index in order]
    first = near_duplicates(shards)
    edges = np.cumsum([len(shard.hashes) for shard in shards])[:-1]
    in_order = np.split(first != np.arange(len(first)), edges)
    return [marks for _, marks in sorted(zip(order, in_order, strict=True), key=lambda entry: entry[0])]


def drop_documents(folder: Path, records: Sequence[PartitionRecord], marks: Marks) -> None:
    """Removes the marked documents from the records' shards and counts.

    Filtered shards get new names: a process that is killed here starts again from the whole ones.
    """
    marks_left = iter(marks)
    for record in records:
        kept: list[dict[str, Any]] = []
        for entry in record.shards:
            marked = next(marks_left)
            rest = keep_documents(folder / entry["file"], entry["split"], ~marked) if marked.any() else entry
            counts = record.splits[entry["split"]]
            for name in ("documents", "sentences", "words", "tokens"):
                left = 0 if rest is None else rest[name]
                setattr(counts, name, getattr(counts, name) - entry[name] + left)
            kept += [] if rest is None else [rest]
        record.shards = kept


def write_manifest(
    folder: Path,
    tokenizer: Tokenizer,
    records: Sequence[PartitionRecord],
    settings: dict[str, Any],
    sources: list[dict[str, Any]],
    duplicates: Marks,
    near: Marks = (),
) -> dict[str, Any]:
    """Writes the manifest, which makes the folder a store, and returns it.

    Args:
        settings: the arguments of the build.
        sources: names and sizes of the files.
        duplicates, near: counted, whether they were dropped or not; `near` is empty where they were not looked for.
    """
    shards = [entry for record in records for entry in record.shards]
    contents: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "vocabulary_size": tokenizer.get_vocab_size(with_added_tokens=True),
        "cased": is_cased(tokenizer),
        "language": settings["language"],
        "token_type": token_type(tokenizer),
        "tokenizer_sha256": file_sha256(folder / TOKENIZER_FOLDER / "tokenizer.json"),
        "shards": sorted(shards, key=lambda entry: (SPLITS.index(entry["split"]), entry["file"])),
    }
    # Without names and paths of the sources: the same text elsewhere is the same corpus.
    fingerprint = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
    read = statistics_of(records)
    statistics = {
        **{name: value for name, value in asdict(read).items() if name not in _NOT_KEPT},
        "words": {name: split.words for name, split in counts_of(records).items()},
        "counts": characters_of(records),
        "duplicate_documents": int(sum(marks.sum() for marks in duplicates)),
        "near_duplicate_documents": int(sum(marks.sum() for marks in near)) if near else None,
    }
    manifest = {
        **contents,
        "fingerprint": fingerprint,
        "settings": settings,
        "sources": sources,
        "statistics": statistics,
    }
    write_json(folder / MANIFEST_NAME, manifest)
    return manifest
