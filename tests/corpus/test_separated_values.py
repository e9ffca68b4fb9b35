"""CSV and TSV files: a document per row."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from lambert.corpus.formats import CSV, TSV
from lambert.corpus.readers import json_lines, separated_values
from lambert.corpus.sources import ReadStatistics, TextReader
from lambert.errors import UserError

ROWS = [("1", 'He said "no", twice.\nThen he left.'), ("2", "Semi; colon,\tand tab."), ("3", "")]


def read(path: Path, field: str = "text") -> tuple[list[list[str]], ReadStatistics]:
    reader = TextReader([path], text_field=field)
    return [document.paragraphs for document in reader], reader.statistics


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_the_csv_module_wrote_is_read(tmp_path: Path, delimiter: str, mark: str) -> None:
    path = tmp_path / "a.CSV"
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(mark)
        csv.writer(file, delimiter=delimiter).writerows([("id", "text"), *ROWS])
    documents, statistics = read(path)
    assert documents == [['He said "no", twice.', "Then he left."], ["Semi; colon,\tand tab."]]
    assert statistics.parsers == {str(path): CSV} and statistics.lines == 3 and not statistics.skipped_records


def test_tsv_has_a_row_in_each_line_and_quotes_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(
        gzip.compress(b'id\tbody\r\n1\t"Stop" he said.\r\n2\t5" wide\r\n3\t"a ""b"" c"\r\n4\r\n\r\n5\tend\xff')
    )
    documents, statistics = read(path, "body")
    assert documents == [['"Stop" he said.'], ['5" wide'], ['a "b" c'], ["end\ufffd"]]
    assert statistics.parsers == {str(path): TSV} and statistics.replaced_bytes == {str(path): 1}
    assert statistics.skipped_records == {str(path): 1}
    assert statistics.first_skipped[str(path)].startswith("line 5: 1 column where the first line has 2")


def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,"title",body\n1,a,b\n')
    with pytest.raises(UserError, match=r"a.csv has no column 'text' in its first line. .*there is id, title, body"):
        read(path)


@pytest.mark.parametrize(("rows", "why"), [(1_000, "field larger"), (3, "still open at the end"), (0, "still open")])
def test_a_quote_that_is_never_closed_is_refused(
    rows: int, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(separated_values, "RECORD_LIMIT_BYTES", 1_000)
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,fine\n2,"open\n' + "3,line\n" * rows)
    with pytest.raises(UserError, match=rf"a.csv, the row that begins in line 3: .*{why}.*Close the quote"):
        read(path)
    csv.field_size_limit(json_lines.RECORD_LIMIT_BYTES)
