"""`lambert embed` from outside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import lambert
from lambert.cli.main import main
from tiny_places import TEXT


def test_a_row_for_each_line(tiny_places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [TEXT, "", f"{TEXT} again"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    out = tmp_path / "deep" / "vectors.npy"
    command = ["embed", tiny_places["run"], str(tmp_path / "texts.txt"), "--out", str(out), "--normalize", "--json"]
    assert main(command) == 0
    said = capsys.readouterr()
    result = json.loads(said.out.splitlines()[-1])
    assert (result["texts"], result["hidden_size"], result["empty"], result["pooling"]) == (3, 32, 1, "mean")
    assert "1 of 3 texts have no tokens" in said.err
    vectors = np.load(out)
    np.testing.assert_allclose(vectors, lambert.embed(tiny_places["run"], texts, normalize=True), atol=1e-6)
    assert main(command) == 0  # a file of vectors is replaced
    assert [file.name for file in out.parent.iterdir()] == ["vectors.npy"]


def test_standard_input_and_columns(tiny_places: dict[str, str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, f"{TEXT}.\n".encode() * 50)
    os.close(writer)
    before = os.dup(0)
    os.dup2(reader, 0)
    try:
        assert main(["embed", tiny_places["model"], "-", "--out", str(tmp_path / "lines.npy")]) == 0
    finally:
        os.dup2(before, 0)
    table = ["embed", tiny_places["model"], tiny_places["table"], "--column", "body"]
    assert main([*table, "--out", str(tmp_path / "table.npy")]) == 0
    lines, column = np.load(tmp_path / "lines.npy"), np.load(tmp_path / "table.npy")
    assert (lines.shape, column.shape) == ((50, 32), (99, 32))  # its header is there 50 times
    np.testing.assert_array_equal(lines, column[::2])


def test_nothing_but_vectors_is_replaced(
    tiny_places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.npy").write_text("my own notes")
    assert main(["embed", tiny_places["model"], tiny_places["text"], "--out", str(tmp_path / "mine.npy")]) == 2
    assert "holds no vectors" in capsys.readouterr().err
    assert (tmp_path / "mine.npy").read_text() == "my own notes"
