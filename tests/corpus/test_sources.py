from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
from pathlib import Path

import pyarrow as pa
import pytest

from lambert.corpus.readers import document as limits
from lambert.corpus.sources import Document, TextReader, find_files
from lambert.errors import UserError

TEXT = "One. Two.\nThree.\n\n\nFour.\n"
PARAGRAPHS = [["One. Two.", "Three."], ["Four."]]


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


COMPRESSORS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd, "": bytes}


def paragraphs_of(*files: Path) -> list[list[str]]:
    return [document.paragraphs for document in TextReader(files)]


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_every_compression_gives_the_same_documents(tmp_path: Path, suffix: str) -> None:
    file = written(tmp_path / f"a.txt{suffix}", COMPRESSORS[suffix](TEXT.encode()))
    assert paragraphs_of(file) == PARAGRAPHS
    assert paragraphs_of(file.rename(tmp_path / "no_suffix")) == PARAGRAPHS


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_files_of_several_compressed_streams_are_read_to_the_end(tmp_path: Path, suffix: str) -> None:
    compress = COMPRESSORS[suffix]
    file = written(tmp_path / f"a.txt{suffix}", compress(b"One.\n\nTw") + compress(b"o.\n\n") + compress(b"Three."))
    assert paragraphs_of(file) == [["One."], ["Two."], ["Three."]]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_a_file_cut_short_is_named(tmp_path: Path, suffix: str, keep: float) -> None:
    data = COMPRESSORS[suffix](os.urandom(100_000).hex().encode())
    file = written(tmp_path / f"short.txt{suffix}", data[: int(len(data) * keep)])
    with pytest.raises(UserError, match=f"short.txt{suffix} is damaged or was cut short"):
        list(TextReader([file]))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str) -> None:
    data = bytearray(COMPRESSORS[suffix](os.urandom(100_000).hex().encode()))
    data[len(data) // 2] ^= 0xFF
    file = written(tmp_path / f"bad.txt{suffix}", bytes(data))
    if suffix == ".zst":
        data[4:40] = b"\xff" * 36  # frames without a checksum do not notice a changed literal
        file.write_bytes(bytes(data))
    with pytest.raises(UserError, match="bad.txt"):
        list(TextReader([file]))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt.gz", b"plain text", "is not a .gz file"),
        ("a.txt", b"%PDF-1.7 ...", "is a PDF"),
        ("a.txt", b"PK\x03\x04....", "ZIP"),
    ],
)
def test_what_is_not_text_is_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(TextReader([written(tmp_path / name, data)]))


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfOne. Two.\r\nThree.\r\n\r\nFour.",
        b"One. Two.\rThree.\r\rFour.",
        b"One. Two.\r\r\nThree.\r\r\n\r\r\nFour.",
        "One. Two.\u2028Three.\n \u3000\t\nFour.".encode(),
        b"One. Two.\x0cThree.\n\x00\x00\nFour.",
        "One. Two.\n\ufeffThree.\n\ufeff\nFour.".encode(),
    ],
)
def test_line_ends_and_marks_of_every_kind(tmp_path: Path, data: bytes) -> None:
    assert paragraphs_of(written(tmp_path / "a.txt", data)) == PARAGRAPHS


@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_the_size_of_blocks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("lambert.corpus.compression.BLOCK_BYTES", block)
    file = written(tmp_path / "a.txt", "\ufeffOne é。\r\nTwo.\r\n\r\nThree.\r\n".encode())
    assert paragraphs_of(file) == [["One é。", "Two."], ["Three."]]


def test_bad_utf8_is_replaced_and_counted_by_file(tmp_path: Path) -> None:
    good = written(tmp_path / "good.txt", "caf\u00e9 \ufffd\n".encode())
    bad = written(tmp_path / "bad.txt", b"caf\xe9 noir\nna\xef\xbb\n")
    reader = TextReader([good, bad])
    assert [document.paragraphs for document in reader] == [
        ["café \ufffd"],
        ["caf\ufffd noir", "na\ufffd\ufffd"],
    ]
    assert reader.statistics.replaced_bytes == {str(bad): 3}


@pytest.mark.parametrize("content", [random.Random(0).randbytes(5_000), "Good morning.\n".encode("utf-16-le") * 50])
def test_binary_files_and_utf16_without_a_mark_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="not plain text: .* control characters"):
        list(TextReader([written(tmp_path / "a.txt", content)]))


def test_a_few_control_characters_are_still_text(tmp_path: Path) -> None:
    assert paragraphs_of(written(tmp_path / "a.txt", b"\x1b[1mbold\x1b[0m and\x00 a page\x0c\x01 end\n"))


def test_a_giant_line_is_cut_at_white_space_into_bounded_pieces(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(400_000)]
    reader = TextReader([written(tmp_path / "a.txt", " ".join(words).encode() + b"\nEnd.\n")])
    pieces = [line for document in reader for line in document.paragraphs]
    assert " ".join(pieces).split() == [*words, "End."]
    assert max(map(len, pieces)) <= limits.LINE_LIMIT_BYTES
    assert reader.statistics.cut_lines == 1
    assert reader.statistics.lines == 2


def test_a_giant_line_without_white_space_is_cut_between_characters(tmp_path: Path) -> None:
    text = "語" * 1_000_000
    reader = TextReader([written(tmp_path / "a.txt", b"x" + text.encode())])
    assert "".join(line for document in reader for line in document.paragraphs) == "x" + text
    assert reader.statistics.replaced_bytes == {}


def test_white_space_after_a_cut_is_not_a_blank_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINE_LIMIT_BYTES", 10)
    assert paragraphs_of(written(tmp_path / "a.txt", b"123456789          \nnext\n")) == [["123456789", "next"]]


def test_a_document_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DOCUMENT_LIMIT_CHARACTERS", 10)
    reader = TextReader([written(tmp_path / "a.txt", b"12345\n12345\n123456\n\n12\n")])
    assert [document.paragraphs for document in reader] == [["12345", "12345"], ["123456"], ["12"]]
    assert reader.statistics.cut_documents == 1


def test_statistics_and_a_second_pass(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", TEXT.encode())
    reader = TextReader([file, file])
    assert list(reader) == list(reader)
    assert next(iter(reader)) == Document(str(file), PARAGRAPHS[0])
    assert len(list(reader)) == 4
    statistics = reader.statistics
    assert (statistics.files, statistics.bytes, statistics.lines) == (2, 2 * len(TEXT), 10)


def test_files_in_folders_sorted_and_each_once(tmp_path: Path) -> None:
    names = ["b.txt", "a.txt", "sub/c.TXT.GZ", ".hidden/d.txt", ".e.txt", "f.md", "empty.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"" if name == "empty.txt" else b"text")
    expected = [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "sub/c.TXT.GZ"]
    assert find_files([tmp_path, tmp_path / "a.txt"]) == expected
    assert find_files([tmp_path / "f.md"]) == [tmp_path / "f.md"]


def test_paths_that_hold_no_text(tmp_path: Path) -> None:
    written(tmp_path / "novel.txt", b"text")
    written(tmp_path / "void.txt", b"")
    (tmp_path / "folder").mkdir()
    for path, message in [
        (tmp_path / "nowel.txt", "nowel.txt does not exist. Perhaps you meant .*novel.txt"),
        (tmp_path / "nowhere" / "a.txt", "there is no folder"),
        (tmp_path / "void.txt", "is empty"),
        (tmp_path / "folder", "has no text"),
    ]:
        with pytest.raises(UserError, match=message):
            find_files([path])
    with pytest.raises(UserError, match="no text was given"):
        find_files([])
    with pytest.raises(UserError, match="cannot be read"):
        list(TextReader([tmp_path / "folder"]))
