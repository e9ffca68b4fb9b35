"""Questions and contexts → windows of token ids that a BERT reads: [CLS] question [SEP] context piece [SEP].

A long context is cut into pieces that overlap. `document_stride` is BERT's (run_squad.py of
google-research/bert): how far the next piece starts after the last one, not how much they share.

Positions count tokens of a window from 0 ([CLS]); characters count code points of the original context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from lambert.corpus.vocabulary import SpecialTokens, special_tokens
from lambert.errors import UserError
from lambert.finetune.squad.data import Answer, Question

_PAD_TO_TOKENS = 8
_ENCODE_AT_ONCE = 1024
_SPECIALS_IN_A_WINDOW = 3  # [CLS] and two [SEP]


@dataclass(frozen=True)
class WindowShape:
    """How questions and contexts are cut, in tokens."""

    sequence_length: int = 384
    """Longest window, its three special tokens included."""
    document_stride: int = 128
    """Distance between the starts of two pieces of one context."""
    question_length: int = 64
    """A longer question is cut off here."""

    def __post_init__(self) -> None:
        for field in ("sequence_length", "document_stride", "question_length"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} = {getattr(self, field)}", remedy="Give a whole number from 1")
        if self.sequence_length < self.question_length + _SPECIALS_IN_A_WINDOW + 1:
            raise UserError(
                f"sequence_length {self.sequence_length} leaves no room for a context beside a question of "
                f"{self.question_length} tokens and {_SPECIALS_IN_A_WINDOW} special ones",
                remedy="Raise the sequence length or lower the question length",
            )


@dataclass(frozen=True, eq=False)
class Window:
    """One piece of one question's context, ready to be put into a batch.

    `spans` and `most_context` run over the context tokens of the window, which sit at the positions
    `context_position` … `context_position + len(spans) − 1`.
    """

    question: int
    """Place of the question in the list the windows were made from."""
    token_ids: NDArray[np.int32]
    """[tokens], specials included, no padding."""
    context_position: int
    """Position of the first context token; before it lie [CLS], the question and [SEP]."""
    spans: NDArray[np.int32]
    """[context tokens, 2]: first character and one past the last, in the original context."""
    most_context: NDArray[np.bool_]
    """[context tokens]: no other window of the question shows this token with more context around it."""
    start_position: int
    """Position of the first answer token; 0 ([CLS]) where the window does not hold the whole answer."""
    end_position: int
    """Position of the last answer token, likewise."""


@dataclass(frozen=True)
class WindowBatch:
    """B windows, padded to S tokens. A micro-batch of `training.step`."""

    token_ids: Tensor  # [B, S] int64
    segment_ids: Tensor  # [B, S] int64, 1 from the first context token to the closing [SEP]
    attention_mask: Tensor  # [B, S] bool, True at real tokens
    start_positions: Tensor  # [B] int64
    end_positions: Tensor  # [B] int64

    def counts(self) -> dict[str, int]:
        """What the loss is divided by, once over the whole global batch: the windows."""
        return {"span": len(self.token_ids)}

    def to(self, device: torch.device | str) -> WindowBatch:
        """The same batch on another device."""
        return WindowBatch(
            *(
                tensor.to(device, non_blocking=True)
                for tensor in (
                    self.token_ids,
                    self.segment_ids,
                    self.attention_mask,
                    self.start_positions,
                    self.end_positions,
                )
            )
        )


def make_windows(questions: Sequence[Question], tokenizer: Tokenizer, shape: WindowShape) -> list[Window]:
    """Cut every question into one window or more, in question order.

    Training positions are those of the first reference answer, as in BERT. Texts are tokenised as plain text:
    a literal "[SEP]" in an article does not become the separator.

    Raises:
        UserError: the tokenizer lacks one of BERT's special tokens.
    """
    specials = special_tokens(tokenizer)
    plain = _plain_text_tokenizer(tokenizer)
    windows: list[Window] = []
    for first in range(0, len(questions), _ENCODE_AT_ONCE):
        part = questions[first : first + _ENCODE_AT_ONCE]
        asked = plain.encode_batch([question.question for question in part], add_special_tokens=False)
        contexts = list(dict.fromkeys(question.context for question in part))
        encoded = plain.encode_batch(contexts, add_special_tokens=False)
        context_tokens = {
            context: _ids_and_spans(encoding) for context, encoding in zip(contexts, encoded, strict=True)
        }
        for place, (question, encoding) in enumerate(zip(part, asked, strict=True), start=first):
            question_ids = np.array(encoding.ids[: shape.question_length], dtype=np.int32)
            ids, spans = context_tokens[question.context]
            answer = question.answers[0] if question.answers else None
            windows.extend(_windows_of(place, question_ids, ids, spans, answer, specials, shape))
    return windows


def pieces(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """How a context of `tokens` tokens is cut into pieces of at most `room`: [start, stop) each, at least
    one.

    >>> pieces(10, 6, 3)
    [(0, 6), (3, 9), (6, 10)]
    """
    cuts = []
    start = 0
    while True:
        stop = min(tokens, start + room)
        cuts.append((start, stop))
        if stop == tokens:
            return cuts
        start += min(room, stride)


def most_context(cuts: Sequence[tuple[int, int]], tokens: int) -> list[NDArray[np.bool_]]:
    """For each piece, which of its tokens have more context in it than in any other piece.

    A token's context in a piece is the smaller number of tokens to its left and to its right, plus 0.01 for
    each token of the piece, by which a long piece can outweigh a little context; of equals the first piece
    wins. All of it is BERT's rule.
    """
    best = np.full(tokens, -1.0)
    owner = np.zeros(tokens, dtype=np.int64)
    for index, (start, stop) in enumerate(cuts):
        places = np.arange(start, stop)
        context = np.minimum(places - start, stop - 1 - places) + 0.01 * (stop - start)
        better = context > best[start:stop]
        best[start:stop][better] = context[better]
        owner[start:stop][better] = index
    return [owner[start:stop] == index for index, (start, stop) in enumerate(cuts)]


def answer_tokens(spans: NDArray[np.int32], answer: Answer) -> tuple[int, int] | None:
    """First and last context token that share a character with the answer; None when no token does."""
    first = int(np.searchsorted(spans[:, 1], answer.start, side="right"))
    last = int(np.searchsorted(spans[:, 0], answer.start + len(answer.text), side="left")) - 1
    return (first, last) if first <= last else None


def make_batch(windows: Sequence[Window], *, pad_id: int) -> WindowBatch:
    """Pad windows to the longest of them, rounded up to a multiple of 8 tokens."""
    longest = max(len(window.token_ids) for window in windows)
    width = -(-longest // _PAD_TO_TOKENS) * _PAD_TO_TOKENS
    token_ids = np.full((len(windows), width), pad_id, dtype=np.int64)
    segment_ids = np.zeros_like(token_ids)
    attention_mask = np.zeros(token_ids.shape, dtype=np.bool_)
    for row, window in enumerate(windows):
        length = len(window.token_ids)
        token_ids[row, :length] = window.token_ids
        segment_ids[row, window.context_position : length] = 1
        attention_mask[row, :length] = True
    return WindowBatch(
        token_ids=torch.from_numpy(token_ids),
        segment_ids=torch.from_numpy(segment_ids),
        attention_mask=torch.from_numpy(attention_mask),
        start_positions=torch.tensor([window.start_position for window in windows]),
        end_positions=torch.tensor([window.end_position for window in windows]),
    )


def _windows_of(
    place: int,
    question_ids: NDArray[np.int32],
    ids: NDArray[np.int32],
    spans: NDArray[np.int32],
    answer: Answer | None,
    specials: SpecialTokens,
    shape: WindowShape,
) -> Iterator[Window]:
    """The windows of one question over a tokenised context."""
    cuts = pieces(len(ids), shape.sequence_length - len(question_ids) - _SPECIALS_IN_A_WINDOW, shape.document_stride)
    wanted = None if answer is None else answer_tokens(spans, answer)
    head = np.concatenate(([specials.classify], question_ids, [specials.separate])).astype(np.int32)
    tail = np.array([specials.separate], dtype=np.int32)
    for (start, stop), most in zip(cuts, most_context(cuts, len(ids)), strict=True):
        start_position = end_position = 0
        if wanted is not None and start <= wanted[0] and wanted[1] < stop:
            start_position, end_position = (len(head) + token - start for token in wanted)
        yield Window(
            question=place,
            token_ids=np.concatenate((head, ids[start:stop], tail)),
            context_position=len(head),
            spans=spans[start:stop],
            most_context=most,
            start_position=start_position,
            end_position=end_position,
        )


def _ids_and_spans(encoding: Encoding) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    spans = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
    return np.array(encoding.ids, dtype=np.int32), spans


def _plain_text_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that neither cuts nor pads nor takes "[SEP]" in a text for the special token."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = True
    return plain
