"""Event files against TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lambert.cli.main import main
from lambert.tracking import tensorboard as ours
from tracking.journals import END, PHASE, RUN, append, evaluation, step, write


def read(folder: Path) -> Any:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = reader.EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, name: str) -> list[tuple[int, float, float]]:
    return [(one.step, one.value, one.wall_time) for one in read(folder).Scalars(name)]


def test_what_tensorboard_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    run, board = tmp_path / "mine", tmp_path / "board"
    write(run, [RUN, PHASE, step(1, 3.0), step(2, 2.5), evaluation(2, 5.5)])
    (run / "recipe.toml").write_text('seed = 7\noptimizer = "lamb"\n')
    assert main(["track", str(run), "--tensorboard", str(board)]) == 0
    assert "the run has not ended" in capsys.readouterr().out
    assert scalars(board / "mine", "train/loss") == [(1, 3.0, 102.0), (2, 2.5, 103.0)]
    assert scalars(board / "mine", "held_out/mlm_loss") == [(2, 5.5, 110.0)]
    (text,) = read(board / "mine").Tensors("recipe/text_summary")
    assert b'"optimizer": "lamb"' in text.tensor_proto.string_val[0]

    # The same command adds what is new; steps told anew after a resume take the place of the old ones.
    append(run, [step(3, 2.0), RUN | {"resumed_from_step": 1}, step(2, 2.25), step(3, 1.75), END])
    for _ in range(2):
        assert main(["track", str(run), "--tensorboard", str(board)]) == 0
        assert "the run has not ended" not in capsys.readouterr().out
        found = [(number, value) for number, value, _ in scalars(board / "mine", "train/loss")]
        assert found == [(1, 3.0), (2, 2.25), (3, 1.75)]

    # The second of those calls had nothing new, and wrote nothing but the header of its file.
    newest = max((board / "mine").glob("events.*"), key=lambda path: path.stat().st_mtime_ns)
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    assert [event.WhichOneof("what") for event in loader.EventFileLoader(str(newest)).Load()] == ["file_version"]

    # A run started afresh in the same folder.
    write(run, [RUN | {"time": 300.0}, step(1, 9.0)])
    assert main(["track", str(run), "--tensorboard", str(board)]) == 0
    assert [(number, value) for number, value, _ in scalars(board / "mine", "train/loss")] == [(1, 9.0)]


def test_where_tensorboard_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ours, "find_spec", lambda name: None)
    write(tmp_path / "run", [RUN, step(1, 3.0)])
    assert main(["track", str(tmp_path / "run"), "--tensorboard", str(tmp_path / "board")]) == 2
    assert "pip install 'lambert-bert[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "board").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    write(tmp_path / "run", [RUN, step(1, 3.0)])
    (tmp_path / "file").touch()
    assert main(["track", str(tmp_path / "run"), "--tensorboard", str(tmp_path / "file")]) == 2
    assert "cannot be written (Not a directory)" in capsys.readouterr().err
