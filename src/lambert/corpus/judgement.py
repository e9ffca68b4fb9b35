"""What a corpus lost or left out, judged in characters of its text: little is only reported, much is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lambert.errors import UserError


@dataclass(frozen=True)
class Limit:
    """Shares from which something is said, and from which it is refused."""

    warned: float
    refused: float


UNKNOWN = Limit(0.01, 0.20)
"""Characters in words that become [UNK]."""
MARKS = Limit(0.005, 0.10)
"""Accents, vowel signs and tones that are stripped, of all characters; 0.6 % of German."""
DROPPED = Limit(0.005, 0.20)
"""Other characters that the tokenizer drops: control, format (ZWNJ, soft hyphens) and private-use ones; only the last
are refused, for BERT drops the others from every text."""
UNREADABLE = Limit(0.0, 0.05)
"""Characters that are U+FFFD, in place of what could not be decoded."""
SKIPPED = Limit(0.01, 0.5)
"""Records without text."""
WRAPPED, LONE = 0.3, 0.7
"""Lines of plain text that seem to be wrapped, training documents of one sentence: only said."""


_NAMED = 5
_LOST = {
    "unknown_characters": "in words that become [UNK]",
    "marks_dropped": "stripped marks",
    "dropped_characters": "dropped by the tokenizer",
    "replacement_characters": "U+FFFD",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is lost, and what to do about it."""

    what: str
    remedy: str
    is_refused: bool = False

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}."


def refuse(findings: Iterable[Finding]) -> None:
    """Raises UserError with the first finding that is refused."""
    for finding in findings:
        if finding.is_refused:
            raise UserError(finding.what, remedy=finding.remedy)


def lost_text(counts: Mapping[str, int], *, is_vocabulary_given: bool, accepts_lost_marks: bool) -> list[Finding]:
    """Characters that the model will not see.

    Args:
        counts: `SentenceEncoder.take_counts`; empty for a corpus of before they were counted.
        accepts_lost_marks: it was asked for, or the given vocabulary wants it.
    """
    characters = max(1, counts.get("characters", 0))
    found = []
    unknown, overlong = counts.get("unknown_characters", 0), counts.get("overlong_characters", 0)
    if unknown > UNKNOWN.warned * characters:
        remedy = "Learn a larger vocabulary with `vocab_size`"
        if 2 * overlong > unknown:
            remedy = "Give a larger `max_word_length` (BERT's is 100), such as 1000, or put spaces between the words"
        elif is_vocabulary_given:
            remedy = "Give a `vocab` of the text's language, or leave it out to learn one"
        what = f"{_share(unknown, characters)} are in words that become [UNK]"
        if overlong:
            what += f", {_share(overlong, characters, '')} in words that are too long"
        found.append(Finding(what, remedy, unknown > UNKNOWN.refused * characters))
    if (marks := counts.get("marks_dropped", 0)) > MARKS.warned * characters:
        what = f"{_share(marks, characters)} are accents, vowel signs or tones that are stripped, so that words merge"
        remedy = "Give `strip_accents` no to keep them in lower case, or `cased`; `strip_accents` yes accepts it"
        is_refused = marks > MARKS.refused * characters and not (accepts_lost_marks or is_vocabulary_given)
        found.append(Finding(what, remedy, is_refused))
    if (dropped := counts.get("dropped_characters", 0)) > DROPPED.warned * characters:
        named = sorted((name for name in counts if name.startswith("U+")), key=lambda name: (-counts[name], name))
        what = (
            f"{_share(dropped, characters)} are control, format or private-use characters that the tokenizer drops: "
            + ", ".join(named[:_NAMED])
        )
        remedy = "Replace them in the text by what they stand for: a space, a letter or nothing"
        is_refused = counts.get("private_use_characters", 0) > DROPPED.refused * characters
        found.append(Finding(what, remedy, is_refused))
    if unreadable := counts.get("replacement_characters", 0):
        what = f"{_share(unreadable, characters)} are U+FFFD, which stands for bytes that could not be decoded"
        remedy = "Give the files in UTF-8, or their `encoding`"
        found.append(Finding(what, remedy, unreadable > UNREADABLE.refused * characters))
    return found


def shares(counts: Mapping[str, int]) -> str:
    """The number of characters, and the share of each kind that is lost, [UNK] also where it is none."""
    characters = counts.get("characters", 0)
    lost = (
        f"{100 * counts.get(name, 0) / max(1, characters):.3g} % {what}"
        for name, what in _LOST.items()
        if counts.get(name) or name == "unknown_characters"
    )
    return f"{characters:,} characters, {', '.join(lost)}"


def lost_records(statistics: Mapping[str, Any]) -> list[Finding]:
    """Records that were skipped, and lines that were wrapped at a width.

    Args:
        statistics: of a manifest.
    """
    found = []
    lines = max(1, statistics.get("lines", 0))
    skipped = sum(statistics.get("skipped_records", {}).values())
    if skipped > SKIPPED.warned * lines:
        first = next(iter(statistics.get("first_skipped", {}).items()), ("", ""))
        what = f"{skipped:,} of {lines:,} records have no text and are skipped, the first in {first[0]}, {first[1]}"
        found.append(Finding(what, "Mend them, or leave them out", skipped > SKIPPED.refused * lines))
    if (wrapped := statistics.get("wrapped_lines", 0)) > WRAPPED * lines:
        what = f"{wrapped:,} of {lines:,} lines go on in the next one: each is taken for a paragraph"
        found.append(Finding(what, "Give `join_lines`, and `one_document_per_file` where a file is one document"))
    return found


def pairing(statistics: Mapping[str, Any], documents: int) -> list[Finding]:
    """Whether next-sentence prediction has two answers.

    Args:
        documents: of the training text.
    """
    lone = statistics.get("counts", {}).get("lone_sentences", 0)
    if documents == 1:
        what = "the training text is one document: next-sentence prediction takes B from another one"
        return [Finding(what, "Train with `pairs` none or sop, or separate the documents by blank lines")]
    if lone > LONE * documents:
        what = (
            f"{lone:,} of {documents:,} documents are one sentence, which B cannot follow: in next-sentence prediction "
            "nearly every pair has the answer no"
        )
        return [Finding(what, "Train with `pairs` none, or prepare whole documents (`one_document_per_file`)")]
    return []


def judged(manifest: Mapping[str, Any], *, pairs: str = "nsp") -> list[Finding]:
    """All findings about a corpus, from its manifest."""
    statistics, settings = manifest["statistics"], manifest["settings"]
    documents = sum(entry["documents"] for entry in manifest["shards"] if entry["split"] == "train")
    return [
        *lost_text(
            statistics.get("counts", {}),
            is_vocabulary_given=settings.get("vocab") == "given",
            accepts_lost_marks=settings.get("strip_accents") is True,
        ),
        *lost_records(statistics),
        *(pairing(statistics, documents) if pairs == "nsp" else ()),
    ]


def _share(count: int, characters: int, of: str = " of the characters") -> str:
    return f"{100 * count / characters:.3g} %{of} ({count:,})"
