"""Raw text to a token store: one pass to learn a vocabulary, unless one is given, and one pass to encode.

Memory does not grow with the corpus: each worker holds one batch of sentences and one shard of each split, and learning
a vocabulary holds a sample of bounded size. The bytes do not depend on the number of workers.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lambert.corpus.build_folder import build_folder
from lambert.corpus.finalize import (
    check_text,
    counts_of,
    drop_documents,
    find_duplicates,
    find_near_duplicates,
    statistics_of,
    write_manifest,
)
from lambert.corpus.formats import check_format
from lambert.corpus.partitions import (
    DocumentEncoder,
    PartitionBuilder,
    PartitionRecord,
    PartitionSettings,
    Progress,
    batches_of,
    document_hash,
    group_files,
)
from lambert.corpus.sources import Document, DocumentSource, ReadOptions, identities, named_sources
from lambert.corpus.store import FORMAT_VERSION, TOKENIZER_FOLDER, Corpus
from lambert.corpus.summary import BuildProgress, summary_of
from lambert.corpus.text_encoding import check_encoding
from lambert.corpus.tokenizer_choice import TokenizerChoice
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.corpus.workers import Job, build_partitions
from lambert.corpus.writer import token_type
from lambert.errors import UserError
from lambert.utils.tokenizer_calls import open_tokenizer

VOCABULARY_SAMPLE_CHARACTERS = 50_000_000
DEDUPLICATION = ("none", "exact", "near")

Text = str | Path | Sequence[str | Path] | Callable[[], Iterable[Document]]
ProgressCallback = Callable[[BuildProgress], None]


def build_corpus(
    text: Text,
    out: str | Path,
    *,
    vocab: str | Path | None = None,
    tokenizer: str | None = None,
    vocab_size: int | None = None,
    cased: bool = False,
    strip_accents: str = "auto",
    max_word_length: int | None = None,
    validation_fraction: float = 0.01,
    language: str = "en",
    text_field: str = "text",
    text_format: str = "auto",
    encoding: str | None = None,
    one_sentence_per_line: bool = False,
    join_lines: bool = False,
    one_document_per_file: bool = False,
    deduplicate: str = "none",
    workers: int | None = 1,
    restart: bool = False,
    progress: ProgressCallback | None = None,
) -> Corpus:
    """Reads text, encodes it as token ids, writes the token store `out` and opens it.

    The store appears whole or not at all. The same text and arguments give the same files, byte for byte, for any
    number of workers. A document is held out when the hash of its text is below `validation_fraction`, so its copies
    are held out too. Special tokens written in the text (`[MASK]`) become ordinary tokens. A killed build
    resumes with the same call: `OUT.partial` keeps the finished partitions.

    Args:
        text: one file, folder, pattern or `hf:NAME[:CONFIG[:SPLIT]]` dataset, or a list of them; `-` is standard
            input. Plain text (a paragraph or sentence per line, a blank line between documents), JSON lines, Parquet,
            MediaWiki exports, compressed or not. Or a function that returns the documents anew at each call.
        out: folder of the store; must not exist yet.
        vocab: `vocab.txt`, `tokenizer.json`, a folder with either, a run, a corpus, or a model on the Hugging Face Hub
            such as `google-bert/bert-base-uncased`; None learns one.
        tokenizer: `wordpiece` or `bpe` (byte-level BPE as ModernBERT's: cased, nothing is lost or [UNK]), for a learned
            vocabulary; None takes WordPiece, as BERT, or what the given one is.
        vocab_size: entries of a learned vocabulary, special tokens included; by default as many as fit the size of the
            text (`fitting_vocab_size`).
        cased: distinguish capitals and accents; otherwise text is lower-cased and accents are stripped.
        strip_accents: `no` keeps accents, vowel signs and tones in lower case, `yes` strips them; `auto` strips them
            where text is lower-cased, as BERT does, and refuses where that takes a tenth of the characters.
        max_word_length: characters from which on a word is [UNK]; by default the given vocabulary's, or BERT's 100.
        validation_fraction: fraction of the documents that are held out, from 0 (none) to below 1.
        language: two- or three-letter code for the sentence rules.
        text_field: field of JSON lines, or column of CSV, TSV, Parquet and of datasets, that holds the text.
        text_format: `text`, `jsonl`, `csv`, `tsv` or `wikiextractor`; `auto` tells them by contents and name.
        encoding: of the files that are not UTF-8; detected where one fits plainly better than others.
        one_sentence_per_line: lines are sentences already and are not split.
        join_lines: lines of plain text were wrapped at a width: those between two blank lines are one paragraph.
        one_document_per_file: a file of plain text is one document, blank lines and all.
        deduplicate: documents to drop: `none`, `exact` (same text as an earlier one) or `near` (Jaccard similarity of
            0.8 or more with an earlier one, `lambert.corpus.near_duplicates`).
        workers: processes that build partitions (some 30 MB of files each) at once; None takes all cores. More than one
            needs an importable `__main__`, as every use of `multiprocessing` does.
        restart: discard what an interrupted build left, instead of resuming.
        progress: called now and then.

    Returns:
        The opened corpus; its `summary` says what was read, written, replaced and skipped.

    Raises:
        UserError: missing or unreadable input, no text, `out` exists or cannot be written, a vocabulary that does not
            fit, too much of the text lost, or an unfinished build with other arguments.
    """
    started, out = time.perf_counter(), Path(out)
    _check_arguments(validation_fraction, language, workers, deduplicate)
    check_format(text_format, joins_lines=join_lines, has_sentences=one_sentence_per_line)
    read = ReadOptions(text_field, check_encoding(encoding), text_format, one_document_per_file, join_lines)
    choice = TokenizerChoice.of(tokenizer, vocab_size, cased, strip_accents, max_word_length)
    settings: dict[str, Any] = {
        "validation_fraction": validation_fraction,
        "language": language,
        "deduplicate": deduplicate,
        **asdict(read),
        "one_sentence_per_line": one_sentence_per_line,
        "strip_accents": choice.strip_accents,
        "vocab": "learned" if vocab is None else "given",
    }
    given = None if vocab is None else choice.given(Path(vocab))
    with ExitStack() as stack:
        source = DocumentSource(text if callable(text) else stack.enter_context(named_sources(text, out)), read)
        plan = _plan(source, settings | asdict(choice), given)
        folder = stack.enter_context(build_folder(out, plan, restart=restart))
        report = _Reporter(progress, source, started)
        encodes = _tokenizer(folder, given, source, report, choice)
        how = PartitionSettings(
            validation_fraction, language, read, one_sentence_per_line, choice.strip_accents is True, given is not None
        )
        records = _build(folder, source, how, encodes, workers or _cores(), report)
        check_text(folder, records, settings)
        duplicates = find_duplicates(folder, records)
        near = find_near_duplicates(folder, records, token_type(encodes)) if deduplicate == "near" else []
        if deduplicate != "none":
            drop_documents(folder, records, near or duplicates)
        found = statistics_of(records)
        write_manifest(folder, encodes, records, settings, source.described(found), duplicates, near)
    corpus = Corpus.open(out)
    corpus.summary = summary_of(corpus, source, found, counts_of(records), time.perf_counter() - started)
    return corpus


def _check_arguments(validation_fraction: float, language: str, workers: int | None, deduplicate: str) -> None:
    if deduplicate not in DEDUPLICATION:
        raise UserError(f"`deduplicate` is {deduplicate!r}", remedy=f"Choose one of {', '.join(DEDUPLICATION)}")
    if not 0 <= validation_fraction < 1:
        raise UserError(
            f"`validation_fraction` is {validation_fraction}, not from 0 to below 1",
            remedy="Try 0.01, one document in 100",
        )
    if not re.fullmatch("[a-z]{2,3}", language):
        raise UserError(f"`language` is {language!r}", remedy="Give its two- or three-letter code, such as en or zh")
    if workers is not None and not 1 <= workers <= 1_024:
        raise UserError(f"`workers` is {workers}", remedy="Give a whole number of processes from 1 to 1,024")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plan(source: DocumentSource, settings: dict[str, Any], vocabulary: Tokenizer | None) -> dict[str, Any] | None:
    """What decides every byte beside the files of a partition; a learned vocabulary depends on all files.

    None for a function, whose documents cannot be recognised.
    """
    if source.make is not None:
        return None
    plan: dict[str, Any] = {"format_version": FORMAT_VERSION, **settings}
    if vocabulary is not None:
        return plan | {"vocab_sha256": hashlib.sha256(vocabulary.to_str().encode()).hexdigest()}
    return plan | {"sources": identities(source.files)}


class _Reporter:
    """Calls the progress callback, if there is one, with the sum over all partitions."""

    def __init__(self, callback: ProgressCallback | None, source: DocumentSource, started: float) -> None:
        self._callback, self._source, self._started = callback, source, started
        self._partitions: dict[int, Progress] = {}

    def vocabulary(self, documents: int) -> None:
        """Progress of the pass that learns the vocabulary."""
        self._call("vocabulary", self._source.statistics.stored_bytes, documents, 0)

    def partition(self, number: int, progress: Progress) -> None:
        """Progress of one partition."""
        self._partitions[number] = progress
        self._call("tokens", *(sum(column) for column in zip(*self._partitions.values(), strict=True)))

    def _call(self, stage: str, done_bytes: int, documents: int, tokens: int) -> None:
        if self._callback is not None:
            total = sum(self._source.sizes) or None
            seconds = time.perf_counter() - self._started
            self._callback(BuildProgress(stage, done_bytes, total, documents, tokens, seconds))


def _tokenizer(
    folder: Path,
    given: Tokenizer | None,
    source: DocumentSource,
    report: _Reporter,
    choice: TokenizerChoice,
) -> Tokenizer:
    """The given vocabulary, the one that an interrupted build learned, or one learned now; saved in the folder."""
    saved = folder / TOKENIZER_FOLDER
    if given is None and (saved / "tokenizer.json").exists():
        return open_tokenizer(saved / "tokenizer.json")
    tokenizer = given
    if tokenizer is None:
        tokenizer = choice.learned(*_vocabulary_sample(source, report))
    save_tokenizer(tokenizer, folder / f"{TOKENIZER_FOLDER}.partial")
    if not saved.exists():
        (folder / f"{TOKENIZER_FOLDER}.partial").rename(saved)
    return tokenizer


def _vocabulary_sample(source: DocumentSource, report: _Reporter) -> tuple[list[str], int]:
    """Lines of documents sampled evenly from the whole text by their hash, at most `VOCABULARY_SAMPLE_CHARACTERS`; and
    the number of characters of the whole text.

    Whenever the sample grows too large, the half of the documents with the larger hashes leaves it, and no such
    document enters it again. This needs one pass and does not depend on the order of the files.
    """
    limit = 1 << 64
    kept: list[tuple[int, int, list[str]]] = []
    characters = total = 0
    for number, document in enumerate(source):
        key, size = document_hash(document), sum(map(len, document.paragraphs))
        total += size
        if key < limit:
            kept.append((key, size, document.paragraphs))
            characters += size
        while characters > VOCABULARY_SAMPLE_CHARACTERS and len(kept) > 1:
            limit //= 2
            kept = [entry for entry in kept if entry[0] < limit] or kept[:1]
            characters = sum(entry[1] for entry in kept)
        if number % 1000 == 0:
            report.vocabulary(number + 1)
    return [line for _, _, lines in kept for line in lines], total


def _build(
    folder: Path,
    source: DocumentSource,
    settings: PartitionSettings,
    tokenizer: Tokenizer,
    workers: int,
    report: _Reporter,
) -> list[PartitionRecord]:
    """All partitions. Of two texts or more, one is held out unless the fraction is 0: that with the smallest hash."""
    groups = group_files(source.files, source.sizes)

    def jobs(settings: PartitionSettings) -> list[Job]:
        return [Job(folder, number, tuple(files), settings) for number, files in enumerate(groups)]

    def build(settings: PartitionSettings) -> list[PartitionRecord]:
        if source.make is not None:
            return [_build_from_function(folder, source, settings, tokenizer, report)]
        return build_partitions(jobs(settings), workers, report.partition)

    records = build(settings)
    if not settings.validation_fraction or counts_of(records)["held_out"].documents:
        return records
    hashes = [(key, number) for number, record in enumerate(records) for key in record.hash_range]
    if len({key for key, _ in hashes}) > 1:
        smallest, number = min(hashes)
        if groups:
            jobs(settings)[number].record_file.unlink(missing_ok=True)
        records = build(replace(settings, also_held_out=smallest))
    return records


def _build_from_function(
    folder: Path, source: DocumentSource, settings: PartitionSettings, tokenizer: Tokenizer, report: _Reporter
) -> PartitionRecord:
    def progress(documents: int, tokens: int) -> None:
        report.partition(0, (source.statistics.bytes, documents, tokens))

    builder = PartitionBuilder(folder, 0, tokenizer, settings, progress)
    builder.build(map(DocumentEncoder(tokenizer, settings).encode, batches_of(source)))
    return builder.record(source.statistics, [])
