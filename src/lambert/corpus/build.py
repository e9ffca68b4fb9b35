"""Raw text into a token store in one streaming pass, after one more over the text where a vocabulary is to be
learned.

Memory does not grow with the corpus: what is held is one batch of sentences, one shard for each split and,
while a vocabulary is learned, a sample of bounded size.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lambert.corpus.encoding import SentenceEncoder
from lambert.corpus.folder import written_aside
from lambert.corpus.sentences import split_sentences
from lambert.corpus.sources import Document, ReadStatistics, TextReader, find_files
from lambert.corpus.summary import BuildProgress, BuildSummary, SplitCounts
from lambert.corpus.vocabulary import load_vocabulary, special_tokens, train_vocabulary
from lambert.corpus.writer import StoreWriter
from lambert.errors import UserError

BATCH_CHARACTERS = 1 << 20
VOCABULARY_SAMPLE_CHARACTERS = 50_000_000
# Beyond this share of unknown words the vocabulary is of another language or script.
MOST_UNKNOWN_SHARE = 0.25
_UNKNOWN_CHECK_TOKENS = 1_000_000

ProgressCallback = Callable[[BuildProgress], None]


def build_corpus(
    documents_from: Sequence[Path] | Callable[[], Iterable[Document]],
    out: Path,
    *,
    vocabulary: Path | None = None,
    vocabulary_size: int = 30_522,
    cased: bool = False,
    held_out_share: float = 0.01,
    language: str = "en",
    progress: ProgressCallback | None = None,
) -> BuildSummary:
    """Writes the token store `out`, which must not exist yet; it appears whole or not at all.

    The same text and settings make the same files, byte for byte. A document is held out when the hash of its text
    falls below `held_out_share`, so that its copies are too. Special tokens written out in the text (`[MASK]`)
    become ordinary word pieces, never special ids.

    Args:
        documents_from: files and folders of text, or a function that gives the documents anew at each call.
        out: folder of the store.
        vocabulary: `vocab.txt`, `tokenizer.json` or a folder with either; learned from the text when None.
        vocabulary_size: entries of a learned vocabulary.
        cased: whether capitals are kept apart from small letters.
        held_out_share: share of the documents held out, from 0 (none) to below 1.
        language: two- or three-letter code for the sentence rules.
        progress: called after every batch.

    Raises:
        UserError: wrong or missing input, no text, `out` exists or cannot be written, an unfit vocabulary.
    """
    started = time.perf_counter()
    _check_share(held_out_share)
    if not re.fullmatch("[a-z]{2,3}", language):
        raise UserError(f"language {language!r}", remedy="Give its two- or three-letter code, such as en or zh")
    source = _Source(documents_from)
    with written_aside(Path(out)) as folder:
        report = _Report(progress, source, started)
        if vocabulary is None:
            tokenizer = train_vocabulary(_vocabulary_sample(source, report), vocabulary_size, cased=cased)
        else:
            tokenizer = load_vocabulary(Path(vocabulary), cased=cased)
        run = _Build(folder, tokenizer, held_out_share, language, report)
        for document in source:
            run.add(document)
        run.finish()
        origin = "learned" if vocabulary is None else "given"
        manifest = run.writer.finish(
            language=language,
            settings={"vocabulary": origin, "held_out_share": held_out_share, "language": language},
            sources=source.described(),
            statistics=_statistics(source.statistics, run),
        )
    seconds = time.perf_counter() - started
    return _summary(Path(out), source, run, learned=vocabulary is None, manifest=manifest, seconds=seconds)


def _summary(
    out: Path, source: _Source, run: _Build, *, learned: bool, manifest: dict[str, Any], seconds: float
) -> BuildSummary:
    facts = source.statistics
    return BuildSummary(
        path=out,
        splits=run.counts,
        files=len(source.files),
        bytes_read=facts.bytes,
        seconds=seconds,
        replaced_bytes=dict(facts.replaced_bytes),
        cut_lines=facts.cut_lines,
        cut_documents=facts.cut_documents,
        unknown_share=run.unknown_share,
        vocabulary_size=run.writer.vocabulary_size,
        vocabulary_learned=learned,
        fingerprint=manifest["fingerprint"],
    )


def _check_share(held_out_share: float) -> None:
    if not 0 <= held_out_share < 1:
        raise UserError(
            f"held-out share {held_out_share} is not from 0 to below 1", remedy="Try 0.01, one document in 100"
        )


class _Source:
    """Documents from files or from a function, with the same statistics for both."""

    def __init__(self, documents_from: Sequence[Path] | Callable[[], Iterable[Document]]) -> None:
        self._make = None if not callable(documents_from) else documents_from
        self.files = [] if callable(documents_from) else find_files(documents_from)
        self.total_bytes = sum(file.stat().st_size for file in self.files) or None
        self.statistics = ReadStatistics()

    def __iter__(self) -> Iterator[Document]:
        if self._make is None:
            reader = TextReader(self.files)
            documents = iter(reader)
            for document in documents:
                self.statistics = reader.statistics
                yield document
            self.statistics = reader.statistics
            return
        self.statistics = ReadStatistics()
        for document in self._make():
            self.statistics.lines += len(document.paragraphs)
            self.statistics.bytes += sum(len(line.encode()) + 1 for line in document.paragraphs)
            yield document

    def described(self) -> list[dict[str, Any]]:
        return [{"name": str(file), "bytes": file.stat().st_size} for file in self.files]


class _Report:
    """Calls the caller's progress function, if there is one."""

    def __init__(self, progress: ProgressCallback | None, source: _Source, started: float) -> None:
        self._progress, self._source, self._started = progress, source, started

    def __call__(self, stage: str, *, documents: int, tokens: int = 0) -> None:
        if self._progress is not None:
            statistics = self._source.statistics
            self._progress(
                BuildProgress(
                    stage=stage,
                    done_bytes=statistics.stored_bytes or statistics.bytes,
                    total_bytes=self._source.total_bytes,
                    documents=documents,
                    tokens=tokens,
                    seconds=time.perf_counter() - self._started,
                )
            )


def _document_hash(document: Document) -> int:
    """64 bits that depend on the text alone, spread evenly."""
    digest = hashlib.blake2b("\n".join(document.paragraphs).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _vocabulary_sample(source: _Source, report: _Report) -> list[str]:
    """Lines of documents drawn evenly from the whole text by their hash, at most
    `VOCABULARY_SAMPLE_CHARACTERS`.

    Whenever the sample grows too large, the half of the documents with the larger hashes leaves it and no
    such document enters it again: a sample that needs one pass and does not depend on the order of the files.
    """
    limit = 1 << 64
    kept: list[tuple[int, int, list[str]]] = []
    characters = 0
    for number, document in enumerate(source):
        key = _document_hash(document)
        if key < limit:
            size = sum(map(len, document.paragraphs))
            kept.append((key, size, document.paragraphs))
            characters += size
        while characters > VOCABULARY_SAMPLE_CHARACTERS and len(kept) > 1:
            limit //= 2
            kept = [entry for entry in kept if entry[0] < limit] or kept[:1]
            characters = sum(entry[1] for entry in kept)
        if number % 1000 == 0:
            report("vocabulary", documents=number + 1)
    return [line for _, _, lines in kept for line in lines]


@dataclass
class _Encoded:
    """A document as token ids."""

    key: int
    sentences: list[list[int]]
    words: int


@dataclass
class _Build:
    """The second pass: sentences, ids, split, shards."""

    folder: Path
    tokenizer: Tokenizer
    held_out_share: float
    language: str
    report: _Report
    batch: list[tuple[int, list[str]]] = field(default_factory=list)
    batch_characters: int = 0
    unknown_tokens: int = 0

    def __post_init__(self) -> None:
        self.writer = StoreWriter(self.folder, self.tokenizer)
        self.encoder = SentenceEncoder(self.tokenizer)
        self.unknown = special_tokens(self.tokenizer).unknown
        self.counts = {"train": SplitCounts(), "held_out": SplitCounts()}
        self.spare: _Encoded | None = None

    @property
    def tokens(self) -> int:
        return sum(counts.tokens for counts in self.counts.values())

    @property
    def unknown_share(self) -> float:
        return self.unknown_tokens / max(1, self.tokens)

    def add(self, document: Document) -> None:
        sentences = [sentence for line in document.paragraphs for sentence in split_sentences(line, self.language)]
        self.batch.append((_document_hash(document), sentences))
        self.batch_characters += sum(map(len, sentences))
        if self.batch_characters >= BATCH_CHARACTERS:
            self._encode_batch()

    def _encode_batch(self) -> None:
        encoded = iter(self.encoder.encode([sentence for _, sentences in self.batch for sentence in sentences]))
        for key, sentences in self.batch:
            if ids := [ids for ids in islice(encoded, len(sentences)) if ids]:
                self._place(_Encoded(key, ids, sum(len(sentence.split()) for sentence in sentences)))
        self.batch, self.batch_characters = [], 0
        if self.tokens > _UNKNOWN_CHECK_TOKENS:
            self._check_unknown()
        self.report("tokens", documents=sum(counts.documents for counts in self.counts.values()), tokens=self.tokens)

    def _place(self, document: _Encoded) -> None:
        """Sends a document to its split, keeping back the one of smallest hash while none is held out."""
        if document.key < self.held_out_share * 2**64:
            self._write("held_out", document)
        elif self.counts["held_out"].documents or self.held_out_share == 0:
            self._write("train", document)
        elif self.spare is None:
            self.spare = document
        else:
            self.spare, other = sorted((self.spare, document), key=lambda one: one.key)
            self._write("train", other)
        if self.spare is not None and self.counts["held_out"].documents:
            self._write("train", self.spare)
            self.spare = None

    def _write(self, split: str, document: _Encoded) -> None:
        self.writer.add(split, document.sentences)
        counts = self.counts[split]
        counts.documents += 1
        counts.sentences += len(document.sentences)
        counts.words += document.words
        counts.tokens += sum(map(len, document.sentences))
        self.unknown_tokens += sum(ids.count(self.unknown) for ids in document.sentences)

    def finish(self) -> None:
        """Writes what is still held; of two documents or more one is held out, unless none was wanted."""
        self._encode_batch()
        if self.spare is not None:
            self._write("held_out" if self.counts["train"].documents else "train", self.spare)
        if not self.tokens:
            raise UserError("the text has no words in it", remedy="Give files of plain text in UTF-8")
        self._check_unknown()
        if not self.counts["train"].documents:
            raise UserError(
                f"all {self.counts['held_out'].documents:,} documents were held out",
                remedy=f"Choose a smaller held-out share than {self.held_out_share}",
            )

    def _check_unknown(self) -> None:
        if self.unknown_share > MOST_UNKNOWN_SHARE:
            raise UserError(
                f"{self.unknown_share:.0%} of the text is unknown to the vocabulary",
                remedy="Bring a vocabulary of the text's language, or leave it out to learn one",
            )


def _statistics(read: ReadStatistics, run: _Build) -> dict[str, Any]:
    return {
        "bytes": read.bytes,
        "lines": read.lines,
        "words": {name: split.words for name, split in run.counts.items()},
        "unknown_tokens": run.unknown_tokens,
        "replaced_bytes": read.replaced_bytes,
        "cut_lines": read.cut_lines,
        "cut_documents": read.cut_documents,
    }
