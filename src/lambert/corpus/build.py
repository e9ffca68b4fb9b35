"""Raw text into a token store, part after part or several at once, after one pass more where a vocabulary is learned.

Memory does not grow with the corpus: what is held is one batch of sentences and one shard of each split for each worker
and, while a vocabulary is learned, a sample of bounded size. The bytes do not depend on the number of workers.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lambert.corpus.finish import (
    counts_of,
    drop_documents,
    find_duplicates,
    find_near_duplicates,
    statistics_of,
    write_manifest,
)
from lambert.corpus.parts import (
    DocumentEncoder,
    PartBuilder,
    PartProgress,
    PartRecord,
    PartSettings,
    batches_of,
    document_hash,
    group_files,
    refuse_unknown,
)
from lambert.corpus.sources import Document, ReadStatistics, TextReader, find_files, stored_bytes
from lambert.corpus.store import FORMAT_VERSION, TOKENIZER_FOLDER
from lambert.corpus.summary import BuildProgress, BuildSummary
from lambert.corpus.vocabulary import load_vocabulary, save_tokenizer, train_vocabulary
from lambert.corpus.workers import Job, build_parts
from lambert.corpus.working import PARTS_FOLDER, working_folder
from lambert.corpus.writer import token_type
from lambert.errors import UserError

VOCABULARY_SAMPLE_CHARACTERS = 50_000_000
DEDUPLICATION = ("none", "exact", "near")

ProgressCallback = Callable[[BuildProgress], None]


def build_corpus(
    documents_from: Sequence[Path] | Callable[[], Iterable[Document]],
    out: Path,
    *,
    vocabulary: Path | None = None,
    vocabulary_size: int = 30_522,
    cased: bool = False,
    validation_fraction: float = 0.01,
    language: str = "en",
    text_field: str = "text",
    one_sentence_a_line: bool = False,
    deduplicate: str = "none",
    workers: int = 1,
    restart: bool = False,
    progress: ProgressCallback | None = None,
) -> BuildSummary:
    """Writes the token store `out`, which must not exist yet; it appears whole or not at all.

    The same text and settings make the same files, byte for byte. A document is held out when the hash of its text
    falls below `validation_fraction`, so that its copies are too. Special tokens written out in the text (`[MASK]`)
    become ordinary word pieces. A build from files that was killed resumes when asked for again: `OUT.partial` keeps
    what is finished.

    Args:
        documents_from: files and folders, or a function that gives the documents anew at each call.
        out: folder of the store, a new one.
        vocabulary: `vocab.txt`, `tokenizer.json` or a folder with either; learned from the text when None.
        vocabulary_size: entries of a learned vocabulary; `cased` keeps capitals apart from small letters.
        validation_fraction: share of the documents held out, from 0 (none) to below 1.
        language: two- or three-letter code for the sentence rules.
        text_field: where JSON lines and Parquet hold the text; `one_sentence_a_line`: lines are sentences already.
        deduplicate: what to leave out: `none`, `exact` (text that has come before) or `near` (`lambert.corpus.near`).
        workers: processes that build parts (some 30 MB of files each) at once.
        restart: throw away what an earlier build left; `progress` is called now and then.

    Raises:
        UserError: wrong or missing input, no text, `out` exists or cannot be written, an unfit vocabulary, or an
            earlier build with other settings.
    """
    started = time.perf_counter()
    _check(validation_fraction, language, workers, deduplicate)
    source = _Source(documents_from, text_field)
    split = {"validation_fraction": validation_fraction, "language": language, "deduplicate": deduplicate}
    reading = {"text_field": text_field, "one_sentence_a_line": one_sentence_a_line}
    settings: dict[str, Any] = {**split, **reading, "vocabulary": "learned" if vocabulary is None else "given"}
    given = None if vocabulary is None else load_vocabulary(Path(vocabulary), cased=cased)
    plan = source.plan({**settings, "vocabulary_size": vocabulary_size, "cased": cased}, given)
    with working_folder(Path(out), plan, restart=restart) as folder:
        report = _Report(progress, source, started)
        tokenizer = _tokenizer(folder, given, source, report, vocabulary_size=vocabulary_size, cased=cased)
        part_settings = PartSettings(validation_fraction, language, text_field, one_sentence_a_line)
        records = _built(folder, source, part_settings, tokenizer, workers, report)
        _check_text(folder, records, validation_fraction)
        duplicates = find_duplicates(folder, records)
        near = find_near_duplicates(folder, records, token_type(tokenizer)) if deduplicate == "near" else []
        if deduplicate != "none":
            drop_documents(folder, records, near or duplicates)
        manifest = write_manifest(folder, tokenizer, records, settings, source.described(records), duplicates, near)
    seconds = time.perf_counter() - started
    return _summary(Path(out), source, records, manifest, learned=vocabulary is None, seconds=seconds)


def _check(validation_fraction: float, language: str, workers: int, deduplicate: str) -> None:
    if deduplicate not in DEDUPLICATION:
        raise UserError(f"deduplication {deduplicate!r}", remedy=f"Choose among {', '.join(DEDUPLICATION)}")
    if not 0 <= validation_fraction < 1:
        raise UserError(
            f"held-out share {validation_fraction} is not from 0 to below 1", remedy="Try 0.01, one document in 100"
        )
    if not re.fullmatch("[a-z]{2,3}", language):
        raise UserError(f"language {language!r}", remedy="Give its two- or three-letter code, such as en or zh")
    if workers < 1:
        raise UserError(f"{workers} workers", remedy="Give a whole number of processes from 1")


class _Source:
    """Documents from files or from a function, with the same statistics for both."""

    def __init__(
        self, documents_from: Sequence[Path] | Callable[[], Iterable[Document]], text_field: str = "text"
    ) -> None:
        self.text_field = text_field
        self.make = documents_from if callable(documents_from) else None
        self.files = [] if callable(documents_from) else find_files(documents_from)
        self.sizes = [stored_bytes(file) or 0 for file in self.files]
        self.statistics = ReadStatistics()

    def __iter__(self) -> Iterator[Document]:
        if self.make is None:
            reader = TextReader(self.files, text_field=self.text_field)
            self.statistics = reader.statistics
            for document in reader:
                self.statistics = reader.statistics
                yield document
            return
        self.statistics = ReadStatistics()
        for document in self.make():
            self.statistics.lines += len(document.paragraphs)
            self.statistics.bytes += sum(len(line.encode()) + 1 for line in document.paragraphs)
            yield document

    def plan(self, settings: dict[str, Any], vocabulary: Tokenizer | None) -> dict[str, Any] | None:
        """What decides every byte beside the files of a part; None for a function, whose documents nobody can
        recognise. A vocabulary that is learned depends on all files."""
        if self.make is not None:
            return None
        plan: dict[str, Any] = {"format_version": FORMAT_VERSION, **settings}
        if vocabulary is not None:
            return plan | {"vocabulary_sha256": hashlib.sha256(vocabulary.to_str().encode()).hexdigest()}
        return plan | {"sources": Job(Path(), 0, tuple(self.files), PartSettings(0.0, "", "")).sources()}

    def described(self, records: Sequence[PartRecord]) -> list[dict[str, Any]]:
        """Names, sizes and parsers of the files."""
        parsers = statistics_of(records).parsers
        return [
            {"name": str(file), "bytes": size, "parser": parsers.get(str(file))}
            for file, size in zip(self.files, self.sizes, strict=True)
        ]


class _Report:
    """Calls the caller's progress function, if there is one, with the sum over all parts."""

    def __init__(self, progress: ProgressCallback | None, source: _Source, started: float) -> None:
        self._progress, self._source, self._started = progress, source, started
        self._parts: dict[int, tuple[int, int, int]] = {}

    def vocabulary(self, documents: int) -> None:
        """How far the pass that learns the vocabulary has come."""
        self._tell("vocabulary", self._source.statistics.stored_bytes, documents, 0)

    def part(self, number: int, values: tuple[int, int, int]) -> None:
        """How far a part has come: stored bytes, documents, tokens."""
        self._parts[number] = values
        done, documents, tokens = (sum(column) for column in zip(*self._parts.values(), strict=True))
        self._tell("tokens", done, documents, tokens)

    def _tell(self, stage: str, done_bytes: int, documents: int, tokens: int) -> None:
        if self._progress is not None:
            total = sum(self._source.sizes) or None
            seconds = time.perf_counter() - self._started
            self._progress(BuildProgress(stage, done_bytes, total, documents, tokens, seconds))


def _tokenizer(
    folder: Path, given: Tokenizer | None, source: _Source, report: _Report, *, vocabulary_size: int, cased: bool
) -> Tokenizer:
    """The vocabulary that was given, or an earlier build learned, or that is learned now; saved in the folder."""
    place = folder / TOKENIZER_FOLDER
    if given is None and (place / "tokenizer.json").exists():
        return Tokenizer.from_file(str(place / "tokenizer.json"))
    learned = given or train_vocabulary(_vocabulary_sample(source, report), vocabulary_size, cased=cased)
    save_tokenizer(learned, folder / f"{TOKENIZER_FOLDER}.partial")
    if not place.exists():
        (folder / f"{TOKENIZER_FOLDER}.partial").rename(place)
    return learned


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
        key = document_hash(document)
        if key < limit:
            size = sum(map(len, document.paragraphs))
            kept.append((key, size, document.paragraphs))
            characters += size
        while characters > VOCABULARY_SAMPLE_CHARACTERS and len(kept) > 1:
            limit //= 2
            kept = [entry for entry in kept if entry[0] < limit] or kept[:1]
            characters = sum(entry[1] for entry in kept)
        if number % 1000 == 0:
            report.vocabulary(number + 1)
    return [line for _, _, lines in kept for line in lines]


def _built(
    folder: Path, source: _Source, settings: PartSettings, tokenizer: Tokenizer, workers: int, report: _Report
) -> list[PartRecord]:
    """All parts; of two texts or more one is held out, unless none was wanted: that of smallest hash."""
    groups = group_files(source.files, source.sizes)

    def build(settings: PartSettings) -> list[PartRecord]:
        if source.make is not None:
            return [_from_function(folder, source, settings, tokenizer, report)]
        jobs = [Job(folder, number, tuple(files), settings) for number, files in enumerate(groups)]
        return build_parts(jobs, workers, report.part)

    records = build(settings)
    counts = counts_of(records)
    spread = [record.hash_range for record in records]
    if (
        settings.validation_fraction
        and not counts["held_out"].documents
        and len({key for keys in spread for key in keys}) > 1
    ):
        smallest = [min(keys, default=None) for keys in spread]
        chosen = min(key for key in smallest if key is not None)
        number = smallest.index(chosen)
        Job(folder, number, (), settings).record_file.unlink(missing_ok=True)
        records = build(replace(settings, also_held_out=chosen))
    return records


def _from_function(
    folder: Path, source: _Source, settings: PartSettings, tokenizer: Tokenizer, report: _Report
) -> PartRecord:
    def progress(reached: PartProgress) -> None:
        report.part(0, (source.statistics.bytes, reached.documents, reached.tokens))

    builder = PartBuilder(folder, 0, tokenizer, settings, progress)
    builder.build(map(DocumentEncoder(tokenizer, settings).encode, batches_of(source)))
    return builder.record(source.statistics, [])


def _check_text(folder: Path, records: Sequence[PartRecord], validation_fraction: float) -> None:
    """Refuses text that makes no corpus, however often it is prepared: nothing of it is kept."""
    try:
        _refuse_text(records, validation_fraction)
    except UserError:
        shutil.rmtree(folder / PARTS_FOLDER)
        raise


def _refuse_text(records: Sequence[PartRecord], validation_fraction: float) -> None:
    counts = counts_of(records)
    tokens = sum(split.tokens for split in counts.values())
    if not tokens:
        raise UserError("the text has no words in it", remedy="Give files of plain text in UTF-8")
    refuse_unknown(sum(record.unknown_tokens for record in records), tokens)
    if not counts["train"].documents:
        raise UserError(
            f"all {counts['held_out'].documents:,} documents were held out",
            remedy=f"Choose a smaller held-out share than {validation_fraction}",
        )


def _summary(
    out: Path,
    source: _Source,
    records: Sequence[PartRecord],
    manifest: dict[str, Any],
    *,
    learned: bool,
    seconds: float,
) -> BuildSummary:
    read, counts = statistics_of(records), counts_of(records)
    return BuildSummary(
        path=out,
        splits=counts,
        files=len(source.files),
        bytes_read=read.bytes,
        seconds=seconds,
        replaced_bytes=dict(read.replaced_bytes),
        cut_lines=read.cut_lines,
        cut_documents=read.cut_documents,
        skipped_records=dict(read.skipped_records),
        first_skipped=dict(read.first_skipped),
        parsers=dict(Counter(read.parsers.values())),
        duplicate_documents=manifest["statistics"]["duplicate_documents"],
        near_duplicate_documents=manifest["statistics"]["near_duplicate_documents"],
        unknown_share=manifest["statistics"]["unknown_tokens"] / sum(split.tokens for split in counts.values()),
        vocabulary_size=manifest["vocabulary_size"],
        vocabulary_learned=learned,
        fingerprint=manifest["fingerprint"],
    )
