"""JSON lines and Parquet: what becomes a document, and what is said of what does not."""

from __future__ import annotations

import bz2
import json
import tracemalloc
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lambert.corpus import records
from lambert.corpus.build import build_corpus
from lambert.corpus.files import find_files, parser_of
from lambert.corpus.sources import TextReader
from lambert.errors import UserError

TEXTS = ["One. Two.\nThree.\n\nFour.", "Five \u4e2d\u6587 \U0001f468\u200d\U0001f469.", "Six."]
PARAGRAPHS = [["One. Two.", "Three.", "Four."], ["Five \u4e2d\u6587 \U0001f468\u200d\U0001f469."], ["Six."]]


def json_file(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(*files: Path, **options: str) -> tuple[list[list[str]], TextReader]:
    reader = TextReader(files, **options)
    return [document.paragraphs for document in reader], reader


def test_a_json_line_is_a_document(tmp_path: Path) -> None:
    file = json_file(tmp_path / "a.jsonl", [{"text": text, "id": 1} for text in TEXTS])
    found, reader = read(file)
    assert found == PARAGRAPHS
    assert reader.statistics.parsers == {"JSON lines": 1}
    (tmp_path / "a.jsonl.bz2").write_bytes(bz2.compress(file.read_bytes()))
    assert read(tmp_path / "a.jsonl.bz2")[0] == PARAGRAPHS


def test_another_field_and_lists_of_paragraphs(tmp_path: Path) -> None:
    file = json_file(tmp_path / "a.ndjson", [{"body": ["One. Two.", "Three."]}, {"body": "Four."}])
    assert read(file, text_field="body")[0] == [["One. Two.", "Three."], ["Four."]]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [{"body": "x", "id": 3}],
            r"a\.jsonl, line 1 has no text in a field 'text'; its fields: body, id.*--text-field",
        ),
        ([{"text": None}], "has no text in a field"),
        ([["text"]], "line 1 is not a JSON object"),
    ],
)
def test_a_first_line_that_does_not_fit_is_refused(tmp_path: Path, rows: list[object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        read(json_file(tmp_path / "a.jsonl", rows))


def test_later_lines_that_do_not_fit_are_left_out_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "One."}\n{"text": \n\n{"body": "x"}\n[]\n{"text": 3}\n{"text": "T\xffwo."}')
    found, reader = read(file)
    assert found == [["One."], ["T\ufffdwo."]]
    assert reader.statistics.skipped_records == {str(file): 4}


def test_half_characters_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "a\\ud800b \\ud83d\\ude00 \\udc00"}\n')
    found, reader = read(file)
    assert found == [["a\ufffdb \U0001f600 \ufffd"]]
    assert reader.statistics.replaced_bytes == {str(file): 2}
    found[0][0].encode()


def test_a_line_beyond_the_limit_is_left_out_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "JSON_LINE_LIMIT_BYTES", 2_000_000)
    giant = b'{"text": "' + b"word " * 4_000_000 + b'"}'  # 20 MB
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "One."}\n' + giant + b'\n{"text": "Two."}\n' + giant)
    tracemalloc.start()
    found, reader = read(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [["One."], ["Two."]]
    assert reader.statistics.skipped_records == {str(file): 2}
    assert peak < 12_000_000


def test_a_long_text_is_cut_into_documents(tmp_path: Path) -> None:
    text = "A sentence of words. " * 120_000  # 2.5 MB without a line end
    found, reader = read(json_file(tmp_path / "a.jsonl", [{"text": text}]))
    assert " ".join(" ".join(lines) for lines in found) == text.strip()
    assert len(found) > 1 and max(len(line) for lines in found for line in lines) <= 1 << 20
    assert reader.statistics.cut_documents == len(found) - 1


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_row_of_parquet_is_a_document(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array([*TEXTS, None], pa.string()).cast(kind)
    pq.write_table(pa.table({"id": [1, 2, 3, 4], "text": column}), tmp_path / "a.parquet", row_group_size=2)
    found, reader = read(tmp_path / "a.parquet")
    assert found == PARAGRAPHS
    assert reader.statistics.parsers == {"Parquet": 1}
    assert reader.statistics.skipped_records == {str(tmp_path / "a.parquet"): 1}
    assert reader.statistics.stored_bytes == (tmp_path / "a.parquet").stat().st_size


def test_parquet_lists_are_paragraphs(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [["One. Two.", "Three."], ["Four."]]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0] == [["One. Two.", "Three."], ["Four."]]


def test_parquet_that_does_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "number": [3]}), file)
    with pytest.raises(UserError, match=r"a\.parquet has no column 'text'; its columns: body, number.*--text-field"):
        read(file)
    with pytest.raises(UserError, match="column 'number' .* holds int64, not text"):
        read(file, text_field="number")
    whole = file.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 3, 3):
        file.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"a\.parquet is damaged"):
            read(file)


def test_formats_are_mixed_freely_and_reported(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("One story.\n\nAnother story.")
    json_file(folder / "deep" / "b.jsonl", [{"text": "A third story."}])
    pq.write_table(pa.table({"text": ["A fourth story."]}), folder / "c.parquet")
    (folder / "notes.md").write_text("not asked for")
    summary = build_corpus([folder], tmp_path / "out", vocabulary_size=100, held_out_share=0)
    assert summary.documents == 4
    assert summary.parsers == {"plain text": 1, "JSON lines": 1, "Parquet": 1}


def test_patterns(tmp_path: Path) -> None:
    for name in ("b1.txt", "b2.txt", "c.txt"):
        (tmp_path / name).write_text("text")
    assert [file.name for file in find_files([tmp_path / "b*.txt"])] == ["b1.txt", "b2.txt"]
    assert [file.name for file in find_files([tmp_path / "**" / "c.txt"])] == ["c.txt"]
    with pytest.raises(UserError, match=r"nothing matches .*x\*\.txt"):
        find_files([tmp_path / "x*.txt"])
    odd = tmp_path / "odd[1].txt"
    odd.write_text("text")
    assert find_files([odd]) == [odd]


def test_loops_of_links_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "text.txt").write_text("text")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a" / "same.txt").symlink_to(tmp_path / "a" / "text.txt")
    (tmp_path / "a" / "nowhere.txt").symlink_to(tmp_path / "missing")
    assert len(find_files([tmp_path])) == 1


@pytest.mark.parametrize(
    ("name", "parser"),
    [
        ("a.txt", "plain text"), ("a", "plain text"), ("A.JSONL.GZ", "JSON lines"), ("a.json", "JSON lines"),
        ("a.parquet", "Parquet"), ("dump.xml.bz2", "MediaWiki XML"), ("a.xml", "MediaWiki XML"),
        ("a.json.txt", "plain text"),
    ],
)  # fmt: skip
def test_the_name_tells_the_parser(name: str, parser: str) -> None:
    assert parser_of(Path(name)) == parser


def test_a_small_file_that_unpacks_to_a_large_one_is_streamed(tmp_path: Path) -> None:
    """40 MB of one letter in 40 kB: pieces of bounded size, never the whole."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    file = tmp_path / "bomb.txt.gz"
    file.write_bytes(b"".join(compressor.compress(b"a" * 1_000_000) for _ in range(40)) + compressor.flush())
    tracemalloc.start()
    longest = max(len(line) for document in TextReader([file]) for line in document.paragraphs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert longest <= 1 << 20
    assert peak < 12_000_000
