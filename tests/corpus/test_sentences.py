from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambert.corpus import sentences
from lambert.corpus.sentences import split_sentences, whole_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("你好。今天天气很好！是吗？是的。", ["你好。", "今天天气很好！", "是吗？", "是的。"]),
        ("これは本です。本当？はい！", ["これは本です。", "本当？", "はい！"]),
        ("He met Dr. Smith. They left!  Why?", ["He met Dr. Smith.", "They left!", "Why?"]),
        ("It cost 3.14 dollars. No more.", ["It cost 3.14 dollars.", "No more."]),
        ("no full stop", ["no full stop"]),
        (" \t ", []),
    ],
)
@pytest.mark.parametrize("language", ["en", "zh", "xx"])
def test_where_sentences_end(text: str, expected: list[str], language: str) -> None:
    if language == "en" or text[0] > "\u3000":
        assert split_sentences(text, language) == expected


@given(st.text(st.sampled_from("ab .!?。\u3000é\n"), max_size=400))
@settings(max_examples=200, deadline=None)
def test_no_text_is_lost(text: str) -> None:
    found = split_sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() and sentence for sentence in found)


def test_long_paragraphs_are_split_as_short_ones() -> None:
    lines = [f"This is sentence number {number} of many." for number in range(5_000)]
    assert split_sentences(" ".join(lines)) == lines
    chinese = [f"这是第{number}句。" for number in range(20_000)]
    assert split_sentences("".join(chinese)) == chinese


def test_endless_sentences_are_cut_at_white_space_in_linear_time() -> None:
    words = ["word"] * 200_000
    began = time.perf_counter()
    found = split_sentences(" ".join(words))
    assert time.perf_counter() - began < 5
    assert " ".join(found).split() == words
    assert max(map(len, found)) <= sentences.SENTENCE_CHARACTERS
    assert "".join(split_sentences("字" * 100_000)) == "字" * 100_000


def test_a_line_can_be_a_sentence_already() -> None:
    assert whole_line(" Dr. Who is here.  He stays. ") == ["Dr. Who is here. He stays."]
    assert whole_line(" \t ") == []
    assert [len(piece) for piece in whole_line("word " * 1_000)] == [1_999, 1_999, 999]
