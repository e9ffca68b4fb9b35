"""The token store: a folder of Arrow files that any Arrow reader opens, and a manifest.

    manifest.json            what is in the store, with the size and SHA-256 of each shard
    tokenizer/               tokenizer.json, vocab.txt, tokenizer_config.json
    train-00000-000.arrow ...    one row a document: `sentences`, list<list<uint16 or uint32>> of token ids; `words`,
    held_out-00000-000.arrow ... their number; `hash`, 64 bits of the text's BLAKE2b

Each shard is an Arrow IPC file of one record batch, so its tokens are contiguous. Ids are of text only: no `[CLS]`, no
`[SEP]`. One store serves every sequence length.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from lambert.corpus.shard import CHUNK_TOKENS, Shard, TokenArray, damaged
from lambert.corpus.summary import BuildSummary
from lambert.errors import UserError
from lambert.utils.io import CORPUS_MANIFEST_BYTES, file_sha256, read_json
from lambert.utils.tokenizer_calls import open_tokenizer

FORMAT_VERSION = 3
MANIFEST_NAME = "manifest.json"
TOKENIZER_FOLDER = "tokenizer"
SPLITS = ("train", "held_out")


class Split:
    """The documents of one split, in order; sentences and tokens are numbered through the whole split."""

    def __init__(self, corpus: Corpus, name: str) -> None:
        self.corpus = corpus
        self.name = name
        self._entries = [entry for entry in corpus.manifest["shards"] if entry["split"] == name]
        self.document_count = sum(entry["documents"] for entry in self._entries)
        self.sentence_count = sum(entry["sentences"] for entry in self._entries)
        self.token_count = sum(entry["tokens"] for entry in self._entries)
        self._first_tokens = _offsets([entry["tokens"] for entry in self._entries])

    @cached_property
    def shards(self) -> list[Shard]:
        """Its files, in order."""
        corpus = self.corpus
        data_type = corpus.manifest["token_type"]
        return [Shard(corpus.path / entry["file"], entry, data_type) for entry in self._entries]

    @cached_property
    def document_offsets(self) -> npt.NDArray[np.int64]:
        """int64 [documents+1]: document d is sentences [offsets[d], offsets[d+1])."""
        return _joined([shard.document_offsets for shard in self.shards])

    @cached_property
    def sentence_offsets(self) -> npt.NDArray[np.int64]:
        """int64 [sentences+1]: sentence s is tokens [offsets[s], offsets[s+1])."""
        return _joined([shard.sentence_offsets for shard in self.shards])

    @cached_property
    def document_hashes(self) -> npt.NDArray[np.uint64]:
        """uint64 [documents]: the same for documents of the same text."""
        hashes = [shard.hashes for shard in self.shards]
        return np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)

    def tokens(self, start: int, stop: int) -> TokenArray:
        """Token ids [stop - start], read-only."""
        assert 0 <= start <= stop <= self.token_count, (start, stop, self.token_count)
        if start == stop:
            return np.empty(0, self.corpus.manifest["token_type"])
        first = int(np.searchsorted(self._first_tokens, start, side="right")) - 1
        begin = int(self._first_tokens[first])
        if stop <= self._first_tokens[first + 1]:
            return self.shards[first].read_tokens(start - begin, stop - begin)
        parts = []
        while start < stop:
            begin, end = int(self._first_tokens[first]), int(self._first_tokens[first + 1])
            parts.append(self.shards[first].read_tokens(start - begin, min(stop, end) - begin))
            start, first = min(stop, end), first + 1
        joined: TokenArray = np.concatenate(parts)  # type: ignore[assignment]
        return joined

    def spans(self, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> TokenArray:
        """Token ids of many spans, one after another.

        Args:
            starts, stops: [N] each span within one document.

        Raises:
            UserError: a file has been truncated, or can no longer be read.
        """
        shard_of = np.searchsorted(self._first_tokens, starts, side="right") - 1
        begins, sizes = starts - self._first_tokens[shard_of], stops - starts
        opened = {shard: self.shards[shard].opened_tokens() for shard in np.unique(shard_of).tolist()}
        kind = np.dtype(self.corpus.manifest["token_type"])
        files, first_bytes = np.zeros((2, len(self.shards)), np.int64)
        for shard, (file, first_byte) in opened.items():
            files[shard], first_bytes[shard] = file.number, first_byte
        bytes_at = first_bytes[shard_of] + kind.itemsize * begins
        # No loop of Python's own: a GPU's training thread waits for the interpreter lock meanwhile.
        places = zip(files[shard_of].tolist(), (kind.itemsize * sizes).tolist(), bytes_at.tolist(), strict=True)
        with contextlib.suppress(OSError):
            data = b"".join(itertools.starmap(os.pread, places))
            if len(data) == kind.itemsize * int(sizes.sum()):
                return np.frombuffer(data, kind)
        each = zip(shard_of.tolist(), begins.tolist(), (begins + sizes).tolist(), strict=True)
        return np.concatenate([self.shards[shard].read_tokens(begin, end) for shard, begin, end in each])

    def token_counts(self) -> npt.NDArray[np.int64]:
        """int64 [vocabulary_size]: how often each id occurs. Reads the whole split if the manifest does not say."""
        try:
            counts = np.array(self.corpus.manifest["token_counts"][self.name].split(), np.int64)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return count_tokens(self.shards, self.corpus.vocabulary_size)
        if counts.shape != (self.corpus.vocabulary_size,) or counts.min() < 0 or counts.sum() != self.token_count:
            return count_tokens(self.shards, self.corpus.vocabulary_size)
        return counts

    def __reduce__(self) -> tuple[Callable[..., Split], tuple[Path, str]]:
        return _reopen_split, (self.corpus.path, self.name)


def count_tokens(shards: Iterable[Shard], size: int) -> npt.NDArray[np.int64]:
    """int64 [size]: how often each id below `size` occurs; reads all tokens."""
    counts = np.zeros(size, np.int64)
    for shard in shards:
        for start in range(0, shard.token_count, CHUNK_TOKENS):
            stop = min(start + CHUNK_TOKENS, shard.token_count)
            counts += np.bincount(shard.read_tokens(start, stop), minlength=size)
    return counts


class Corpus:
    """A token store, opened for reading. Opening is quick; `verify` reads everything.

    Attributes:
        path: folder of the store.
        vocabulary_size: entries of its vocabulary, special tokens included.
        fingerprint: SHA-256 of the contents; the same text and arguments give the same one.
        manifest: `manifest.json` as plain values.
    """

    summary: BuildSummary | None = None
    """What `build_corpus` read and wrote; None for a corpus that was only opened."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.vocabulary_size: int = manifest["vocabulary_size"]
        self.fingerprint: str = manifest["fingerprint"]
        self.summary: BuildSummary | None = None
        """Of the build, where `lambert.build_corpus` has just made it."""

    @classmethod
    def open(cls, path: Path | str) -> Corpus:
        """Opens a store written by `build_corpus`.

        Raises:
            UserError: there is no store, it has another format version, or its files do not match its manifest.
        """
        path = Path(path)
        corpus = cls(path, read_manifest(path))
        for entry in corpus.manifest["shards"]:
            _check_size(path / entry["file"], entry["bytes"])
        corpus._check_tokenizer()
        return corpus

    @cached_property
    def _splits(self) -> dict[str, Split]:
        return {name: Split(self, name) for name in SPLITS}

    def split(self, name: str) -> Split:
        """The split `train` or `held_out`; the held-out one may be empty."""
        return self._splits[name]

    def tokenizer(self) -> Tokenizer:
        """A fresh tokenizer that made this store's ids.

        Raises:
            UserError: its file is missing or damaged.
        """
        file = self.path / TOKENIZER_FOLDER / "tokenizer.json"
        try:
            return open_tokenizer(file)
        except (UserError, OSError) as error:
            raise damaged(file, getattr(error, "what", str(error))) from None

    def verify(self) -> None:
        """Reads every shard and compares its SHA-256 and its ids with the manifest.

        Raises:
            UserError: naming the first file that is damaged.
        """
        for entry in self.manifest["shards"]:
            file = self.path / entry["file"]
            if file_sha256(file) != entry["sha256"]:
                raise damaged(file, "its SHA-256 is not that of its manifest")
            shard = Shard(file, entry, self.manifest["token_type"])
            if shard.token_count and shard.largest_token() >= self.vocabulary_size:
                raise damaged(file, f"it has an id beyond the vocabulary of {self.vocabulary_size:,}")

    def _check_tokenizer(self) -> None:
        file = self.path / TOKENIZER_FOLDER / "tokenizer.json"
        if not file.is_file():
            raise damaged(file, "it is missing")
        if file_sha256(file) != self.manifest["tokenizer_sha256"]:
            raise damaged(file, "it is not the tokenizer that made this store")
        size = self.tokenizer().get_vocab_size(with_added_tokens=True)
        if size != self.vocabulary_size:
            raise damaged(file, f"the manifest says {self.vocabulary_size:,} entries, it has {size:,}")

    def __reduce__(self) -> tuple[Callable[[Path], Corpus], tuple[Path]]:
        return Corpus.open, (self.path,)


def _reopen_split(path: Path, name: str) -> Split:
    return Corpus.open(path).split(name)


_FIELDS: dict[str, type] = {
    "vocabulary_size": int,
    "cased": bool,
    "language": str,
    "token_type": str,
    "tokenizer_sha256": str,
    "fingerprint": str,
    "shards": list,
    "settings": dict,
    "sources": list,
    "statistics": dict,
}
_SHARD_FIELDS: dict[str, type] = {
    "file": str,
    "split": str,
    "bytes": int,
    "sha256": str,
    "documents": int,
    "sentences": int,
    "words": int,
    "tokens": int,
}


def read_manifest(path: Path) -> dict[str, Any]:
    """The checked manifest of the store at `path`; UserError when it is missing, damaged or too new."""
    file = path / MANIFEST_NAME
    if not file.is_file():
        raise UserError(
            f"{path} is not a corpus: it has no {MANIFEST_NAME}",
            remedy="Make one with `lambert prepare`",
        )
    try:
        manifest = read_json(file, CORPUS_MANIFEST_BYTES)
    except (OSError, ValueError) as error:
        raise damaged(file, str(error)) from error
    if not isinstance(manifest, dict) or "format_version" not in manifest:
        raise damaged(file, "it has no format_version")
    if manifest["format_version"] != FORMAT_VERSION:
        found = manifest["format_version"]
        is_newer = isinstance(found, int) and found > FORMAT_VERSION
        raise UserError(
            f"the corpus {path} has format version {found}, this lambert reads {FORMAT_VERSION}",
            remedy=f"{'Install the newer lambert that made it, or prepare' if is_newer else 'Prepare'} it again with "
            "`lambert prepare`",
        )
    _check_fields(file, manifest, _FIELDS)
    for entry in manifest["shards"]:
        _check_fields(file, entry, _SHARD_FIELDS)
        if Path(entry["file"]).name != entry["file"]:
            raise damaged(file, f"it names {entry['file']!r}, which is not a file beside it")
    if manifest["token_type"] not in ("uint16", "uint32"):
        raise damaged(file, f"its token_type is {manifest['token_type']!r}")
    return manifest


def _check_fields(file: Path, entry: Any, fields: dict[str, type]) -> None:
    for name, kind in fields.items():
        if not isinstance(entry, dict) or type(entry.get(name)) is not kind:
            raise damaged(file, f"its field {name!r} is missing or not {kind.__name__}")


def _check_size(file: Path, size: int) -> None:
    if not file.is_file():
        raise damaged(file, "it is missing")
    if file.stat().st_size != size:
        raise damaged(file, f"it has {file.stat().st_size:,} bytes instead of {size:,}")


def _offsets(counts: list[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))]).astype(np.int64)


def _joined(shards: list[npt.NDArray[np.int32]]) -> npt.NDArray[np.int64]:
    """Offsets of consecutive shards as offsets of the whole, int64 [items+1]."""
    lengths = [np.diff(offsets) for offsets in shards]
    return _offsets(np.concatenate(lengths) if lengths else [])  # type: ignore[arg-type]
