"""`lambert prepare TEXT... --out CORPUS`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lambert.cli.subcommand import Subcommand, say, warn
from lambert.corpus.judgement import shares
from lambert.utils.formatting import shell_command

if TYPE_CHECKING:
    from lambert.corpus.summary import BuildSummary


@dataclass(frozen=True, kw_only=True)
class Prepare(Subcommand):
    """Turn text into a corpus: sentences, token ids, a memory-mapped store, a held-out split."""

    text: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    """Files, folders or patterns: plain text (a paragraph or sentence per line, a blank line between documents), JSON
    lines, CSV, TSV, Parquet, MediaWiki exports, compressed or not. `-` is standard input, `hf:NAME[:CONFIG[:SPLIT]]` a
    Hugging Face dataset."""
    out: Path
    """Folder of the corpus; must not exist yet."""
    vocab: Path | None = None
    """Vocabulary to use: `vocab.txt`, `tokenizer.json`, a folder with either, a run, a corpus, or a model on the
    Hugging Face Hub such as google-bert/bert-base-uncased. Learned otherwise."""
    tokenizer: str | None = None
    """wordpiece or bpe, for a learned vocabulary: WordPiece as BERT's (default), or byte-level BPE as ModernBERT's,
    which is cased, keeps every character and has no [UNK]."""
    vocab_size: int | None = None
    """Entries of a learned vocabulary. Default: fits the text: 8,192 for 30 MB; at most BERT's 30,522, ModernBERT's
    50,368 for bpe."""
    cased: bool = False
    """Distinguish capitals and accents; otherwise WordPiece lower-cases text and strips accents."""
    strip_accents: str = "auto"
    """auto, yes or no: no keeps accents, vowel signs and tones in lower case. auto strips them where text is
    lower-cased, as BERT does, and refuses where that takes a tenth of the characters."""
    max_word_length: int | None = None
    """Characters from which on a word becomes [UNK]. Default: the given vocabulary's, or BERT's 100. Text with few
    spaces needs more."""
    validation_fraction: float = 0.01
    """Fraction of the documents held out for evaluation, 0 to below 1; training never sees them."""
    language: str = "en"
    """Two-letter code of the language, for the rules of sentence splitting."""
    one_sentence_per_line: bool = False
    """Lines are sentences already and are not split."""
    join_lines: bool = False
    """Lines of plain text were wrapped at a width: those between two blank lines are one paragraph."""
    one_document_per_file: bool = False
    """A file of plain text is one document; blank lines only separate its paragraphs."""
    text_format: str = "auto"
    """text, jsonl, csv, tsv or wikiextractor; auto tells them by contents and name."""
    encoding: str | None = None
    """Encoding of the files that are not UTF-8, such as cp1252, koi8-r, gb18030, shift_jis, utf-16-le. Detected where
    one fits plainly better than all others; refused where none does."""
    text_field: str = "text"
    """Field of JSON lines, or column of CSV, TSV or Parquet files, that holds the text."""
    deduplicate: str = "none"
    """Documents to drop: none, exact (same text as an earlier one) or near (Jaccard similarity of 0.8 or more)."""
    workers: int | None = None
    """Processes, each of which builds partitions of some 30 MB of files; all cores by default. The bytes of the corpus
    do not depend on it."""
    restart: bool = False
    """Discard what an interrupted call left, instead of resuming."""

    def run(self) -> dict[str, Any]:
        """Build the store. Results: documents, sentences, words and tokens by split, speed, and skipped text."""
        from lambert.cli.progress import build_progress
        from lambert.corpus.build import build_corpus

        with build_progress() as progress:
            corpus = build_corpus(
                self.text,
                self.out,
                vocab=self.vocab,
                tokenizer=self.tokenizer,
                vocab_size=self.vocab_size,
                cased=self.cased,
                strip_accents=self.strip_accents,
                max_word_length=self.max_word_length,
                validation_fraction=self.validation_fraction,
                language=self.language,
                text_field=self.text_field,
                text_format=self.text_format,
                encoding=self.encoding,
                one_sentence_per_line=self.one_sentence_per_line,
                join_lines=self.join_lines,
                one_document_per_file=self.one_document_per_file,
                deduplicate=self.deduplicate,
                workers=self.workers,
                restart=self.restart,
                progress=progress,
            )
        assert corpus.summary is not None
        say_summary(corpus.summary)
        say(f"Next: {shell_command('lambert', 'plan', '--corpus', self.out)}")
        return corpus.summary.as_dict()


def say_summary(summary: BuildSummary) -> None:
    """The corpus in a few lines."""
    for name, counts in summary.splits.items():
        say(
            f"{name.replace('_', '-'):9} {counts.documents:>12,} documents {counts.sentences:>13,} sentences "
            f"{counts.words:>14,} words {counts.tokens:>14,} tokens"
        )
    say(
        f"{summary.bytes_read / 1e6:,.1f} MB of text in {summary.seconds:,.1f} s "
        f"({summary.megabytes_per_second:.2f} MB/s); vocabulary {summary.vocab_size:,} "
        f"({summary.tokenizer}, {'learned' if summary.vocab_learned else 'given'}), {shares(summary.counts)}"
    )
    if summary.parsers:
        say("read as " + ", ".join(f"{parser}: {count:,}" for parser, count in sorted(summary.parsers.items())))
    if summary.encodings:
        worst = ", ".join(f"{name} ({encoding})" for name, encoding in list(summary.encodings.items())[:3])
        say(f"decoded from other encodings than UTF-8: {len(summary.encodings):,} files, {worst}")
    if summary.left_out:
        from lambert.corpus.discovery import DANGLING, endings_told

        files = {ending: count for ending, count in summary.left_out.items() if ending != DANGLING}
        if files:
            count, megabytes = sum(files.values()), summary.left_out_bytes / 1e6
            say(
                f"not taken from the folders: {count:,} files of {megabytes:,.1f} MB ({endings_told(files)}); "
                "name them by a pattern to take them, such as 'FOLDER/**/*.md'"
            )
        if links := summary.left_out.get(DANGLING):
            say(f"links to nothing in the folders: {links:,}; fix or remove them")
    if summary.skipped_records:
        skipped = [
            f"{name} ({count:,}, first {summary.first_skipped.get(name, 'unknown')})"
            for name, count in list(summary.skipped_records.items())[:3]
        ]
        say(f"records skipped: {sum(summary.skipped_records.values()):,}, in {', '.join(skipped)}")
    if summary.replaced_bytes:
        worst = ", ".join(f"{name} ({count:,})" for name, count in list(summary.replaced_bytes.items())[:3])
        say(f"bytes that were not UTF-8 and were replaced: {sum(summary.replaced_bytes.values()):,}, in {worst}")
    if summary.cut_lines or summary.cut_documents:
        say(f"cut to the size limits: {summary.cut_lines:,} lines, {summary.cut_documents:,} documents")
    if summary.duplicate_documents:
        say(f"documents with the text of an earlier one: {summary.duplicate_documents:,}")
    if summary.near_duplicate_documents is not None:
        say(f"near-duplicates of an earlier document, these included: {summary.near_duplicate_documents:,}")
    if not summary.splits["held_out"].documents:
        say("nothing is held out (one document, or --validation-fraction 0): this corpus cannot measure a model")
    for finding in summary.findings:
        warn(finding)
