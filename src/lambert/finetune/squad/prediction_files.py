"""Predictions and null odds in the official format: one JSON object, question id → text or number."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.finetune.squad.data import QuestionFile, read_json
from lambert.finetune.squad.metric import OFFICIAL_THRESHOLD, Score, score


def read_predictions(path: Path) -> dict[str, str]:
    """Question id → answer text.

    Raises:
        UserError: the file cannot be read, is not such an object, or has an id twice.
    """
    return _read_object(path, "prediction", "a text", '{"56be4db0": "Denver"}', lambda value: isinstance(value, str))


def read_null_odds(path: Path) -> dict[str, float]:
    """Question id → odds or probability of no answer.

    Raises:
        UserError: the file cannot be read, is not such an object, or has an id twice.
    """
    most = sys.float_info.max
    odds = _read_object(
        path,
        "number",
        "a number",
        '{"56be4db0": -1.5}',
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most,
    )
    return {identifier: float(number) for identifier, number in odds.items()}


def score_file(
    path: Path, asked: QuestionFile, *, null_odds: Path | None = None, threshold: float = OFFICIAL_THRESHOLD
) -> Score:
    """Score a predictions file with the metrics of the questions' version.

    Args:
        null_odds: v2.0 only, a file of odds or probabilities of no answer for every prediction; predictions above
            `threshold` count as no answer.

    Raises:
        UserError: as the readers, or the file shares no id with the questions (a score of 0 would mislead), or the odds
            are not for these predictions or this version.
    """
    predictions = read_predictions(path)
    odds = None if null_odds is None else read_null_odds(null_odds)
    if odds is not None and asked.version == "1.1":
        raise UserError(
            f"odds of no answer beside {asked.path}, in which every question has one",
            remedy="Leave the odds out or give a SQuAD v2.0 file",
        )
    ids = [question.id for question in asked.questions if question.id in predictions]
    lacking = [] if odds is None else [identifier for identifier in ids if identifier not in odds]
    if lacking:
        raise UserError(
            f"{null_odds} has no odds for {len(lacking):,} predictions, such as that for {lacking[0]!r}",
            remedy="Give the odds that were written with these predictions",
        )
    result = score(asked.questions, predictions, asked.version, null_odds=odds, threshold=threshold)
    if predictions and len(result.missing) == len(asked.questions):
        raise UserError(
            f"{path} answers none of the {len(asked.questions)} questions (first id: {next(iter(predictions))!r})",
            remedy="Give the development file that these predictions were made from",
        )
    return result


def _read_object(path: Path, kind: str, wanted: str, example: str, is_right: Callable[[Any], bool]) -> dict[str, Any]:
    remedy = f"Give one JSON object that maps each question id to {wanted}, such as {example}"

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for identifier, value in pairs:
            if identifier in built:
                raise UserError(f"{path} has two {kind}s for question {identifier!r}", remedy="Keep one of the two")
            built[identifier] = value
        return built

    values = read_json(path, what=f"{kind}s", object_pairs_hook=checked)
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a JSON {type(values).__name__}, not an object of {kind}s", remedy=remedy)
    for identifier, value in values.items():
        if not is_right(value):
            what = f"the {kind} for question {identifier!r} is {json.dumps(value)[:60]}, not {wanted}"
            raise UserError(f"{path}: {what}", remedy=remedy)
    return values
