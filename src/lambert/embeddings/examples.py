"""What vectors are trained on and scored by: pairs of texts, and pairs with a similarity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lambert.embeddings.tables import column_choice, is_table, read_rows, read_texts, text_of
from lambert.errors import UserError
from lambert.finetune.seeds import shuffled

PAIR_COLUMNS = (
    ("query", "passage"), ("anchor", "positive"), ("question", "answer"), ("query", "answer"),
    ("sentence1", "sentence2"),
)  # fmt: skip
SIMILARITY_COLUMNS = ("sentence1", "sentence2", "score")
MOST_HELD_OUT = 1_000
_HELD_OUT_PARTS, _FEWEST = 10, 20
_FEWEST_WORDS = 8

Pair = tuple[str, str]


@dataclass(frozen=True)
class Pairs:
    """Queries and the passage that answers each: retrieval among all passages."""

    pairs: Sequence[Pair]
    about: str = ""
    """What is found, where it is not given by the user."""


@dataclass(frozen=True)
class Similarities:
    """Pairs of texts and how similar people found them."""

    pairs: Sequence[Pair]
    scores: Sequence[float]


Scored = Pairs | Similarities


def read_scored(file: Path, columns: Sequence[str] | None = None) -> Scored:
    """Pairs from two columns; with a third of numbers, similarities.

    Args:
        columns: their names; None: sentence1, sentence2, score, or the first two of `PAIR_COLUMNS` that are there.

    Raises:
        UserError: the file or a row cannot be read, or has no such columns.
    """
    if columns is not None and len(columns) not in (2, 3):
        raise UserError(
            f"{len(columns)} column{'s' * (len(columns) > 1)} {', '.join(columns)} for pairs",
            remedy="Name two with `dev_columns`, or three where the third is a similarity",
        )
    _refuse_lines(file, "dev_columns")
    rows = read_rows(file, column_choice(columns, (SIMILARITY_COLUMNS, *PAIR_COLUMNS), "dev_columns"))
    pairs = [(text_of(where, row[0], "first text"), text_of(where, row[1], "second text")) for where, row in rows]
    if len(rows[0][1]) == 2:
        return checked(Pairs(pairs), str(file))
    return checked(Similarities(pairs, [_number(where, row[2]) for where, row in rows]), str(file))


def checked(scored: Scored, name: str) -> Scored:
    """Raises UserError where every model would score the same."""
    if isinstance(scored, Pairs) and len({passage for _, passage in scored.pairs}) < 2:
        raise UserError(f"{name} has one passage, which every model finds", remedy="Give pairs with different passages")
    if isinstance(scored, Similarities) and len(set(scored.scores)) < 2:
        raise UserError(f"{name} has one similarity for all pairs", remedy="Give pairs with different similarities")
    return scored


def read_training(file: Path, columns: Sequence[str] | None = None) -> list[str] | list[Pair]:
    """Texts, or pairs from two columns.

    Args:
        columns: one or two names; None: the first of `PAIR_COLUMNS` that are there, otherwise text.

    Raises:
        UserError: the file or a row cannot be read, or has no such columns.
    """
    if not is_table(file):
        if columns:
            _refuse_lines(file, "columns")
        return read_texts(file)
    if columns is not None and len(columns) > 2:
        raise UserError(f"{len(columns)} columns to train on", remedy="Name one or two with `columns`")
    rows = read_rows(file, column_choice(columns, (*PAIR_COLUMNS, ("text",), ("sentence",)), "columns"))
    if len(rows[0][1]) == 1:
        return [text_of(where, row[0], "text") for where, row in rows]
    return [(text_of(where, row[0], "first text"), text_of(where, row[1], "second text")) for where, row in rows]


def _refuse_lines(file: Path, option: str) -> None:
    if file.is_file() and not is_table(file):
        raise UserError(
            f"{file} has lines, no columns",
            remedy=f"Leave out `{option}`, or give JSON lines, CSV, TSV or Parquet"
            if option == "columns"
            else "Give JSON lines, CSV, TSV or Parquet with a column for each text of a pair",
        )


def _number(where: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: the similarity is {str(value)[:20]!r}, not a number", remedy="Write a number there")
    return number


def without_duplicates(data: Sequence[str] | Sequence[Pair]) -> list[str] | list[Pair]:
    """Each text or pair once, none with an empty text."""
    kept = [one for one in dict.fromkeys(data) if all(map(str.strip, (one,) if isinstance(one, str) else one))]
    return kept  # type: ignore[return-value]


def held_out(data: Sequence[str] | Sequence[Pair]) -> tuple[list[str] | list[Pair], Pairs | None]:
    """What is trained on, and a tenth (at most `MOST_HELD_OUT`) to score by; None of very few.

    Of texts, the halves of those with eight words or more are pairs.
    """
    able = [place for place, one in enumerate(data) if not isinstance(one, str) or len(one.split()) >= _FEWEST_WORDS]
    count = min(MOST_HELD_OUT, len(able) // _HELD_OUT_PARTS)
    if len(able) < _FEWEST or count < 2:
        return list(data), None  # type: ignore[return-value]
    chosen = {able[place] for place in shuffled(len(able), (0, len(able)))[:count].tolist()}
    train = [one for place, one in enumerate(data) if place not in chosen]
    out = [data[place] for place in sorted(chosen)]
    if isinstance(out[0], str):
        halves = [_halves(one) for one in out if isinstance(one, str)]
        return train, Pairs(halves, f"the second half of each of {count:,} held-out texts, by its first")  # type: ignore[return-value]
    pairs = [one for one in out if not isinstance(one, str)]
    return train, Pairs(pairs, f"the second text of each of {count:,} held-out pairs, by its first")  # type: ignore[return-value]


def _halves(text: str) -> Pair:
    words = text.split()
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
