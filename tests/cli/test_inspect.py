"""`lambert inspect`: what a person reads, what a program reads, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lambert.cli.main import main
from lambert.corpus.store import Corpus


def test_lines_json_and_page(small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "deep" / "corpus.html"
    words = ["inspect", str(small_corpus.path), "--lengths", "32", "64", "--out", str(page), "--verify", "--json"]
    assert main(words) == 0
    told = capsys.readouterr().out
    facts = json.loads(told.splitlines()[-1])
    train = facts["text"]["splits"]["train"]
    assert f"{train['documents']:>11,} documents" in told
    assert "length 64: " in told and "examples to read (length 32)" in told
    assert facts["corpus"]["fingerprint"] == small_corpus.fingerprint
    html = page.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>") and html.count("<figure>") == 4
    assert f"{train['sentences']:,}" in html and small_corpus.fingerprint in html
    assert html.count('class="chart"') == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--lengths", "4"], "Give lengths from 8"),
        (["--masking", "letters"], "unknown masking 'letters'. Known: span, token, whole_word"),
        (["--out", "."], "is a folder"),
    ],
)
def test_wrong_requests(small_corpus: Corpus, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(small_corpus.path), *words]) == 2
    assert told in capsys.readouterr().err


def test_what_is_lost_is_a_share_of_the_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 1,001 characters 101 are in a word that is too long, one loses its accent, two are ZWJ."""
    lines = ["x" * 101, "caf\u00e9 a\u200db a\u200db", "one two six. " * 89]
    (tmp_path / "a.txt").write_text("\n\n".join(lines), encoding="utf-8")
    assert sum(not one.isspace() for one in "".join(lines)) == 1_001
    assert main(["prepare", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out"), "--vocab-size", "100"]) == 0
    expected = (
        "1,001 characters, 10.1 % in words that become [UNK], 0.0999 % stripped marks, 0.2 % dropped by the tokenizer"
    )
    assert expected in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["inspect", str(tmp_path / "out"), "--lengths", "16", "--out", str(page), "--json"]) == 0
    told = capsys.readouterr().out
    assert expected in told and "unk_tokens" not in told
    assert json.loads(told.splitlines()[-1])["text"]["counts"]["U+200D"] == 2
    html = page.read_text(encoding="utf-8")
    assert ">10.1 %<" in html and "0.0999 % are stripped marks, 0.2 % dropped" in html


def test_words_of_the_corpus_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(["<script>alert(1)</script> & more of it here."] * 5), encoding="utf-8")
    assert main(["prepare", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out"), "--vocab-size", "100"]) == 0
    assert main(["inspect", str(tmp_path / "out"), "--lengths", "16", "--out", str(tmp_path / "page.html")]) == 0
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count("<script") == 3 and "&lt; script &gt;" in html
