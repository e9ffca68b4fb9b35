from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lambert.corpus.formats import PARQUET
from lambert.corpus.sources import TextReader
from lambert.errors import UserError

DOCUMENTS = ["One. Two.\n\nThree.", None, "", "Four.\r\nFive."]
PARAGRAPHS = [["One. Two.", "Three."], ["Four.", "Five."]]


def written(path: Path, column: Any, **options: Any) -> Path:
    pq.write_table(pa.table({"id": list(range(len(column))), "text": column}), path, **options)
    return path


def paragraphs_of(file: Path, field: str = "text") -> list[list[str]]:
    return [document.paragraphs for document in TextReader([file], text_field=field)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(DOCUMENTS),
        pa.array(DOCUMENTS, pa.large_string()),
        pa.array(DOCUMENTS, pa.string_view()),
        pa.array([text if text is None else text.encode() for text in DOCUMENTS], pa.binary()),
        pa.array(DOCUMENTS).dictionary_encode(),
        pa.array([text if text is None else text.split("\n") for text in DOCUMENTS]),
        pa.array([["One. Two.", None, "Three."], None, [], ["Four.\nFive."]], pa.large_list(pa.large_string())),
    ],
    ids=lambda column: str(column.type),
)
def test_a_row_is_a_document_for_every_kind_of_text(tmp_path: Path, column: pa.Array) -> None:
    file = written(tmp_path / "a.parquet", column)
    reader = TextReader([file])
    assert [document.paragraphs for document in reader] == PARAGRAPHS
    statistics = reader.statistics
    assert statistics.parsers == {str(file): PARQUET}
    assert (statistics.files, statistics.lines, statistics.stored_bytes) == (1, 4, file.stat().st_size)
    assert statistics.first_skipped == {str(file): "row 2: null"}


def test_it_is_known_by_its_first_bytes_whatever_its_name(tmp_path: Path) -> None:
    assert paragraphs_of(written(tmp_path / "part-0.txt", DOCUMENTS)) == PARAGRAPHS


def test_a_wrong_column_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", DOCUMENTS)
    with pytest.raises(UserError, match=r"a.parquet has no column 'body'. .* there is id \(int64\), text \(string\)"):
        paragraphs_of(file, "body")
    with pytest.raises(UserError, match="the column 'id' holds int64, not text"):
        paragraphs_of(file, "id")
    nested = written(tmp_path / "b.parquet", pa.array([[{"role": "user", "content": "x"}]]))
    with pytest.raises(UserError, match="holds list<.*struct<.*, not text"):
        paragraphs_of(nested)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_file_cut_short_is_named(tmp_path: Path, keep: float) -> None:
    file = written(tmp_path / "a.parquet", [f"Text {number}." for number in range(10_000)])
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match="a.parquet is damaged or was cut short"):
        paragraphs_of(file)


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", [f"Text {number}." for number in range(10_000)], compression="zstd")
    data = bytearray(file.read_bytes())
    column = pq.ParquetFile(file).metadata.row_group(0).column(1)
    start = column.dictionary_page_offset + 40
    data[start : start + 2_000] = b"\xff" * 2_000
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match="a.parquet is damaged or was cut short"):
        paragraphs_of(file)


def test_strings_that_are_not_utf8_are_mended_and_counted(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"], pa.binary()).buffers())
    file = written(tmp_path / "a.parquet", bad)
    reader = TextReader([file])
    assert [document.paragraphs for document in reader] == [["caf\ufffd"]]
    assert reader.statistics.replaced_bytes == {str(file): 1}


def test_a_long_text_stored_once_for_many_rows_stays_small(tmp_path: Path) -> None:
    text = "word " * 20_000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 5_000, pa.int32()), [text])
    file = written(tmp_path / "a.parquet", column)  # 500 MB of text
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    documents = iter(TextReader([file]))
    tracemalloc.start()
    try:
        most = max(pool.bytes_allocated() - before for _, _ in zip(range(300), documents, strict=False))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert most < 50e6


def test_it_cannot_be_read_inside_another_compression(tmp_path: Path) -> None:
    import gzip

    file = tmp_path / "a.parquet.gz"
    file.write_bytes(gzip.compress(written(tmp_path / "a.parquet", DOCUMENTS).read_bytes()))
    with pytest.raises(UserError, match="not compressed: it is read from its end"):
        paragraphs_of(file)
    file = tmp_path / "b.parquet"
    file.write_bytes(b"plain text")
    with pytest.raises(UserError, match="b.parquet is not a Parquet file, despite its name"):
        paragraphs_of(file)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_a_small_file_that_decodes_to_much_is_refused_or_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of a million strings in some hundred bytes, and a text that is one page of 120 MB in 12 KB."""
    monkeypatch.setattr("lambert.corpus.readers.parquet.MEMORY_BYTES", 64 << 20)
    words = pa.repeat("ab", 1_200_000)
    column = pa.LargeListArray.from_arrays(pa.array([0, len(words)], pa.int64()), words)
    pq.write_table(pa.table({"text": column}), tmp_path / "list.parquet", compression="zstd")
    reader = TextReader([tmp_path / "list.parquet"])
    assert not list(reader)
    assert "longer than 64 MB" in reader.statistics.first_skipped[str(tmp_path / "list.parquet")]
    value = pa.array(["a " * 60_000_000], pa.large_string())
    pq.write_table(pa.table({"text": value}), tmp_path / "value.parquet", compression="zstd", use_dictionary=False)
    # In a process of its own, whose allocator has not kept what the writing took.
    program = (
        "import sys; from pathlib import Path; from lambert.corpus.readers import parquet;"
        "parquet.MEMORY_BYTES = 64 << 20; from lambert.corpus.sources import TextReader;"
        "list(TextReader([Path(sys.argv[1])]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "value.parquet")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "value.parquet needs more than 64 MB for 64 rows" in ended.stderr
