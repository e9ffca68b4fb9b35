"""Rows of texts: every row is kept, and what cannot be read is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lambert.embeddings.tables import column_choice, read_rows, read_texts
from lambert.errors import UserError

TEXTS = ["one", "", "two, with a comma", 'a "quoted" word', "ünïcode\u2028in one line", "  spaces  "]


def write(folder: Path, kind: str) -> Path:
    file = folder / f"texts.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in TEXTS))
    elif kind == "csv":
        quoted = (text.replace('"', '""') for text in TEXTS)
        file.write_text("id,text\n" + "".join(f'1,"{text}"\n' for text in quoted), encoding="utf-8")
    elif kind == "tsv":
        file.write_text("id\ttext\n" + "".join(f"1\t{text}\n" for text in TEXTS), encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(pa.table({"id": [1] * len(TEXTS), "text": TEXTS}), file)
    elif kind == "txt.gz":
        file.write_bytes(gzip.compress("\n".join(TEXTS).encode()))
    else:
        file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(TEXTS).encode() + b"\r\n")
    return file


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "jsonl", "csv", "tsv", "parquet"])
def test_every_row_is_kept_in_order(tmp_path: Path, kind: str) -> None:
    assert read_texts(write(tmp_path, kind)) == TEXTS


@pytest.mark.parametrize(("name", "contents", "column", "what"), [
    ("empty.txt", b"", None, "no text"),
    ("blank.txt", b"\n \n", None, "no text"),
    ("latin.txt", b"one\ncaf\xe9\n", None, r"line 2 is not UTF-8 \(byte 4\)"),
    ("latin.csv", b"text\ncaf\xe9\n", None, r"line 2 is not UTF-8"),
    ("lines.txt", b"one\n", "text", "has lines, no columns"),
    ("no.csv", b"id,body\n1,one\n", None, "no column 'text'.*there is id, body in its first line; if that"),
    ("cut.jsonl", b'{"text": "one"}\n{"text": "tw', None, "line 2 is no JSON object. Correct the line"),
    ("several.json", b'{\n"text": "one"\n}\n', None, "line 1 is no JSON object.*jq -c [.] does it"),
    ("spaced.csv", b"\n\nid,text\n1\n", None, "line 4 has 1 columns where"),
    ("no.jsonl", b'{"body": "one"}\n', None, "no column 'text'.*there is body"),
    ("later.jsonl", b'{"text": "one"}\n{"body": "two"}\n', None, "line 2 has no 'text'"),
    ("number.jsonl", b'{"text": "one"}\n{"text": 3}\n', None, "line 2: 'text' is 3, not a text"),
    ("null.jsonl", b'{"text": null}\n', None, "'text' is null"),
    ("list.json", b'[\n{"text": "one"}\n]\n', None, "line 1 is no JSON object.*jq -c '...'"),
    ("short.csv", b"id,text\n1\n", None, "line 2 has 1 columns where the first line has 2"),
    ("head.csv", b"id,text\n", None, "has no rows"),
    ("nothing.csv", b"", None, "nothing.csv is empty. Give"),
    ("blanks.tsv", b"\n \n", None, "blanks.tsv is empty"),
    ("blank.csv", b'id,text\n1,""\n', None, "the column 'text' has no text"),
    ("paper.pdf", b"%PDF-1.7 one", None, "is a PDF"),
    ("cut.txt.gz", gzip.compress(b"one\n" * 99, mtime=0)[:-9], None, "damaged or was cut short"),
    ("cut.parquet", b"PAR1 and more", None, "damaged or was cut short"),
])  # fmt: skip
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, contents: bytes, column: str | None, what: str
) -> None:
    file = tmp_path / name
    file.write_bytes(contents)
    with pytest.raises(UserError, match=what):
        read_texts(file, column)


def test_columns_are_the_named_ones_or_the_first_known(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"query": "q", "passage": "p", "answer": "a"}\n')
    known = (("anchor", "positive"), ("query", "passage"))
    assert read_rows(file, column_choice(None, known, "columns"))[0][1] == ["q", "p"]
    assert read_rows(file, column_choice(("query", "answer"), known, "columns"))[0][1] == ["q", "a"]
    with pytest.raises(UserError, match="no column 'title'.*query, passage, answer"):
        read_rows(file, column_choice(("query", "title"), known, "columns"))
    with pytest.raises(UserError, match="no column 'anchor' and 'positive'"):
        read_rows(file, column_choice(None, known[:1], "columns"))
