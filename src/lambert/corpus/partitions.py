"""A partition of a corpus: some of its files, read, split into sentences, encoded and written by one process."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lambert.corpus.encoding import SentenceEncoder
from lambert.corpus.judgement import lost_text, refuse
from lambert.corpus.sentences import split_sentences, whole_line, with_spaces
from lambert.corpus.sources import Document, ReadOptions, ReadStatistics
from lambert.corpus.store import SPLITS
from lambert.corpus.summary import SplitCounts
from lambert.corpus.writer import ShardWriter, token_type
from lambert.utils.io import write_json
from lambert.utils.tokenizer_family import family_of

PARTITION_BYTES = 32 << 20
"""Stored bytes from which on the next file begins a new partition."""
BATCH_CHARACTERS = 1 << 22
_CHECK_CHARACTERS = 5_000_000
"""After so many characters a vocabulary that does not fit is refused, hours before the end of a large text."""


@dataclass(frozen=True)
class PartitionSettings:
    """How documents become shards."""

    validation_fraction: float
    language: str
    read: ReadOptions
    one_sentence_per_line: bool = False
    accepts_lost_marks: bool = False
    """Stripped accents were asked for."""
    is_vocabulary_given: bool = False
    also_held_out: int | None = None
    """Hash of a document that is held out whatever the fraction."""


@dataclass
class PartitionRecord:
    """What a finished partition holds; kept as JSON beside its shards until all are finished."""

    shards: list[dict[str, Any]]
    splits: dict[str, SplitCounts]
    statistics: ReadStatistics
    hash_range: list[int]
    """Smallest and largest hash of the training documents; empty where there are none."""
    sources: list[list[Any]]
    """Its files, with their sizes and times."""
    counts: dict[str, int] = field(default_factory=dict)
    """`SentenceEncoder.take_counts`, and `lone_sentences`: training documents of one sentence."""

    def write(self, file: Path) -> None:
        """Writes the record atomically."""
        write_json(file, asdict(self))

    @classmethod
    def read(cls, file: Path) -> PartitionRecord:
        """A record that `write` wrote."""
        values = json.loads(file.read_text(encoding="utf-8"))
        values["splits"] = {name: SplitCounts(**counts) for name, counts in values["splits"].items()}
        values["statistics"] = ReadStatistics(**values["statistics"])
        return cls(**values)

    @property
    def progress(self) -> Progress:
        """That of a finished partition."""
        total = SplitCounts.total(list(self.splits.values()))
        return self.statistics.stored_bytes, total.documents, total.tokens


Progress = tuple[int, int, int]
"""Stored bytes, documents and tokens so far."""


def group_files(files: Sequence[Path], sizes: Sequence[int]) -> list[list[Path]]:
    """Files in order as partitions: a function of names and sizes alone, never of the workers."""
    groups: list[list[Path]] = []
    filled = 0
    for file, size in zip(files, sizes, strict=True):
        if not groups or filled + size > PARTITION_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(file)
        filled += size
    return groups


def document_hash(document: Document) -> int:
    """64 evenly distributed bits that depend on the text alone."""
    digest = hashlib.blake2b("\n".join(document.paragraphs).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


@dataclass(frozen=True)
class EncodedBatch:
    """D documents as token ids."""

    hashes: NDArray[np.uint64]
    """[D] of the texts."""
    sentences: NDArray[np.int64]
    """[D] sentences of each, those without tokens included."""
    ids: NDArray[np.uint32]
    """[tokens] of all sentences in a row."""
    lengths: NDArray[np.int64]
    """[sentences] tokens of each."""
    words: NDArray[np.int64]
    """[sentences] words of each."""
    characters: Counter[str]
    """`SentenceEncoder.take_counts` of all of them."""


class DocumentEncoder:
    """Splits documents into sentences and encodes those."""

    def __init__(self, tokenizer: Tokenizer, settings: PartitionSettings) -> None:
        self._encoder = SentenceEncoder(tokenizer)
        self._marks_spaces = family_of(tokenizer).marks_spaces
        self._settings = settings

    def encode(self, documents: Sequence[Document]) -> EncodedBatch:
        """The ids of a batch; documents without tokens stay in it."""
        sentences = [list(self._sentences(document)) for document in documents]
        flat = [sentence for some in sentences for sentence in some]
        ids, lengths = self._encoder.encode(flat) if flat else (np.zeros(0, np.uint32), np.zeros(0, np.int64))
        return EncodedBatch(
            np.array([document_hash(document) for document in documents], np.uint64),
            np.array([len(some) for some in sentences], np.int64),
            ids,
            lengths,
            np.fromiter((sentence.strip(" ").count(" ") + 1 for sentence in flat), np.int64, len(flat)),
            self._encoder.take_counts(),
        )

    def _sentences(self, document: Document) -> Iterator[str]:
        """Where tokens hold the space before their word, so does every sentence that has one in the document."""
        is_first = True
        for line in document.paragraphs:
            if self._settings.one_sentence_per_line:
                sentences = whole_line(line)
            else:
                sentences = split_sentences(line, self._settings.language)
            if self._marks_spaces and sentences:
                sentences = with_spaces(line, sentences, first=is_first)
                is_first = False
            yield from sentences


def batches_of(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Batches of about `BATCH_CHARACTERS`."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += sum(map(len, document.paragraphs))
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@dataclass
class PartitionBuilder:
    """Encoded documents in, shards out."""

    folder: Path
    number: int
    tokenizer: Tokenizer
    settings: PartitionSettings
    progress: Callable[[int, int], None]
    """Called after every batch with the documents and tokens so far."""

    counts: Counter[str] = field(default_factory=Counter)
    hash_range: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.writer = ShardWriter(self.folder, f"{self.number:05}-", token_type(self.tokenizer))
        self.splits = {name: SplitCounts() for name in SPLITS}

    def build(self, batches: Iterable[EncodedBatch]) -> None:
        """Takes all batches and writes their shards."""
        for batch in batches:
            self._add(batch)
            total = SplitCounts.total(list(self.splits.values()))
            if self.counts["characters"] > _CHECK_CHARACTERS:
                settings = self.settings
                refuse(
                    lost_text(
                        self.counts,
                        is_vocabulary_given=settings.is_vocabulary_given,
                        accepts_lost_marks=settings.accepts_lost_marks,
                    )
                )
            self.progress(total.documents, total.tokens)

    def record(self, statistics: ReadStatistics, sources: list[list[Any]]) -> PartitionRecord:
        """What has been built, of these files."""
        shards = self.writer.finish()
        counts = dict(self.counts)
        return PartitionRecord(shards, self.splits, statistics, self.hash_range, sources, counts)

    def _add(self, batch: EncodedBatch) -> None:
        """Sends every document to its split; sentences and documents without tokens are dropped."""
        hashes, ids, lengths, words = batch.hashes, batch.ids, batch.lengths, batch.words
        self.counts.update(batch.characters)
        held_out = hashes < np.uint64(min(int(self.settings.validation_fraction * 2**64), 2**64 - 1))
        if self.settings.also_held_out is not None:
            held_out |= hashes == np.uint64(self.settings.also_held_out)
        document_of = np.repeat(np.arange(len(hashes)), batch.sentences)
        sentences = np.bincount(document_of[lengths > 0], minlength=len(hashes))
        in_documents = np.bincount(document_of, words, minlength=len(hashes)).astype(np.int64)
        for split, chosen in (("train", ~held_out), ("held_out", held_out)):
            chosen = chosen & (sentences > 0)
            in_split = chosen[document_of]
            own_ids = ids[np.repeat(in_split, lengths)]
            own_lengths = lengths[in_split & (lengths > 0)]
            counts = SplitCounts(
                int(chosen.sum()), len(own_lengths), int(words[in_split].sum()), int(own_lengths.sum())
            )
            self.splits[split] = SplitCounts.total([self.splits[split], counts])
            self.writer.add(split, own_ids, own_lengths, sentences[chosen], in_documents[chosen], hashes[chosen])
            if split == "train" and chosen.any():
                self.counts["lone_sentences"] += int((sentences[chosen] == 1).sum())
                known = [*self.hash_range, int(hashes[chosen].min()), int(hashes[chosen].max())]
                self.hash_range = [min(known), max(known)]
