"""What `prepare` says at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import write_small_text
from lambert.cli.main import main


def test_a_folder_says_what_it_left_out_and_what_can_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    write_small_text(texts / "a.txt")
    (texts / "b.txt").symlink_to("gone")
    words = ["prepare", str(texts), "--out", str(tmp_path / "c"), "--vocab-size", "100", "--workers", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "links to nothing in the folders: 1; fix or remove them" in said and "by a pattern" not in said
    (texts / "c.md").write_text("Some words.\n")
    assert main([*words, "--out", str(tmp_path / "d")]) == 0
    assert "not taken from the folders: 1 files of 0.0 MB (1 .md); name them by a pattern" in capsys.readouterr().out
