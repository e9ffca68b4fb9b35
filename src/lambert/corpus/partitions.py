"""A part of a corpus: some of its files, read, parted into sentences, encoded and written by one process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
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

    validation_fraction: float
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


@dataclass(frozen=True)
class Encoded:
    """A batch of D documents as token ids."""

    hashes: NDArray[np.uint64]
    """[D] of the texts."""
    sentences: NDArray[np.int64]
    """[D] sentences of each, those without tokens counted."""
    ids: NDArray[np.uint32]
    """[tokens] of all sentences in a row."""
    lengths: NDArray[np.int64]
    """[sentences] tokens of each."""
    words: NDArray[np.int64]
    """[sentences] words of each."""


class DocumentEncoder:
    """Documents parted into sentences, and those into ids."""

    def __init__(self, tokenizer: Tokenizer, settings: PartSettings) -> None:
        self._encoder = SentenceEncoder(tokenizer)
        self._settings = settings

    def encode(self, documents: Sequence[Document]) -> Encoded:
        """The ids of a batch; documents that come to nothing stay in it."""
        sentences = [list(self._sentences(document)) for document in documents]
        flat = [sentence for some in sentences for sentence in some]
        ids, lengths = self._encoder.encode(flat) if flat else (np.zeros(0, np.uint32), np.zeros(0, np.int64))
        return Encoded(
            np.array([document_hash(document) for document in documents], np.uint64),
            np.array([len(some) for some in sentences], np.int64),
            ids,
            lengths,
            np.fromiter((sentence.count(" ") + 1 for sentence in flat), np.int64, len(flat)),
        )

    def _sentences(self, document: Document) -> Iterator[str]:
        for line in document.paragraphs:
            if self._settings.one_sentence_a_line:
                yield from whole_line(line)
            else:
                yield from split_sentences(line, self._settings.language)


def batches_of(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Runs of documents of some `BATCH_CHARACTERS` together."""
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
class PartBuilder:
    """Encoded documents in, shards out."""

    folder: Path
    number: int
    tokenizer: Tokenizer
    settings: PartSettings
    progress: Callable[[PartProgress], None]
    """Called after every batch."""

    unknown_tokens: int = 0
    hash_range: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.writer = ShardWriter(self.folder, f"{self.number:05}-", token_type(self.tokenizer))
        self.unknown = special_tokens(self.tokenizer).unknown
        self.splits = {name: SplitCounts() for name in SPLITS}

    def build(self, batches: Iterable[Encoded]) -> None:
        """Takes all batches, and writes their shards."""
        for batch in batches:
            self._place(batch)
            tokens = sum(counts.tokens for counts in self.splits.values())
            if tokens > _UNKNOWN_CHECK_TOKENS:
                refuse_unknown(self.unknown_tokens, tokens)
            self.progress(PartProgress(sum(counts.documents for counts in self.splits.values()), tokens))

    def record(self, statistics: ReadStatistics, sources: list[list[Any]]) -> PartRecord:
        """What has been built."""
        shards = self.writer.finish()
        return PartRecord(shards, self.splits, self.unknown_tokens, statistics, self.hash_range, sources)

    def _place(self, batch: Encoded) -> None:
        """Sends every document to its split; sentences and documents without tokens fall away."""
        hashes, ids, lengths, words = batch.hashes, batch.ids, batch.lengths, batch.words
        held_out = hashes < np.uint64(min(int(self.settings.validation_fraction * 2**64), 2**64 - 1))
        if self.settings.also_held_out is not None:
            held_out |= hashes == np.uint64(self.settings.also_held_out)
        document_of = np.repeat(np.arange(len(hashes)), batch.sentences)
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
