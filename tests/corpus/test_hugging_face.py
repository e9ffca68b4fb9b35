"""The real loading code of `datasets`, on folders of local files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lambert.corpus.formats import HUGGING_FACE
from lambert.corpus.sources import TextReader, find_files, stored_bytes
from lambert.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # of another package's making


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    return folder


def read(name: str, field: str = "text") -> list[list[str]]:
    return [document.paragraphs for document in TextReader(find_files([name]), text_field=field)]


def write_rows(file: Path, *texts: object) -> None:
    file.write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts), encoding="utf-8")


def test_a_row_is_a_document(folder: Path) -> None:
    write_rows(folder / "train.jsonl", "One. Two.\n\nThree.", None, "Four.")
    write_rows(folder / "test.jsonl", "Five.")
    reader = TextReader(find_files([f"hf:{folder}"]))
    assert [document.paragraphs for document in reader] == [["One. Two.", "Three."], ["Four."]]
    name = f"hf:{folder}"
    assert reader.statistics.parsers == {name: HUGGING_FACE}
    assert reader.statistics.first_skipped == {name: "row 2: null"}
    assert stored_bytes(Path(name)) is None
    assert read(f"hf:{folder}::test") == read(f"hf:{folder}:default:test") == [["Five."]]


def test_parquet_and_lists_of_strings(folder: Path) -> None:
    pq.write_table(pa.table({"lines": [["One.", "Two."], ["Three."]]}), folder / "validation-0.parquet")
    assert read(f"hf:{folder}", "lines") == [["One.", "Two."], ["Three."]]  # the only split there is


@pytest.mark.parametrize(
    ("ending", "field", "message"),
    [
        ("", "body", "has no column 'body'. Name the column of the text with `text_field`; there is text, id"),
        ("", "id", "the column 'id' holds int, not text"),
        ("::nowhere", "text", "cannot be read as a Hugging Face dataset .*nowhere.*hf:NAME:CONFIG:SPLIT"),
        (":nothing", "text", "cannot be read as a Hugging Face dataset .*nothing"),
        ("/missing", "text", "missing cannot be read as a Hugging Face dataset"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, ending: str, field: str, message: str) -> None:
    write_rows(folder / "train.jsonl", "One.")
    with pytest.raises(UserError, match=message):
        read(f"hf:{folder}{ending}", field)


def test_several_splits_without_train(folder: Path) -> None:
    write_rows(folder / "test.jsonl", "One.")
    write_rows(folder / "validation.jsonl", "Two.")
    with pytest.raises(UserError, match="has the splits .* and no train. Name one, as in hf:.*::"):
        read(f"hf:{folder}")


def test_a_name_is_needed() -> None:
    with pytest.raises(UserError, match="hf: names no dataset"):
        read("hf:")


def test_damage_met_on_the_way_is_the_datasets(folder: Path) -> None:
    (folder / "train.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(UserError, match="cannot be read as a Hugging Face dataset"):
        read(f"hf:{folder}")


def test_a_missing_package_is_said_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'lambert-bert\[datasets\]'"):
        find_files(["hf:wikimedia/wikipedia:20231101.en"])
