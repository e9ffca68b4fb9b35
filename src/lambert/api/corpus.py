"""Building a corpus from Python."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lambert.corpus.build import ProgressCallback
from lambert.corpus.build import build_corpus as build_store
from lambert.corpus.sources import STANDARD_INPUT, Document, keep_standard_input
from lambert.corpus.store import Corpus

Text = str | Path | Sequence[str | Path] | Callable[[], Iterable[Document]]


def build_corpus(
    text: Text,
    out: str | Path,
    *,
    vocab: str | Path | None = None,
    vocab_size: int = 30_522,
    cased: bool = False,
    validation_fraction: float = 0.01,
    language: str = "en",
    text_field: str = "text",
    one_sentence_a_line: bool = False,
    deduplicate: str = "none",
    workers: int = 1,
    restart: bool = False,
    progress: ProgressCallback | None = None,
) -> Corpus:
    """Turn text into a corpus: sentences, WordPiece ids, a memory-mapped store with held-out documents.

        corpus = lambert.build_corpus(["texts/"], "my-corpus", vocab_size=30_522)
        corpus.summary.splits["train"].tokens

    The same text and arguments make the same files, byte for byte. A build that was killed resumes when it is asked for
    again.

    Args:
        text: files, folders or patterns: plain text (one paragraph or sentence a line, a blank line between documents),
            JSON lines, Parquet, MediaWiki exports, compressed or not; `hf:NAME[:CONFIG[:SPLIT]]` is a Hugging Face
            dataset, `-` standard input. Or a function that returns the documents anew at each call.
        out: folder of the corpus; it must not exist yet.
        vocab: vocabulary to use: `vocab.txt`, `tokenizer.json`, a folder with either, or a run; learned otherwise.
        vocab_size: entries of a learned vocabulary.
        cased: keep capitals and accents apart.
        validation_fraction: fraction of the documents held out for evaluation, 0 to below 1. A document is chosen by
            the hash of its text, so that its copies are held out too.
        language: two- or three-letter code, for the rules of sentence ends.
        text_field: the field of JSON lines, or column of Parquet files, that holds the text.
        one_sentence_a_line: lines are sentences already.
        deduplicate: documents to leave out: `none`, `exact` (the same text came before) or `near` (four fifths of it
            did).
        workers: processes at once; the bytes do not depend on it. Python starts each by importing the main script anew:
            more than one needs `if __name__ == "__main__":` there.
        restart: throw away what an interrupted build left.
        progress: called with a `BuildProgress` now and then.

    Returns:
        The opened corpus, with `summary` of the build.

    Raises:
        UserError: no text, wrong arguments, an unfit vocabulary, or `out` exists or cannot be written.
    """
    out = Path(out)
    with _sources(text, out) as sources:
        summary = build_store(
            sources,
            out,
            vocabulary=_vocabulary(vocab),
            vocabulary_size=vocab_size,
            cased=cased,
            validation_fraction=validation_fraction,
            language=language,
            text_field=text_field,
            one_sentence_a_line=one_sentence_a_line,
            deduplicate=deduplicate,
            workers=workers,
            restart=restart,
            progress=progress,
        )
    corpus = Corpus.open(out)
    corpus.summary = summary
    return corpus


@contextmanager
def _sources(text: Text, out: Path) -> Iterator[Sequence[Path] | Callable[[], Iterable[Document]]]:
    """What to build from, with standard input kept in a file while it is needed: it is read more than once."""
    if callable(text):
        yield text
        return
    paths = [Path(text)] if isinstance(text, str | Path) else [Path(path) for path in text]
    if STANDARD_INPUT not in paths:
        yield paths
        return
    nearest = next(folder for folder in out.absolute().parents if folder.is_dir())  # its disk must have room anyway
    with tempfile.TemporaryDirectory(prefix="lambert-", dir=nearest) as folder:
        kept = Path(folder) / "standard-input"
        keep_standard_input(kept)
        yield [kept if path == STANDARD_INPUT else path for path in paths]


def _vocabulary(path: str | Path | None) -> Path | None:
    """The vocabulary itself, where a run is named."""
    if path is None:
        return None
    path = Path(path)
    return path / "tokenizer" if (path / "journal.jsonl").exists() else path
