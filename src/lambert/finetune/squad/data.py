"""SQuAD v1.1 and v2.0 in their official JSON layout → validated questions.

The layout: {"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text",
"answer_start"}]}]}]}]}, where `answer_start` counts characters (code points) from the start of the context. In v2.0 a
question may be marked `is_impossible`; its `answers` are then empty, and its `plausible_answers` are not read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lambert.corpus.compression import open_text_bytes, read_blocks
from lambert.errors import UserError

_MOST_BYTES = 200_000_000
"""Of JSON, which takes some ten times as much memory once read; SQuAD v2.0's largest file has 42 million."""
_OFFICIAL_REMEDY = "Give a SQuAD v1.1 or v2.0 file in the official JSON layout"

Version = Literal["1.1", "2.0"]
"""1.1: every question has an answer in its context. 2.0: some have none, which a model has to find out."""


@dataclass(frozen=True)
class Answer:
    """One reference answer: `context[start : start + len(text)] == text`, in characters."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """One question about one paragraph."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    """At least one in v1.1; in v2.0 none where the context does not answer the question."""
    article: int = 0
    """Place of its article in the file, from 0."""


@dataclass(frozen=True)
class QuestionFile:
    """All questions of a file in file order."""

    path: Path
    questions: tuple[Question, ...]
    moved_answers: int
    """Answers whose `answer_start` was wrong and was put at the nearest occurrence of their text."""
    version: Version = "1.1"


def read_questions(path: Path) -> QuestionFile:
    """Read and check a SQuAD file, plain or compressed (.gz .bz2 .xz .zst).

    It is a v2.0 file when its `version` begins with 2 or a question of it is marked `is_impossible`.

    An answer that is not found at its `answer_start` is moved to the nearest occurrence of its text in the
    context and counted: files that went through other tools are often a few characters out. An answer that
    occurs nowhere is an error, and so is a file in which most answers had to be moved, since its offsets then
    count something else than characters.

    Raises:
        UserError: the file cannot be read or is not JSON, a field is missing or of the wrong kind (named with
            its article, paragraph and question), an id occurs twice, there is no question, a question has no
            answer and is not marked so, or answers do not match their contexts.
    """
    document = read_json(path, what="SQuAD")
    checked = [_matched(path, place, question) for place, question in _questions(path, document)]
    if not checked:
        raise UserError(f"{path} has no questions", remedy=_OFFICIAL_REMEDY)
    _refuse_repeated_ids(path, [question for question, _, _ in checked])
    _refuse_absent_answers(path, [absent for _, _, absent in checked if absent])
    moved = sum(moved for _, moved, _ in checked)
    answers = sum(len(question.answers) for question, _, _ in checked)
    if 2 * moved > answers:
        raise UserError(
            f"{path}: {moved} of {answers} answers are not at their answer_start in the context",
            remedy="Make answer_start count characters (not bytes or tokens) from the start of the context",
        )
    questions = tuple(question for question, _, _ in checked)
    return QuestionFile(path, questions, moved, _version(document, questions))


def select_questions(
    questions: Sequence[Question], count: int | None, *, sample_seed: int | None = None
) -> tuple[Question, ...]:
    """The first `count` questions, or with `sample_seed` a random sample of that many; file order is kept.

    `None` takes all. A count beyond the file's takes all too.

    Raises:
        UserError: a count below 1.
    """
    if count is not None and count < 1:
        raise UserError(f"the number of questions is {count}", remedy="Give a number from 1, or none for all")
    if count is None or count >= len(questions):
        return tuple(questions)
    if sample_seed is None:
        return tuple(questions[:count])
    return tuple(questions[index] for index in sorted(shuffled(len(questions), (sample_seed,))[:count]))


def shuffled(count: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """0 … count−1 in an order that `key` (whole numbers from 0) alone decides."""
    # NumPy promises that SeedSequence never changes its output; its generators' methods may.
    return np.argsort(np.random.SeedSequence(key).generate_state(count, np.uint64), kind="stable")


def _bounded(path: Path, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same blocks; a compressed file's size says nothing of how many there are."""
    left = _MOST_BYTES
    for block in blocks:
        left -= len(block)
        if left < 0:
            raise UserError(
                f"{path} holds more than {_MOST_BYTES:,} bytes of text", remedy="Part it into several files"
            )
        yield block


def read_json(path: Path, *, what: str, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The JSON value in a plain or compressed file.

    Args:
        what: the kind of file in a word, for the error messages.
        object_pairs_hook: as in `json.loads`.

    Raises:
        UserError: the file cannot be opened or decompressed, is empty, not UTF-8 or not JSON.
    """
    with open_text_bytes(path) as (stream, _):
        content = b"".join(_bounded(path, read_blocks(stream)))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start})", remedy=f"Give a {what} JSON file") from None
    if not text.strip():
        raise UserError(f"{path} is empty", remedy=f"Give a {what} JSON file")
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path} is not JSON ({place}: {error.msg})", remedy=f"Give a {what} JSON file") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply", remedy=f"Give a {what} JSON file") from None


def _questions(path: Path, document: Any) -> Iterator[tuple[str, Question]]:
    """Every question with its place in words; field by field, refusing whatever is not in the layout."""
    for article_index, article in enumerate(_field(path, "the file", document, "data", list)):
        article_place = f"article {article_index}"
        for paragraph_index, paragraph in enumerate(_field(path, article_place, article, "paragraphs", list)):
            place = f"{article_place}, paragraph {paragraph_index}"
            context = _field(path, place, paragraph, "context", str)
            for question_index, entry in enumerate(_field(path, place, paragraph, "qas", list)):
                identifier = _field(path, f"{place}, question {question_index}", entry, "id", str)
                question_place = f"{place}, question {identifier!r}"
                text = _field(path, question_place, entry, "question", str)
                answers = _answers(path, question_place, entry)
                yield question_place, Question(identifier, text, context, answers, article_index)


def _answers(path: Path, place: str, entry: Any) -> tuple[Answer, ...]:
    """The answers as the file has them, not yet compared with the context; none where it says that there is none."""
    impossible = entry.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise UserError(f"{path}: 'is_impossible' of {place} is not true or false", remedy=_OFFICIAL_REMEDY)
    answers = []
    for index, answer in enumerate(_field(path, place, entry, "answers", list)):
        answer_place = f"{place}, answer {index}"
        text = _field(path, answer_place, answer, "text", str)
        start = _field(path, answer_place, answer, "answer_start", int)
        if not text.strip():
            raise UserError(f"{path}: {answer_place} has an empty text", remedy="Fill it in or remove the question")
        answers.append(Answer(text, start))
    if not answers and not impossible:
        raise UserError(
            f"{path}: {place} has no answers and is not marked is_impossible",
            remedy="Add an answer, mark it as SQuAD v2.0 does, or remove the question",
        )
    if answers and impossible:
        raise UserError(
            f"{path}: {place} is marked is_impossible and has answers", remedy="Remove the mark or the answers"
        )
    return tuple(answers)


def _field(path: Path, place: str, value: Any, name: str, kind: type) -> Any:
    """`value[name]`, which must be there and be a `kind`."""
    names = {list: "a list", str: "a text", int: "a whole number"}
    if not isinstance(value, dict) or name not in value:
        raise UserError(f"{path}: {place} has no field {name!r}", remedy=_OFFICIAL_REMEDY)
    found = value[name]
    if not isinstance(found, kind) or isinstance(found, bool):
        raise UserError(f"{path}: {name!r} of {place} is not {names[kind]}", remedy=_OFFICIAL_REMEDY)
    if isinstance(found, str) and not found.isascii():
        try:
            found.encode()
        except UnicodeEncodeError:
            # JSON can spell half a surrogate pair; no tokenizer takes such a text.
            raise UserError(
                f"{path}: {name!r} of {place} has a broken character (a lone surrogate)",
                remedy="Write the file again as UTF-8",
            ) from None
    return found


def _version(document: Any, questions: Sequence[Question]) -> Version:
    told = str(document.get("version")).lower().lstrip("v")
    return "2.0" if told.startswith("2") or not all(question.answers for question in questions) else "1.1"


def _matched(path: Path, place: str, question: Question) -> tuple[Question, int, str]:
    """The question with every answer where its text is, the answers moved, and words for an absent answer."""
    context = question.context
    if all(context.startswith(answer.text, answer.start) and answer.start >= 0 for answer in question.answers):
        return question, 0, ""
    answers, moved = [], 0
    for answer in question.answers:
        start = nearest_occurrence(context, answer.text, answer.start)
        if start is None:
            return question, moved, f"{place}, answer {answer.text!r}"
        moved += start != answer.start
        answers.append(Answer(answer.text, start))
    return replace(question, answers=tuple(answers)), moved, ""


def nearest_occurrence(context: str, text: str, start: int) -> int | None:
    """Where `text` begins in `context`, closest to `start`; of two as close the earlier; None: nowhere."""
    places = []
    place = context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    return min(places, key=lambda candidate: abs(candidate - start), default=None)


def _refuse_repeated_ids(path: Path, questions: Sequence[Question]) -> None:
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise UserError(
                f"{path} has two questions with the id {question.id!r}",
                remedy="Give every question its own id",
            )
        seen.add(question.id)


def _refuse_absent_answers(path: Path, absent: Sequence[str]) -> None:
    if absent:
        more = f" (and {len(absent) - 1} more questions)" if len(absent) > 1 else ""
        raise UserError(
            f"{path}: {absent[0]} does not occur in its context{more}",
            remedy="Correct the answer's text or remove the question",
        )
