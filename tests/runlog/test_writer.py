"""The journal: complete lines, no NaN, and what a killed run leaves."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from unittest.mock import Mock

import pytest

from lambert.runlog.schema import FORMAT_VERSION
from lambert.runlog.writer import Journal


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
    assert lines[1] == '{"event": "st'
    assert json.loads(lines[2]).items() >= {"event": "run", "format_version": FORMAT_VERSION}.items()


def test_a_silent_journal_makes_no_file(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl", silent=True) as journal:
        journal.write("step", {"step": 1})
    assert not (tmp_path / "journal.jsonl").exists()


def test_on_a_full_disk_events_wait_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, half a line, and then all of it goes onto the disk; the file's lines are whole in the end."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        real, room = journal._file, [0, 7, None]

        class FullFile:
            """A file on a disk with room for a few more bytes, once none."""

            def write(self, data: bytes) -> int:
                left = room[0]
                if left == 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                if left:
                    room[0] = 0
                return real.write(data if left is None else data[:left])

        monkeypatch.setattr(journal, "_file", FullFile())
        for step in (1, 2, 3):
            journal.write("step", {"step": step})
            del room[0]
        monkeypatch.undo()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_other_faults_of_the_disk_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal, monkeypatch.context() as patch:
        broken = Mock(write=Mock(side_effect=OSError(errno.EIO, "Input/output error")))
        patch.setattr(journal, "_file", broken)
        with pytest.raises(OSError, match="Input/output"):
            journal.write("step", {"step": 1})
