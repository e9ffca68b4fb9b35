from __future__ import annotations

import bz2
import json
from pathlib import Path

import pytest

from lambert.corpus.formats import JSON_LINES
from lambert.corpus.readers import json_lines
from lambert.corpus.sources import ReadStatistics, TextReader
from lambert.errors import UserError


def read(path: Path, *lines: object, field: str = "text") -> tuple[list[list[str]], ReadStatistics]:
    """The documents of a file of these lines; what is not a string is written as JSON."""
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + b"\n"
    )
    reader = TextReader([path], text_field=field)
    return [document.paragraphs for document in reader], reader.statistics


def test_an_object_is_a_document_and_its_line_ends_part_paragraphs(tmp_path: Path) -> None:
    documents, statistics = read(
        tmp_path / "a.jsonl",
        {"text": "One. Two.\r\n\n\n Three. \n"},
        {"id": 1, "text": ["Four.", "Five.\nSix."]},
        b"  ",
    )
    assert documents == [["One. Two.", "Three."], ["Four.", "Five.", "Six."]]
    assert statistics.parsers == {str(tmp_path / "a.jsonl"): JSON_LINES}
    assert (statistics.lines, statistics.skipped_records) == (3, {})


def test_the_field_is_named_by_the_user(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", {"text": "no", "body.de": "yes"}, field="body.de")[0] == [["yes"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"title": "x", "body": "y"}, "a.jsonl, line 2: no field 'text'. .* there is title, body"),
        (b'{"text": "cut', r"a.jsonl, line 2: not JSON \(Unterminated string .* at column 10\). Write one JSON object"),
        (b"[", "line 2: not JSON"),
        (b'["a", "b"]', "line 2: a list, not an object. .*jq -c"),
        ({"text": 5}, "the field 'text' is a number. Name a field that holds a string"),
        ({"text": ["a", None]}, "the field 'text' is a list"),
        (b"[" * 100_000, "line 2: not JSON"),
        (b'{"text": ' + b"9" * 10_000 + b"}", "line 2: not JSON"),
    ],
)
def test_the_first_object_must_be_fit(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.jsonl", b"", line, {"text": "fine"})
    documents, statistics = read(tmp_path / "b.jsonl", {"text": "fine"}, line, {"text": "fine"}, line)
    assert documents == [["fine"], ["fine"]]
    assert statistics.skipped_records == {str(tmp_path / "b.jsonl"): 2}
    assert statistics.first_skipped[str(tmp_path / "b.jsonl")].startswith("line 2: ")


def test_null_is_skipped_and_an_empty_string_is_no_document(tmp_path: Path) -> None:
    documents, statistics = read(tmp_path / "a.jsonl", {"text": None}, {"text": ""}, {"text": "fine"})
    assert documents == [["fine"]]
    assert statistics.first_skipped == {str(tmp_path / "a.jsonl"): "line 1: the field 'text' is null"}


def test_surrogates_bad_bytes_and_odd_line_ends(tmp_path: Path) -> None:
    lines = (
        b'\xef\xbb\xbf{"text": "lone \\ud800 pair \\ud83d\\ude00"}\r',
        b'{"text": "caf\xe9"}',
        '{"text": "One.\u2028Two.\x0b"}'.encode(),
        b'{"text": "One.\\u2028Two.\\u0000"}',
    )
    documents, statistics = read(tmp_path / "a.jsonl", *lines)
    assert documents == [["lone \ufffd pair 😀"], ["caf\ufffd"], ["One.", "Two."]]
    assert statistics.replaced_bytes == {str(tmp_path / "a.jsonl"): 2}
    assert statistics.skipped_records == {str(tmp_path / "a.jsonl"): 1}  # a raw control character is not JSON


@pytest.mark.parametrize("block_bytes", [1, 7, 64])
def test_a_record_beyond_the_limit_is_passed_over_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(json_lines, "RECORD_LIMIT_BYTES", 40)
    monkeypatch.setattr("lambert.corpus.compression.BLOCK_BYTES", block_bytes)
    fits = {"text": "x" * 28}  # 40 bytes as JSON
    documents, statistics = read(tmp_path / "a.jsonl", fits, {"text": "x" * 29}, fits, {"text": "y" * 500})
    assert documents == [["x" * 28]] * 2
    assert statistics.skipped_records == {str(tmp_path / "a.jsonl"): 2}
    assert "line 2: longer than" in statistics.first_skipped[str(tmp_path / "a.jsonl")]


def test_documents_and_lines_are_cut_as_those_of_plain_text_are(tmp_path: Path) -> None:
    words = " ".join(f"word{number}" for number in range(400_000))
    documents, statistics = read(tmp_path / "a.jsonl", {"text": words})
    (tmp_path / "a.txt").write_text(words + "\n", encoding="utf-8")
    plain = TextReader([tmp_path / "a.txt"])
    assert documents == [document.paragraphs for document in plain]
    assert (statistics.cut_lines, statistics.cut_documents) == (1, plain.statistics.cut_documents)


@pytest.mark.parametrize("line", [b'{"text": "One."}\n', b'\n{ "id": 1, "text" : "One." }\n', b'{\t"text":"One."}'])
def test_they_are_known_by_their_first_bytes_whatever_their_name(tmp_path: Path, line: bytes) -> None:
    for name in ("part-00000", "x.jsonlines", "oscar_part_1.txt", "c4.json.bz2"):
        (tmp_path / name).write_bytes(bz2.compress(line) if name.endswith("bz2") else line)
        assert [document.paragraphs for document in TextReader([tmp_path / name])] == [["One."]]


@pytest.mark.parametrize("content", ['[\n  {"text": "One."}\n]\n', '{\n  "text": "One."\n}\n'])
def test_other_json_in_a_file_of_any_name_is_refused_with_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(UserError, match="jq -c"):
        list(TextReader([tmp_path / "a.txt"]))
    assert len(list(TextReader([tmp_path / "a.txt"], text_format="text"))) == 1
