"""Input that breaks other programs: what comes out of it, and that memory stays bounded meanwhile."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lambert.corpus import compression
from lambert.corpus.readers.document import LINE_LIMIT_BYTES, ReadStatistics
from lambert.corpus.sources import TextReader, find_files
from lambert.errors import UserError

# Text, and the paragraphs it has as a document whatever the format that carries it.
ODDITIES = {
    "right to left": ("\u200fשלום עולם. \u202bمرحبا\u202c\n", ["\u200fשלום עולם. \u202bمرحبا\u202c"]),
    "emoji sequences": ("👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 👍🏽\n", ["👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 👍🏽"]),
    "combining marks": ("Z͑ͫ̓a\u0301l\u0323go\n", ["Z͑ͫ̓a\u0301l\u0323go"]),
    "NUL": ("a\0b\n\0\n", ["a\0b"]),
    "line ends": ("a\r\nb\u2028c\u2029d\x85e\x0cf\x0bg\n", ["a", "b", "c", "d", "e", "f", "g"]),
    "beyond the basic plane": ("𝔘𠮷\U0010ffff\n", ["𝔘𠮷\U0010ffff"]),
    "carets": ("^" * 10_000 + "\n", ["^" * 10_000]),
    "a one-megabyte word": ("x" * (1 << 20) + "\n", ["x" * (1 << 20)]),
    "white space": (" \t\u3000\n\xa0\ufeff\n", None),
}


def as_text(text: str, path: Path) -> Path:
    path = path.with_suffix(".txt")
    path.write_bytes(text.encode())
    return path


def as_json(text: str, path: Path) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text(json.dumps({"text": text}), encoding="utf-8")
    return path


def as_parquet(text: str, path: Path) -> Path:
    path = path.with_suffix(".parquet")
    pq.write_table(pa.table({"text": [text]}), path)
    return path


@pytest.mark.parametrize("carrier", [as_text, as_json, as_parquet])
@pytest.mark.parametrize("name", ODDITIES)
def test_odd_text_is_the_same_in_every_format(tmp_path: Path, name: str, carrier: Callable[[str, Path], Path]) -> None:
    text, paragraphs = ODDITIES[name]
    documents = [document.paragraphs for document in TextReader([carrier(text, tmp_path / "a")])]
    # Plain text has one more document's end: the blank line.
    assert documents == ([] if paragraphs is None else [paragraphs])


def test_surrogates_written_as_utf8_are_replaced(tmp_path: Path) -> None:
    words = "word " * 300  # damage to more than a hundredth of a file is refused
    (tmp_path / "a.txt").write_bytes(b"lone \xed\xa0\x80 pair \xed\xa0\xbd\xed\xb8\x80 " + words.encode() + b"end\n")
    reader = TextReader([tmp_path / "a.txt"])
    assert [document.paragraphs for document in reader] == [
        ["lone \ufffd\ufffd\ufffd pair " + "\ufffd" * 6 + f" {words}end"]
    ]
    assert reader.statistics.replaced_bytes == {str(tmp_path / "a.txt"): 9}


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".ndjson.gz", ".xml.bz2", ".json.xz", ".txt.zst"])
def test_files_with_nothing_in_them(tmp_path: Path, suffix: str) -> None:
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}
    file = tmp_path / f"a{suffix}"
    file.write_bytes(compress.get(file.suffix, bytes)(b""))
    assert list(TextReader([file])) == []


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


# Memory


LINE = b"The quick brown fox jumps over the lazy dog. " * 1_000
BOUND_BYTES = 40 << 20


def peak_bytes(file: Path) -> tuple[int, ReadStatistics]:
    """The most memory that Python held while a file was read."""
    reader = TextReader([file])
    tracemalloc.start()
    try:
        for document in reader:
            assert sum(map(len, document.paragraphs)) <= 2 * LINE_LIMIT_BYTES
        return tracemalloc.get_traced_memory()[1], reader.statistics
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.bz2", "a.txt.xz", "a.txt.zst", "a.jsonl.gz"])
def test_a_decompression_bomb_costs_time_but_no_memory(tmp_path: Path, name: str) -> None:
    """100 MB in one line."""
    start = b'{"text": "fine"}\n{"text": "' if "jsonl" in name else b""
    data = start + LINE * 2_300
    file = tmp_path / name
    compress: dict[str, Callable[[bytes], bytes]] = {
        ".gz": lambda data: gzip.compress(data, 1),
        ".bz2": lambda data: bz2.compress(data[: 1 << 20]) * 100,
        ".xz": lambda data: lzma.compress(data, preset=0),
        ".zst": zstd,
    }
    file.write_bytes(compress[file.suffix](data))
    most, statistics = peak_bytes(file)
    assert statistics.bytes > 100e6
    assert file.stat().st_size < 2e6
    assert most < BOUND_BYTES


def test_xz_that_asks_for_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_XZ_MEMORY_BYTES", 1 << 20)
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(b"text", preset=6))
    with pytest.raises(UserError, match="a.txt.xz .*[Mm]emory"):
        list(TextReader([tmp_path / "a.txt.xz"]))


def test_xz_with_padding_between_its_streams(tmp_path: Path) -> None:
    one, two = lzma.compress(b"One.\n\n"), lzma.compress(b"Two.\n")
    (tmp_path / "a.txt.xz").write_bytes(one + bytes(100_000) + two + bytes(8))
    assert [document.paragraphs for document in TextReader([tmp_path / "a.txt.xz"])] == [["One."], ["Two."]]


# Standard input


def piped(data: bytes, program: str) -> str:
    """What a program says that reads documents from a pipe, which gives a few bytes at a time."""
    read_end, write_end = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", f"from lambert.corpus.sources import *; from pathlib import Path\n{program}"],
        stdin=read_end, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    os.close(read_end)
    with os.fdopen(write_end, "wb", buffering=0) as pipe:
        for start in range(0, len(data), 3_000):
            pipe.write(data[start : start + 3_000])
    output, _ = child.communicate(timeout=60)
    return output


@pytest.fixture
def streams() -> Iterator[dict[str, bytes]]:
    text = b"One.\n\n" + b"word " * 20_000 + b"\n"
    record = json.dumps({"text": "One."}).encode() + b"\n" + json.dumps({"text": "word " * 20_000}).encode() + b"\n"
    yield {"plain text": text, "JSON lines": record}


def test_standard_input_of_every_compression_and_format(streams: dict[str, bytes]) -> None:
    program = """
reader = TextReader(find_files(['-']))
print([len(document.paragraphs[0]) for document in reader], reader.statistics.parsers, reader.statistics.stored_bytes)
"""
    for parser, data in streams.items():
        for compress in (bytes, gzip.compress, bz2.compress, lzma.compress, zstd):
            stored = compress(data)
            expected = f"[4, 99999] {{'-': '{parser}'}} {len(stored)}\n"
            assert piped(stored, program) == expected


def test_standard_input_kept_can_be_read_twice(streams: dict[str, bytes], tmp_path: Path) -> None:
    program = f"""
from lambert.corpus.sources import named_sources
with named_sources("-", Path({str(tmp_path / "corpus")!r})) as files:
    reader = TextReader(files)
    print(len(list(reader)), len(list(reader)), *reader.statistics.parsers.values())
"""
    assert piped(gzip.compress(streams["JSON lines"]), program) == "2 2 JSON lines\n"


class Dripping(io.RawIOBase):
    """A pipe that has one more byte whenever it is asked."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self.data.readinto(memoryview(buffer)[:1])


def test_a_pipe_that_drips_shows_its_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_opened", lambda file: Dripping(gzip.compress(b"One.\n\nTwo.")))
    assert [document.paragraphs for document in TextReader([Path("-")])] == [["One."], ["Two."]]


def test_standard_input_is_not_read_twice_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_opened", lambda file: Dripping(b"One."))
    reader = TextReader([Path("-")])
    assert len(list(reader)) == 1
    with pytest.raises(UserError, match="standard input can be read only once"):
        list(reader)


def test_what_standard_input_cannot_carry(tmp_path: Path) -> None:
    program = """
try:
    list(TextReader(find_files(['-'])))
except Exception as error:
    print(type(error).__name__, error)
"""
    data = as_parquet("text", tmp_path / "a").read_bytes()
    assert piped(data, program).startswith(
        "UserError standard input is Parquet by way of a stream. Name the Parquet file"
    )
    assert piped(b"%PDF-1.7", program).startswith("UserError standard input is a PDF")
    assert piped(gzip.compress(b"text" * 100)[:-9], program).startswith(
        "UserError standard input is damaged or was cut"
    )
    assert piped(b"", program) == ""


# Accounts


def test_statistics_of_two_workers_add_up(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n\nfine\n")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "a"}\nno\n{"text": "\\ud800"}\nno\n')
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "c.parquet")
    files = find_files([tmp_path])
    whole = TextReader(files)
    documents = list(whole)
    total, parts = ReadStatistics(), []
    for file in files:
        part = TextReader([file])
        parts += list(part)
        total.add(part.statistics)
    assert parts == documents
    assert total == whole.statistics
    assert total.skipped_records == {str(files[1]): 2, str(files[2]): 1}
    assert list(total.parsers.values()) == ["plain text", "JSON lines", "Parquet"]
