"""Questions and contexts → windows of token ids: [CLS] question [SEP] chunk of the context [SEP].

A long context is split into overlapping chunks. `document_stride` is BERT's (run_squad.py of google-research/bert): the
distance between the starts of two chunks, not their overlap.

Positions count tokens of a window from 0 ([CLS]); characters count code points of the original context.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from lambert.corpus.encoding import plain_text_tokenizer
from lambert.corpus.vocabulary import SpecialTokens, special_tokens
from lambert.finetune.inputs import Encoded
from lambert.finetune.squad.data import Answer, Question
from lambert.finetune.squad.settings import SPECIALS_IN_A_WINDOW, SquadSettings
from lambert.utils.tokenizer_calls import encode

_ENCODE_AT_ONCE = 1024
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True, eq=False)
class Window(Encoded):
    """One question with one chunk of its context.

    `target` is the first and the last position of the answer, (0, 0) where the window does not hold all of it: [CLS].
    `spans` and `most_context` run over the context tokens, which begin at the position `second_start`.
    """

    question: int
    """Index of the question in the list the windows were made from."""
    spans: NDArray[np.int32]
    """[context tokens, 2]: first character and one past the last, in the original context, with the marks after it."""
    most_context: NDArray[np.bool_]
    """[context tokens]: whether no other window of the question has more context around this token."""


def make_windows(questions: Sequence[Question], tokenizer: Tokenizer, settings: SquadSettings) -> list[Window]:
    """One window or more for every question, in question order.

    Training positions are those of the first reference answer, as in BERT. Texts are tokenised as plain text: a
    literal "[SEP]" in an article does not become the separator.

    Raises:
        UserError: the tokenizer lacks one of BERT's special tokens.
    """
    specials = special_tokens(tokenizer)
    plain = plain_text_tokenizer(tokenizer)
    windows: list[Window] = []
    for first in range(0, len(questions), _ENCODE_AT_ONCE):
        part = questions[first : first + _ENCODE_AT_ONCE]
        asked = encode(plain, [question.question for question in part], special=False)
        contexts = list(dict.fromkeys(question.context for question in part))
        encoded = encode(plain, contexts, special=False)
        context_tokens = {
            context: _ids_and_spans(encoding, context) for context, encoding in zip(contexts, encoded, strict=True)
        }
        for index, (question, encoding) in enumerate(zip(part, asked, strict=True), start=first):
            question_ids = np.array(encoding.ids[: settings.question_length], dtype=np.int32)
            ids, spans = context_tokens[question.context]
            answer = question.answers[0] if question.answers else None
            windows.extend(_windows_of(index, question_ids, ids, spans, answer, specials, settings))
    return windows


def chunks(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """[start, stop) of the chunks of at most `room` tokens that cover a context of `tokens` tokens; at least one.

    >>> chunks(10, 6, 3)
    [(0, 6), (3, 9), (6, 10)]
    """
    bounds = []
    start = 0
    while True:
        stop = min(tokens, start + room)
        bounds.append((start, stop))
        if stop == tokens:
            return bounds
        start += min(room, stride)


def most_context(bounds: Sequence[tuple[int, int]], tokens: int) -> list[NDArray[np.bool_]]:
    """For each chunk, which of its tokens have more context in it than in any other chunk.

    BERT's rule: a token's context is the number of tokens to its left or to its right, whichever is smaller, plus 0.01
    for each token of the chunk. The first of equal chunks wins.
    """
    best = np.full(tokens, -1.0)
    owner = np.zeros(tokens, dtype=np.int64)
    for index, (start, stop) in enumerate(bounds):
        indices = np.arange(start, stop)
        context = np.minimum(indices - start, stop - 1 - indices) + 0.01 * (stop - start)
        better = context > best[start:stop]
        best[start:stop][better] = context[better]
        owner[start:stop][better] = index
    return [owner[start:stop] == index for index, (start, stop) in enumerate(bounds)]


def answer_tokens(spans: NDArray[np.int32], answer: Answer) -> tuple[int, int] | None:
    """First and last context token that share a character with the answer; None when no token does."""
    first = int(np.searchsorted(spans[:, 1], answer.start, side="right"))
    last = int(np.searchsorted(spans[:, 0], answer.start + len(answer.text), side="left")) - 1
    return (first, last) if first <= last else None


def _windows_of(
    index: int,
    question_ids: NDArray[np.int32],
    ids: NDArray[np.int32],
    spans: NDArray[np.int32],
    answer: Answer | None,
    specials: SpecialTokens,
    settings: SquadSettings,
) -> Iterator[Window]:
    """The windows of one question over a tokenised context."""
    room = settings.sequence_length - len(question_ids) - SPECIALS_IN_A_WINDOW
    bounds = chunks(len(ids), room, settings.document_stride)
    wanted = None if answer is None else answer_tokens(spans, answer)
    head = np.concatenate(([specials.classify], question_ids, [specials.separate])).astype(np.int32)
    tail = np.array([specials.separate], dtype=np.int32)
    for (start, stop), most in zip(bounds, most_context(bounds, len(ids)), strict=True):
        target = (0, 0)
        if wanted is not None and start <= wanted[0] and wanted[1] < stop:
            target = (len(head) + wanted[0] - start, len(head) + wanted[1] - start)
        token_ids = np.concatenate((head, ids[start:stop], tail))
        yield Window(token_ids, len(head), target, index, spans[start:stop], most)


def _ids_and_spans(encoding: Encoding, context: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ids, and the characters of each token with the marks after it and without the white space around it.

    A tokenizer that strips accents gives offsets without them, so that a span would end before the vowel sign or the
    accent of its last letter. Byte-level BPE counts the space before a word to its token.
    """
    spans = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
    blanks = [position for position, character in enumerate(context) if character.isspace()]
    for padded in np.flatnonzero(np.isin(spans[:, 0], blanks) | np.isin(spans[:, 1] - 1, blanks)).tolist():
        text = context[slice(*spans[padded])]
        if inside := text.strip():
            spans[padded] = spans[padded, 0] + text.index(inside) + np.array([0, len(inside)])
    if not context.isascii():
        limits = [*spans[1:, 0].tolist(), len(context)]
        for token, limit in enumerate(limits):
            spans[token, 1] = _end_of_marks(context, int(spans[token, 1]), limit)
    return np.array(encoding.ids, dtype=np.int32), spans


def _end_of_marks(text: str, start: int, limit: int) -> int:
    """The first position from `start` to `limit` at which the text has neither a mark nor a joiner before one."""
    end = start
    for position in range(start, limit):
        if unicodedata.category(text[position])[0] == "M":
            end = position + 1
        elif text[position] not in _JOINERS:
            break
    return end
