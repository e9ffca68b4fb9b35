"""Reading GLUE's files: every layout, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambert.errors import UserError
from lambert.finetune.glue.tasks import find_task, read_split
from lambert.finetune.labelled.task import Example

FILES = [
    ("sst-2", "dev.tsv", "sentence\tlabel\na \"fine film \t1\ndull\t0\n",
     [Example('a "fine film ', None, 1), Example("dull", None, 0)]),
    ("mrpc", "dev.tsv", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tOne \"two.\tTwo one.\r\n",
     [Example('One "two.', "Two one.", 1)]),
    ("rte", "dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA b.\tC.\tnot_entailment\n1\tD.\tE.\tentailment\n",
     [Example("A b.", "C.", 1), Example("D.", "E.", 0)]),
    ("cola", "dev.tsv", "gj04\t1\t\tThe sailors rode.\ncj99\t0\t*\tThe more would.\n",
     [Example("The sailors rode.", None, 1), Example("The more would.", None, 0)]),
    ("sts-b", "sts-dev.csv", "main\tMSRvid\t2012\t0000\t4.750\tA man.\tThe man.\tsource\n",
     [Example("A man.", "The man.", 4.75)]),
    ("sts-b", "dev.tsv", "index\tgenre\tsentence1\tsentence2\tscore\n0\tx\tA man.\tThe man.\t5.000\n",
     [Example("A man.", "The man.", 5.0)]),
    ("qqp", "dev.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWhy?\tHow?\t0\n4\t5\n",
     [Example("Why?", "How?", 0)]),
    ("qnli", "dev.tsv", "index\tquestion\tsentence\tlabel\n0\tWho?\tShe.\tnot_entailment\n",
     [Example("Who?", "She.", 1)]),
    ("mnli", "dev_matched.tsv", "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tA.\tB.\tneutral\tentailment\n",
     [Example("A.", "B.", 1)]),
    ("mnli-mm", "dev_mismatched.tsv", "index\tsentence1\tsentence2\tgold_label\n0\tA.\tB.\tneutral\n",
     [Example("A.", "B.", 2)]),
    ("wnli", "dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t1\n", [Example("A.", "B.", 1)]),
]  # fmt: skip


@pytest.mark.parametrize(("task", "name", "content", "expected"), FILES)
def test_every_layout(tmp_path: Path, task: str, name: str, content: str, expected: list[Example]) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert list(read_split(tmp_path, find_task(task), "dev")) == expected


@pytest.mark.parametrize(
    ("task", "content", "said"),
    [
        ("sst-2", "", "is empty"),
        ("sst-2", "text\tlabel\nx\t1\n", "has no columns sentence, label"),
        ("sst-2", "sentence\tlabel\nx\t2\n", "line 2 is not an example of sst-2.*a label is 0 or 1"),
        ("rte", "index\tsentence1\tsentence2\tlabel\n0\tA\n", "line 2 is not an example"),
        ("cola", "a\t1\t\tGood.\nb\n", "line 2 is not an example"),
        ("sts-b", "a\tb\tc\td\tnan\tA\tB\n", "line 1 is not an example of sts-b.*a label is a number"),
    ],
)
def test_what_is_refused(tmp_path: Path, task: str, content: str, said: str) -> None:
    (tmp_path / "dev.tsv").write_text(content)
    with pytest.raises(UserError, match=said):
        read_split(tmp_path, find_task(task), "dev")


def test_missing_files_and_tasks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no train.tsv or sts-train.csv.*as `data`"):
        read_split(tmp_path, find_task("sts-b"), "train")
    with pytest.raises(UserError, match=r"Did you mean 'sst-2'"):
        find_task("sst2")
    assert find_task("SST-2").name == "sst-2"
