"""Every format of labelled files, which columns are taken, and splits."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from finetune.squad.articles import CAFE, HARBOUR
from lambert.corpus.vocabulary import train_vocabulary
from lambert.errors import UserError
from lambert.finetune.inputs import IGNORED
from lambert.finetune.labelled.columns import find_columns
from lambert.finetune.labelled.metrics import spans_of
from lambert.finetune.labelled.reading import labels_of, read_rows
from lambert.finetune.labelled.sequences import LabelledSettings
from lambert.finetune.labelled.split import hold_out, tell_of_balance
from lambert.finetune.labelled.tables import Table, read_table
from lambert.finetune.labelled.tagging import encode_texts
from lambert.finetune.labelled.task import TaggedText

EXPECTED = [("A fine film", "good"), ("dull, and long", "bad")]
FILES = [
    ("a.csv", 'text,label\nA fine film,good\n"dull, and long",bad\n'),
    ("b.csv", "text;label\r\nA fine film;good\r\ndull, and long;bad\r\n"),
    ("c.csv", 'text\tlabel\nA fine film\tgood\ndull, and long\tbad\n'),
    ("d.tsv", 'id\ttext\tlabel\n1\tA fine film\tgood\n2\t"dull, and long"\tbad\n'),
    ("e.jsonl", '{"text": "A fine film", "label": "good"}\n\n{"text": "dull, and long", "label": " bad "}\n'),
    ("f.json", '[{"text": "A fine film", "label": "good"}, {"text": "dull, and long", "label": "bad"}]'),
    ("g", "\ufefftext,label\nA fine film,good\n\"dull, and long\",bad\n"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), FILES)
def test_every_format(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, newline="")
    table = read_table(tmp_path / name)
    rows = read_rows(table, find_columns(table))
    assert [(row.texts[0], row.label) for row in rows] == EXPECTED


def test_tabs_mean_that_quotes_are_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\tlabel\n"Fine" film\tgood\n6" long\tbad\n')
    assert [row["text"] for row in read_table(tmp_path / "a.csv").rows] == ['"Fine" film', '6" long']


def test_parquet_and_names_of_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"Review": ["x", "y"], "stars": [1, 5], "id": [7, 8]}), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    columns = find_columns(table)
    assert (columns.texts, columns.labels, columns.kind) == (("Review",), ("stars",), "classification")
    assert [row.label for row in read_rows(table, columns)] == ["1", "5"]


def test_conll_and_spans_give_the_same_words(tmp_path: Path) -> None:
    lines = (
        "-DOCSTART- -X- O",
        "",
        "Edna NNP B-PER",
        "Marlowe NNP I-PER",
        "built VB O",
        "it PR O",
        "",
        "in O",
        "1843 B-DATE",
    )
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    table = read_table(tmp_path / "a.txt")
    (first, second) = read_rows(table, find_columns(table))
    words = [first.texts[0][begin:end] for begin, end, _ in first.label]
    assert words == ["Edna", "Marlowe", "built", "it"] and [tag for *_, tag in second.label] == ["O", "B-DATE"]
    spans = [{"start": 0, "end": 12, "label": "PER"}]
    again = Table("list", [{"text": "Edna Marlowe built it", "label": spans}], ["entry 1"])
    assert read_rows(again, find_columns(again))[0].label == first.label
    within = Table("list", [{"text": "pre-1843, twice", "label": [[4, 8, "DATE"]]}], ["entry 1"])
    assert [tag for *_, tag in read_rows(within, find_columns(within))[0].label] == ["O", "O", "B-DATE", "O", "O"]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_ends_of_lines_end_a_row_of_csv(tmp_path: Path, character: str) -> None:
    text = f'text,label\nan old{character}pier,x\r\n"two\nlines{character}",y\n'
    (tmp_path / "a.csv").write_text(text, newline="")
    table = read_table(tmp_path / "a.csv")
    assert table.rows == [
        {"text": f"an old{character}pier", "label": "x"}, {"text": f"two\nlines{character}", "label": "y"}
    ]  # fmt: skip
    assert table.places == ["line 2", "line 3"]


def test_the_message_says_where_the_columns_names_come_from(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a fine film,very good\na dull one,bad\n")
    with pytest.raises(UserError, match="its first line, which names the columns, has 'a fine film', 'very good'"):
        find_columns(read_table(tmp_path / "a.csv"))
    with pytest.raises(UserError, match="is no header but an example, put a line with the columns' names before it"):
        find_columns(read_table(tmp_path / "a.csv"))
    (tmp_path / "a.jsonl").write_text('\n{"one": "a", "two": "b"}\n')
    with pytest.raises(UserError, match=r"Name it with `label`; there is 'one', 'two'"):
        find_columns(read_table(tmp_path / "a.jsonl"))


MISSING_NUMBERS = (float("nan"), float("-inf"), np.float32("nan"), Decimal("NaN"), "nan", "NaN", "NAN", "", " ", "inf", "NA", "n/a", None)  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("missing", MISSING_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    ("values", "kind", "labels"),
    [
        ([1.5, 2.25, 4.0], "regression", [1.5, 2.25, 4.0]),
        (["1.0", "2.0", "2"], "classification", ["1", "2", "2"]),
        ([Decimal("1.50"), np.float32(2.25)], "regression", [1.5, 2.25]),
        ([np.int64(1), np.float32(2)], "classification", ["1", "2"]),
    ],
)
def test_a_missing_number_is_left_out_before_the_kind_is_decided(
    missing: Any, values: list[Any], kind: str, labels: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"text": "a", "label": value} for value in [missing, *values, missing]]
    table = Table("list", rows, [f"entry {number}" for number in range(1, len(rows) + 1)])
    columns = find_columns(table)
    assert columns.kind == kind
    assert [row.label for row in read_rows(table, columns)] == labels
    assert f"2 of {len(rows)} rows are left out, first in entry 1: it has no label" in caplog.text


@pytest.mark.parametrize("written", ["NaN", "nan", "inf", "-Infinity"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "hf:stars"])
def test_missing_numbers_of_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, written: str
) -> None:
    values = [*(f"{number}.25" for number in range(30)), *[written] * 4]
    if name.endswith("sv"):
        mark = "," if name == "a.csv" else "\t"
        (tmp_path / name).write_text("\n".join([f"text{mark}stars", *(f"a film{mark}{one}" for one in values)]))
    elif name.startswith("a.json"):
        word = {"nan": "NaN", "inf": "Infinity"}.get(written, written)
        objects = [f'{{"text": "a film", "stars": {one if one != written else word}}}' for one in values]
        (tmp_path / name).write_text(f"[{', '.join(objects)}]" if name == "a.json" else "\n".join(objects))
    columns = {"text": ["a film"] * 34, "stars": [float(one) for one in values]}
    if name == "a.parquet":
        pq.write_table(pa.table(columns), tmp_path / name)
    if name.startswith("hf:"):
        dataset = datasets.Dataset.from_dict(columns)
        monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: dataset)
    table = read_table(name if name.startswith("hf:") else tmp_path / name)
    found = find_columns(table)
    assert found.kind == "regression"
    assert [row.label for row in read_rows(table, found)] == [number + 0.25 for number in range(30)]


def test_a_missing_label_is_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    names = datasets.ClassLabel(names=["O", "B-X"])
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(names)})
    dataset = datasets.Dataset.from_dict({"tokens": [["a", "b"]] * 2, "ner_tags": [[0, 1], [-1, 1]]}, features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: dataset)
    tagged = read_table("hf:tags")
    assert [row.place for row in read_rows(tagged, find_columns(tagged))] == ["row 1"]
    words = ["good", "NaN", "None", float("nan"), "NA", None]
    for values, labels in (
        (words, ["good", "None", "NA"]),
        ([["x", None], ["x"], ["nan", "y"], []], [("x",), ()]),
    ):
        table = Table("list", [{"text": "a", "label": value} for value in values], [""] * len(values))
        assert [row.label for row in read_rows(table, find_columns(table))] == labels
    texts = Table("list", [{"text": text, "label": "x"} for text in ("a", float("nan"), "nan")], [""] * 3)
    assert [row.texts for row in read_rows(texts, find_columns(texts))] == [("a",)]
    separated = Table("list", [{"text": "a", "label": value} for value in ("x|y", "", "nan", "x|nan")], [""] * 4)
    assert [row.label for row in read_rows(separated, find_columns(separated, separator="|"))] == [("x", "y"), ()]


def test_a_word_among_numbers_does_not_make_a_class_of_each(caplog: pytest.LogCaptureFixture) -> None:
    values = [*(f"{number}.5" for number in range(30)), "unknown", "4.5"]
    table = Table("list", [{"text": "a", "label": value} for value in values], [f"line {n}" for n in range(32)])
    with pytest.raises(UserError, match=r"31 of the labels in 'label' are numbers, but 'unknown' in line 30 is none"):
        find_columns(table)
    assert len(read_rows(table, find_columns(table, kind="regression"))) == 31
    classes = find_columns(table, kind="classification")
    tell_of_balance(labels_of(read_rows(table, classes), classes.kind), classes.kind)
    assert "31 labels for 32 training examples are too many to learn" in caplog.text


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([{"text": "a", "label": n % 3} for n in range(40)], "classification"),
        ([{"text": "a", "label": n} for n in range(40)], "regression"),
        ([{"text": "a", "label": "1.5"}, {"text": "b", "label": "2"}], "regression"),
        ([{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}], "multi-label"),
        ([{"tokens": ["a", "b"], "ner_tags": ["O", "B-X"]}], "tags"),
        ([{"text": "ab", "spans": [[0, 1, "X"]]}], "tags"),
        ([{"premise": "a", "hypothesis": "b", "label": True}], "classification"),
    ],
)
def test_the_kind_of_labels(rows: list[dict[str, Any]], kind: str) -> None:
    assert find_columns(Table("list", rows, [""] * len(rows))).kind == kind


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", 'text,label\n"open,1\nx,2\n', "line 2.*Close the quote"),
        ("a.csv", "text,label\na,1,3\n", "line 2: 3 fields where the first line names 2"),
        ("a.csv", "text,text\na,1\n", "'text' twice"),
        ("a.jsonl", '{"text": "a"\n', "line 1: not JSON.*Correct the line"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b', "line 2: not JSON.*Correct the line"),
        ("a.jsonl", '{\n"text": "a"\n}\n{\n"text": "b"\n}\n', "line 1: not JSON.*jq -c [.] does it"),
        ("a.json", "[1, 2]", "entry 1: no JSON object"),
        ("a.conll", "word\n\n", "line 1: 'word' has no tag"),
        ("a.parquet", "no", "cannot be read as Parquet"),
        ("a.csv", "text,label\n", "has no examples"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        read_table(tmp_path / name)


def test_other_encodings_and_formats_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"text,label\ncaf\xe9,x\n")
    with pytest.raises(UserError, match=r"not UTF-8 \(byte 15\). Convert it.*iconv -f cp1252 -t utf-8 latin.csv > NEW"):
        read_table(tmp_path / "latin.csv")
    (tmp_path / "book.csv").write_bytes(b"PK\x03\x04\x14\x00\x06\x00" + b"\xff\x00" * 40)
    with pytest.raises(UserError) as caught:
        read_table(tmp_path / "book.csv")
    assert "iconv" not in str(caught.value)


@pytest.mark.parametrize(
    ("label", "kind", "said"),
    [
        ("good", "tags", "'label' are such as 'good', and tags needs a list for each text.*Leave out `task`.*CoNLL"),
        (3, "tags", "'label' are such as '3', and tags needs a list"),
        ("good", "regression", "'label' are such as 'good', and regression needs numbers. Leave out `task`"),
        (["x"], "classification", "and classification needs one for each text"),
    ],
)
def test_a_kind_that_no_label_is_of(label: Any, kind: str, said: str) -> None:
    table = Table("list", [{"text": "a", "label": value} for value in (None, label)], ["", ""])
    with pytest.raises(UserError, match=said):
        find_columns(table, kind=kind)


def test_copies_are_on_one_side_whatever_the_order() -> None:
    items = [f"text {n // 2}" if n % 2 else f"Text  {n // 2}" for n in range(100)]
    train, held_out = hold_out(items, lambda text: [text], 0.2)
    assert len(held_out) == 20 and not {text.split()[-1] for text in held_out} & {text.split()[-1] for text in train}
    assert sorted(hold_out(items[::-1], lambda text: [text], 0.2)[1]) == sorted(held_out)


def test_entities_by_conlls_rules() -> None:
    assert spans_of(["B-A", "I-A", "I-B", "O", "I-B", "B-B"]) == {(0, 2, "A"), (2, 3, "B"), (4, 5, "B"), (5, 6, "B")}
    assert spans_of(["B-A", "E-A", "S-A", "U-B", "B-C", "L-C"]) == {(0, 2, "A"), (2, 3, "A"), (3, 4, "B"), (4, 6, "C")}
    assert spans_of(["NAME", "NAME", "O", "NAME"]) == {(0, 2, "NAME"), (3, 4, "NAME")}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_vocabulary([HARBOUR, CAFE] * 3, 200, cased=False)


@pytest.mark.parametrize("length", [8, 11, 64])
def test_a_long_text_becomes_sequences_that_tag_every_word_once(tokenizer: Tokenizer, length: int) -> None:
    text = " ".join([*HARBOUR.split()[:40], "harbourmarlowe" * 6, "pier"])  # a word longer than a sequence
    ends = np.cumsum([len(word) + 1 for word in text.split()]) - 1
    words = tuple((int(end) - len(word), int(end)) for word, end in zip(text.split(), ends, strict=True))
    example = TaggedText(text, words, tuple(range(len(words))))
    sequences = encode_texts([example], tokenizer, LabelledSettings(sequence_length=length))
    assert max(len(one.token_ids) for one in sequences) <= length
    assert np.concatenate([one.words for one in sequences]).tolist() == list(range(len(words)))
    for one in sequences:
        target = np.asarray(one.target)
        assert target[one.positions].tolist() == one.words.tolist()
        assert (np.delete(target, one.positions) == IGNORED).all()
        first = tokenizer.decode([int(one.token_ids[one.positions[0]])]).strip("#")
        assert text[slice(*words[one.words[0]])].lower().startswith(first)
