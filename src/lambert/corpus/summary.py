"""What a build reports while it runs and when it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.corpus.judgement import judged
from lambert.utils.tokenizer_family import family_of

if TYPE_CHECKING:
    from lambert.corpus.sources import DocumentSource, ReadStatistics
    from lambert.corpus.store import Corpus


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is; bytes are those of the files as stored, the total None if unknown."""

    stage: str  # "vocabulary" (first pass, only when one is learned) or "tokens"
    done_bytes: int
    total_bytes: int | None
    documents: int
    tokens: int
    seconds: float


@dataclass
class SplitCounts:
    """Size of one split. Words are separated by white space."""

    documents: int = 0
    sentences: int = 0
    words: int = 0
    tokens: int = 0

    @classmethod
    def total(cls, counts: Sequence[SplitCounts]) -> SplitCounts:
        """The sum."""
        return cls(*(sum(getattr(one, entry.name) for one in counts) for entry in fields(cls)))


@dataclass(frozen=True)
class BuildSummary:
    """What was read and written; `splits` has the keys `train` and `held_out`, bytes are decompressed."""

    path: Path
    splits: dict[str, SplitCounts]
    files: int
    bytes_read: int
    seconds: float
    replaced_bytes: dict[str, int] = field(default_factory=dict)
    """File → bytes that were not UTF-8 and became U+FFFD."""
    cut_lines: int = 0
    cut_documents: int = 0
    skipped_records: dict[str, int] = field(default_factory=dict)
    """File → records without text."""
    first_skipped: dict[str, str] = field(default_factory=dict)
    parsers: dict[str, int] = field(default_factory=dict)
    """Parser → files."""
    duplicate_documents: int = 0
    near_duplicate_documents: int | None = None
    """None where near-duplicates were not looked for."""
    counts: dict[str, int] = field(default_factory=dict)
    """`encoding.CHARACTERS`, dropped characters ("U+200C", the ten commonest) and `lone_sentences` → number."""
    encodings: dict[str, str] = field(default_factory=dict)
    """File → encoding, where that is not UTF-8."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Ending → files of the folders that were not taken."""
    left_out_bytes: int = 0
    findings: tuple[str, ...] = ()
    """What was lost or left out, and what to do about it."""
    vocab_size: int = 0
    vocab_learned: bool = False
    tokenizer: str = ""
    """WordPiece or byte-level BPE."""
    fingerprint: str = ""

    @property
    def total(self) -> SplitCounts:
        """All splits together."""
        return SplitCounts.total(list(self.splits.values()))

    @property
    def megabytes_per_second(self) -> float:
        """10^6 bytes of decompressed text per second, over the whole build."""
        return self.bytes_read / 1e6 / max(self.seconds, 1e-9)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rate = {"megabytes_per_second": self.megabytes_per_second}
        return {**asdict(self), "path": str(self.path), **asdict(self.total), **rate}


def summary_of(
    corpus: Corpus, source: DocumentSource, read: ReadStatistics, splits: dict[str, SplitCounts], seconds: float
) -> BuildSummary:
    """The summary of a corpus that has just been built."""
    manifest, beside = corpus.manifest, source.beside
    statistics = manifest["statistics"]
    return BuildSummary(
        path=corpus.path,
        splits=splits,
        files=len(source.files),
        bytes_read=read.bytes,
        seconds=seconds,
        replaced_bytes=dict(read.replaced_bytes),
        cut_lines=read.cut_lines,
        cut_documents=read.cut_documents,
        skipped_records=dict(read.skipped_records),
        first_skipped=dict(read.first_skipped),
        parsers=dict(Counter(read.parsers.values())),
        duplicate_documents=statistics["duplicate_documents"],
        near_duplicate_documents=statistics["near_duplicate_documents"],
        counts=statistics["counts"],
        encodings=dict(read.encodings),
        left_out=dict(beside.left_out),
        left_out_bytes=beside.left_out_bytes,
        findings=tuple(map(str, judged(manifest))),
        vocab_size=corpus.vocabulary_size,
        vocab_learned=manifest["settings"]["vocab"] == "learned",
        tokenizer=family_of(corpus.tokenizer()).title,
        fingerprint=corpus.fingerprint,
    )
