"""The journal: complete lines, no NaN, and what a killed run leaves."""

from __future__ import annotations

import json
import math
from pathlib import Path

from lambert.training.journal import Journal


def test_lines_are_readable_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.write("step", {"step": 1, "loss": math.nan, "nested": {"ratios": [math.inf, 1.0]}})
        (line,) = path.read_text().splitlines()
    record = json.loads(line)
    assert record["event"] == "step" and record["time"] > 1.7e9
    assert record["loss"] is None and record["nested"] == {"ratios": [None, 1.0]}


def test_half_a_line_is_ended_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"event": "step", "step": 1}\n{"event": "st')
    with Journal(path) as journal:
        journal.write("run", {"resumed_from_step": 1})
    lines = path.read_text().splitlines()
    assert lines[1] == '{"event": "st' and json.loads(lines[2])["event"] == "run"


def test_a_silent_journal_makes_no_file(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl", silent=True) as journal:
        journal.write("step", {"step": 1})
    assert not (tmp_path / "journal.jsonl").exists()
