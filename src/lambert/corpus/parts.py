"""A part of a corpus: some of its files, read, parted into sentences, encoded and written by one process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lambert.corpus.encoding import SentenceEncoder
from lambert.corpus.sentences import split_sentences, whole_line
from lambert.corpus.sources import Document, ReadStatistics
from lambert.corpus.store import SPLITS
from lambert.corpus.summary import SplitCounts
from lambert.corpus.vocabulary import special_tokens
from lambert.corpus.working import write_json
from lambert.corpus.writer import ShardWriter, token_type
from lambert.errors import UserError

PART_BYTES = 32 << 20
"""Stored bytes from which on the next file begins a new part."""
BATCH_CHARACTERS = 1 << 22
MOST_UNKNOWN_SHARE = 0.25
"""Beyond this share of unknown words the vocabulary is of another language or script."""

_UNKNOWN_CHECK_TOKENS = 1_000_000


@dataclass(frozen=True)
class PartSettings:
    """How documents become shards."""

    held_out_share: float
    language: str
    text_field: str
    one_sentence_a_line: bool = False
    also_held_out: int | None = None
    """Hash of a document that is held out whatever the share."""


@dataclass
class PartRecord:
    """What a finished part holds; kept as JSON beside its shards until all parts are finished."""

    shards: list[dict[str, Any]]
    splits: dict[str, SplitCounts]
    unknown_tokens: int
    statistics: ReadStatistics
    hash_range: list[int]
    """Smallest and largest hash of the documents that are not held out; empty where there are none."""
    sources: list[list[Any]]
    """Its files, with their sizes and times."""

    def write(self, file: Path) -> None:
        """Writes the record whole or not at all."""
        write_json(file, asdict(self))

    @classmethod
    def read(cls, file: Path) -> PartRecord:
        """A record that `write` wrote."""
        values = json.loads(file.read_text(encoding="utf-8"))
        values["splits"] = {name: SplitCounts(**counts) for name, counts in values["splits"].items()}
        values["statistics"] = ReadStatistics(**values["statistics"])
        return cls(**values)


@dataclass(frozen=True)
class PartProgress:
    """How far a part has come."""

    documents: int
    tokens: int


def group_files(files: Sequence[Path], sizes: Sequence[int]) -> list[list[Path]]:
    """Files in order as parts: a function of names and sizes alone, never of who builds them."""
    parts: list[list[Path]] = []
    filled = 0
    for file, size in zip(files, sizes, strict=True):
        if not parts or filled + size > PART_BYTES:
            parts.append([])
            filled = 0
        parts[-1].append(file)
        filled += size
    return parts


def document_hash(document: Document) -> int:
    """64 bits that depend on the text alone, spread evenly."""
    digest = hashlib.blake2b("\n".join(document.paragraphs).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


@dataclass
class PartBuilder:
    """Documents in, shards out."""

    folder: Path
    number: int
    tokenizer: Tokenizer
    settings: PartSettings
    progress: Callable[[PartProgress], None]
    """Called after every batch."""

    hashes: list[int] = field(default_factory=list)
    sentences: list[list[str]] = field(default_factory=list)
    characters: int = 0
    unknown_tokens: int = 0
    hash_range: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.writer = ShardWriter(self.folder, f"{self.number:05}-", token_type(self.tokenizer))
        self.encoder = SentenceEncoder(self.tokenizer)
        self.unknown = special_tokens(self.tokenizer).unknown
        self.splits = {name: SplitCounts() for name in SPLITS}

    def build(self, documents: Iterable[Document]) -> None:
        """Takes all documents, and writes their shards."""
        for document in documents:
            sentences = list(self._sentences(document))
            self.hashes.append(document_hash(document))
            self.sentences.append(sentences)
            self.characters += sum(map(len, sentences))
            if self.characters >= BATCH_CHARACTERS:
                self._encode_batch()
        self._encode_batch()

    def record(self, statistics: ReadStatistics, sources: list[list[Any]]) -> PartRecord:
        """What has been built."""
        shards = self.writer.finish()
        return PartRecord(shards, self.splits, self.unknown_tokens, statistics, self.hash_range, sources)

    def _sentences(self, document: Document) -> Iterator[str]:
        for line in document.paragraphs:
            if self.settings.one_sentence_a_line:
                yield from whole_line(line)
            else:
                yield from split_sentences(line, self.settings.language)

    def _encode_batch(self) -> None:
        flat = [sentence for sentences in self.sentences for sentence in sentences]
        if flat:
            ids, lengths = self.encoder.encode(flat)
            words = np.fromiter((sentence.count(" ") + 1 for sentence in flat), np.int64, len(flat))
            self._place(ids, lengths, words)
        self.hashes, self.sentences, self.characters = [], [], 0
        tokens = sum(counts.tokens for counts in self.splits.values())
        if tokens > _UNKNOWN_CHECK_TOKENS:
            refuse_unknown(self.unknown_tokens, tokens)
        self.progress(PartProgress(sum(counts.documents for counts in self.splits.values()), tokens))

    def _place(self, ids: Any, lengths: Any, words: Any) -> None:
        """Sends every document to its split; sentences and documents without tokens fall away."""
        hashes = np.array(self.hashes, np.uint64)
        held_out = hashes < np.uint64(min(int(self.settings.held_out_share * 2**64), 2**64 - 1))
        if self.settings.also_held_out is not None:
            held_out |= hashes == np.uint64(self.settings.also_held_out)
        document_of = np.repeat(np.arange(len(hashes)), [len(sentences) for sentences in self.sentences])
        sentences = np.bincount(document_of[lengths > 0], minlength=len(hashes))
        for split, chosen in (("train", ~held_out), ("held_out", held_out)):
            chosen = chosen & (sentences > 0)
            in_split = chosen[document_of]
            self._count(split, lengths[in_split], words[in_split], int(chosen.sum()))
            own_ids = ids[np.repeat(in_split, lengths)]
            self.unknown_tokens += int((own_ids == self.unknown).sum())
            in_documents = np.bincount(document_of, words, minlength=len(hashes)).astype(np.int64)
            own_lengths = lengths[in_split & (lengths > 0)]
            self.writer.add(split, own_ids, own_lengths, sentences[chosen], in_documents[chosen], hashes[chosen])
            if split == "train" and chosen.any():
                known = [*self.hash_range, int(hashes[chosen].min()), int(hashes[chosen].max())]
                self.hash_range = [min(known), max(known)]

    def _count(self, split: str, lengths: Any, words: Any, documents: int) -> None:
        counts = self.splits[split]
        counts.documents += documents
        counts.sentences += int((lengths > 0).sum())
        counts.words += int(words.sum())
        counts.tokens += int(lengths.sum())


def refuse_unknown(unknown_tokens: int, tokens: int) -> None:
    """Refuse a vocabulary of another language.

    Raises:
        UserError: more than `MOST_UNKNOWN_SHARE` of the tokens are unknown.
    """
    if unknown_tokens > MOST_UNKNOWN_SHARE * tokens:
        raise UserError(
            f"{unknown_tokens / tokens:.0%} of the text is unknown to the vocabulary",
            remedy="Bring a vocabulary of the text's language, or leave it out to learn one",
        )
