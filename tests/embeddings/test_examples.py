"""What vectors are trained on and scored by; and the baselines of words, beside their formulas by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lambert.embeddings.examples import (
    Pairs,
    Similarities,
    held_out,
    read_scored,
    read_training,
    without_duplicates,
)
from lambert.embeddings.words import Bm25, shared_words
from lambert.errors import UserError


def table(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "table.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_bm25_is_its_formula() -> None:
    passages = ["the garden of the clerk", "the garden", "june", "a garden a garden a garden"]
    index = Bm25(passages)
    lengths, mean = [5, 2, 1, 6], 14 / 4

    def term(times: int, length: int, holders: int) -> float:
        weight = math.log(1 + (4 - holders + 0.5) / (holders + 0.5))
        return weight * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / mean))

    wanted = [
        term(1, lengths[0], 3) + term(1, lengths[0], 1),
        term(1, lengths[1], 3),
        0.0,
        term(3, lengths[3], 3),
    ]
    assert index.scores("Garden clerk?").tolist() == pytest.approx(wanted, rel=1e-12)
    assert [place for place, _ in index.best("garden clerk", 10)] == [0, 3, 1]
    assert index.best("nothing at all", 10) == []


def test_shared_words_are_jaccards() -> None:
    assert shared_words("The garden, the clerk", "the clerk opened") == 2 / 4
    assert shared_words("", "") == 0


def test_two_columns_are_pairs_and_three_similarities(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": 1.5}, {"sentence1": "c", "sentence2": "d", "score": "3"}]
    file = table(tmp_path, *rows)
    assert read_scored(file) == Similarities([("a", "b"), ("c", "d")], [1.5, 3.0])
    assert read_scored(file, ("sentence2", "sentence1")) == Pairs([("b", "a"), ("d", "c")])
    assert read_training(file) == [("a", "b"), ("c", "d")]
    assert read_training(file, ("sentence2",)) == ["b", "d"]
    lines = tmp_path / "lines.txt"
    lines.write_text("one\n\ntwo\n")
    assert read_training(lines) == ["one", "", "two"]


@pytest.mark.parametrize(("rows", "columns", "what"), [
    ([{"query": "a"}], None, "no column 'sentence1' and 'sentence2'"),
    ([{"query": "a", "passage": "b"}], ("query",), "1 column query for pairs"),
    ([{"query": "a", "passage": "b"}], ("query", "passage", "score"), "no column 'score'"),
    ([{"query": "a", "passage": "b"}, {"query": "c", "passage": "b"}], None, "one passage"),
    ([{"query": "a", "passage": 7}], None, "second text' is 7"),
    ([{"sentence1": "a", "sentence2": "b", "score": "much"}], None, "the similarity is 'much'"),
    ([{"sentence1": "a", "sentence2": "b", "score": 1}] * 2, None, "one similarity"),
])  # fmt: skip
def test_what_cannot_score_is_said(tmp_path: Path, rows: list[dict[str, Any]], columns: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        read_scored(table(tmp_path, *rows), columns)


def test_lines_are_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\n")
    with pytest.raises(UserError, match="has lines, no columns"):
        read_scored(tmp_path / "lines.txt")
    with pytest.raises(UserError, match="has lines, no columns"):
        read_training(tmp_path / "lines.txt", ("a", "b"))


def test_duplicates_and_empty_ones_are_left_out() -> None:
    assert without_duplicates(["a", " ", "b", "a"]) == ["a", "b"]
    assert without_duplicates([("a", "b"), ("a", ""), ("a", "b"), ("b", "a")]) == [("a", "b"), ("b", "a")]


def test_a_tenth_is_held_out_and_not_trained_on() -> None:
    texts = [" ".join(f"w{n}x{m}" for m in range(9)) for n in range(200)] + ["short"] * 30
    train, dev = held_out(texts)
    assert dev is not None and len(dev.pairs) == 20
    for first, second in dev.pairs:
        assert f"{first} {second}" in texts and f"{first} {second}" not in train
        assert (len(first.split()), len(second.split())) == (4, 5)
    assert len(train) == len(texts) - 20
    pairs = [(f"a{n}", f"b{n}") for n in range(30_000)]
    rest, held = held_out(pairs)
    assert held is not None and len(held.pairs) == 1_000 and not set(rest) & set(held.pairs)
    assert held_out(pairs[:19]) == (pairs[:19], None)
    assert held_out(["short"] * 100) == (["short"] * 100, None)
