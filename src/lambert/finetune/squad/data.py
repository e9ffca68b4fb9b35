"""SQuAD v1.1 and v2.0 in their official JSON layout → validated questions.

The layout: {"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text",
"answer_start"}]}]}]}]}, where `answer_start` counts characters (code points) from the start of the context. In v2.0 a
question may be marked `is_impossible`; its `answers` are then empty, and its `plausible_answers` are not read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lambert.errors import UserError
from lambert.finetune.files import read_text
from lambert.finetune.seeds import shuffled

_OFFICIAL_REMEDY = "Give a SQuAD v1.1 or v2.0 file in the official JSON layout"

Version = Literal["1.1", "2.0"]
"""1.1: every question has an answer in its context. 2.0: some have none, and the model must abstain."""


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
    """Index of its article in the file."""


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

    An answer that is not at its `answer_start` is moved to the nearest occurrence of its text in the context, and
    counted: files that went through other tools are often a few characters off. An answer that occurs nowhere is an
    error. So is a file in which most answers had to be moved: its offsets do not count characters.

    Raises:
        UserError: the file cannot be read or is not JSON, a field is missing or of the wrong type (named with its
            article, paragraph and question), an id occurs twice, there is no question, a question has no answer and is
            not marked so, or answers do not match their contexts.
    """
    document = read_json(path, what="SQuAD")
    checked = [_matched(where, question) for where, question in _questions(path, document)]
    questions = tuple(question for question, _, _ in checked)
    if not questions:
        raise UserError(f"{path} has no questions", remedy=_OFFICIAL_REMEDY)
    repeated = [name for name, number in Counter(question.id for question in questions).items() if number > 1]
    if repeated:
        raise UserError(
            f"{path} has two questions with the id {repeated[0]!r}", remedy="Give every question its own id"
        )
    absent = [absent for _, _, absent in checked if absent]
    if absent:
        more = f" (and {len(absent) - 1} more questions)" if len(absent) > 1 else ""
        raise UserError(
            f"{path}: {absent[0]} does not occur in its context{more}",
            remedy="Correct the answer's text or remove the question",
        )
    moved = sum(moved for _, moved, _ in checked)
    answers = sum(len(question.answers) for question in questions)
    if 2 * moved > answers:
        raise UserError(
            f"{path}: {moved} of {answers} answers are not at their answer_start in the context",
            remedy="Make answer_start count characters (not bytes or tokens) from the start of the context",
        )
    stated = str(document.get("version")).lower().lstrip("v")
    return QuestionFile(path, questions, moved, "2.0" if stated.startswith("2") else version_of(questions))


def version_of(questions: Sequence[Question]) -> Version:
    """2.0 where a question has no answer."""
    return "1.1" if all(question.answers for question in questions) else "2.0"


def check_count(count: int | None) -> None:
    """Raises UserError for a number of questions below 1; None stands for all."""
    if count is not None and count < 1:
        raise UserError(f"the number of questions is {count}", remedy="Give a number from 1, or none for all")


def select_questions(
    questions: Sequence[Question], count: int | None, *, sample_seed: int | None = None
) -> tuple[Question, ...]:
    """The first `count` questions, or with `sample_seed` a random sample of that many; file order is kept.

    `None` takes all. A count beyond the file's takes all too.

    Raises:
        UserError: a count below 1.
    """
    check_count(count)
    if count is None or count >= len(questions):
        return tuple(questions)
    if sample_seed is None:
        return tuple(questions[:count])
    return tuple(questions[index] for index in sorted(shuffled(len(questions), (sample_seed,))[:count]))


def read_json(path: Path, *, what: str, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The JSON value in a plain or compressed file.

    Args:
        what: the kind of file, for the error messages.
        object_pairs_hook: as in `json.loads`.

    Raises:
        UserError: the file cannot be read (`read_text`) or is not JSON.
    """
    remedy = f"Give a {what} JSON file"
    text = read_text(path, remedy=remedy)
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path} is not JSON ({where}: {error.msg})", remedy=remedy) from None
    except ValueError as error:  # a number of more digits than Python converts
        raise UserError(f"{path} cannot be read ({error})", remedy=remedy) from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply", remedy=remedy) from None


def _questions(path: Path, document: Any) -> Iterator[tuple[str, Question]]:
    """Every question and where it is, as text; refuses whatever is not in the layout."""
    for article_index, article in enumerate(_field(path, "the file", document, "data", list)):
        in_article = f"article {article_index}"
        for paragraph_index, paragraph in enumerate(_field(path, in_article, article, "paragraphs", list)):
            where = f"{in_article}, paragraph {paragraph_index}"
            context = _field(path, where, paragraph, "context", str)
            for question_index, entry in enumerate(_field(path, where, paragraph, "qas", list)):
                identifier = _field(path, f"{where}, question {question_index}", entry, "id", str)
                asked = f"{where}, question {identifier!r}"
                text = _field(path, asked, entry, "question", str)
                yield asked, Question(identifier, text, context, _answers(path, asked, entry), article_index)


def _answers(path: Path, where: str, entry: Any) -> tuple[Answer, ...]:
    """The answers of a question, not yet compared with the context; none where it is marked so."""
    impossible = entry.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise UserError(f"{path}: 'is_impossible' of {where} is not true or false", remedy=_OFFICIAL_REMEDY)
    answers = []
    for index, answer in enumerate(_field(path, where, entry, "answers", list)):
        in_answer = f"{where}, answer {index}"
        text = _field(path, in_answer, answer, "text", str)
        start = _field(path, in_answer, answer, "answer_start", int)
        if not text.strip():
            raise UserError(f"{path}: {in_answer} has an empty text", remedy="Fill it in or remove the question")
        answers.append(Answer(text, start))
    if not answers and not impossible:
        raise UserError(
            f"{path}: {where} has no answers and is not marked is_impossible",
            remedy="Add an answer, mark it as SQuAD v2.0 does, or remove the question",
        )
    if answers and impossible:
        raise UserError(
            f"{path}: {where} is marked is_impossible and has answers", remedy="Remove the mark or the answers"
        )
    return tuple(answers)


def _field(path: Path, where: str, value: Any, name: str, kind: type) -> Any:
    """`value[name]`, which must be there and be a `kind`."""
    names = {list: "a list", str: "a text", int: "a whole number"}
    if not isinstance(value, dict) or name not in value:
        raise UserError(f"{path}: {where} has no field {name!r}", remedy=_OFFICIAL_REMEDY)
    found = value[name]
    if not isinstance(found, kind) or isinstance(found, bool):
        raise UserError(f"{path}: {name!r} of {where} is not {names[kind]}", remedy=_OFFICIAL_REMEDY)
    if isinstance(found, str) and not found.isascii():
        try:
            found.encode()
        except UnicodeEncodeError:
            # JSON can spell half a surrogate pair; no tokenizer takes such a text.
            raise UserError(
                f"{path}: {name!r} of {where} has a broken character (a lone surrogate)",
                remedy="Write the file again as UTF-8",
            ) from None
    return found


def _matched(where: str, question: Question) -> tuple[Question, int, str]:
    """The question with every answer at its text; the number of answers moved; where an absent answer is, or ""."""
    context = question.context
    if all(context.startswith(answer.text, answer.start) and answer.start >= 0 for answer in question.answers):
        return question, 0, ""
    answers, moved = [], 0
    for answer in question.answers:
        start = nearest_occurrence(context, answer.text, answer.start)
        if start is None:
            return question, moved, f"{where}, answer {answer.text!r}"
        moved += start != answer.start
        answers.append(Answer(answer.text, start))
    return replace(question, answers=tuple(answers)), moved, ""


def nearest_occurrence(context: str, text: str, start: int) -> int | None:
    """Where `text` begins in `context`, closest to `start`; of two as close the earlier; None: nowhere."""
    found, at = [], context.find(text)
    while at >= 0:
        found.append(at)
        at = context.find(text, at + 1)
    return min(found, key=lambda candidate: abs(candidate - start), default=None)
