"""Splits text into sentences by sentencex's rules for the language, with a limit on their length."""

from __future__ import annotations

import sentencex

# On text without spaces sentencex takes quadratic time; short calls keep it linear.
SEGMENT_CHARACTERS = 4_000
# Text without full stops (transcripts, lists) would be one long sentence, of which a training sequence could use only
# the beginning. About 500 tokens of English.
SENTENCE_CHARACTERS = 2_000


def split_sentences(text: str, language: str = "en") -> list[str]:
    """The sentences of one paragraph, stripped, in order, none empty; white space within is single spaces.

    Full stops of other scripts end a sentence in any language: `split_sentences("你好。好！")` is
    `["你好。", "好！"]`. A sentence longer than `SENTENCE_CHARACTERS` is cut at white space where it has any.

    Args:
        text: one paragraph without line breaks.
        language: code of two or three letters; it chooses the list of abbreviations.
    """
    text = " ".join(text.split())
    sentences: list[str] = []
    while len(text) > SEGMENT_CHARACTERS:
        head, text = _cut(text, SEGMENT_CHARACTERS)
        *whole, unfinished = _segment(head, language)
        if not whole:
            whole, unfinished = [unfinished], ""
        sentences += whole
        text = f"{unfinished} {text}" if unfinished and head.endswith(" ") else unfinished + text
    sentences += _segment(text, language)
    return [piece for sentence in sentences for piece in _bounded(sentence)]


def whole_line(text: str) -> list[str]:
    """A line that is one sentence: cut only where it is too long."""
    return _bounded(" ".join(text.split()))


def with_spaces(line: str, sentences: list[str], *, first: bool) -> list[str]:
    """The sentences of a line, each with the space before it: it has one but for a script without, or a cut word.

    Args:
        first: nothing stands before the line.
    """
    text, position, spaced = " ".join(line.split()), 0, []
    for sentence in sentences:
        start = text.find(sentence, position)
        has_space = start != position if position else not first
        spaced.append(f" {sentence}" if has_space else sentence)
        position = max(start, position) + len(sentence)
    return spaced


def _segment(text: str, language: str) -> list[str]:
    stripped = (sentence.strip() for sentence in sentencex.segment(language, text))
    return [sentence for sentence in stripped if sentence]


def _bounded(sentence: str) -> list[str]:
    pieces: list[str] = []
    while len(sentence) > SENTENCE_CHARACTERS:
        head, sentence = _cut(sentence, SENTENCE_CHARACTERS)
        pieces.append(head.strip())
    pieces.append(sentence.strip())
    return [piece for piece in pieces if piece]


def _cut(text: str, limit: int) -> tuple[str, str]:
    """(at most `limit` characters, ending after a space where there is one, and the rest)."""
    position = text.rfind(" ", 0, limit) + 1 or limit
    return text[:position], text[position:]
