"""A checkpoint equals what was saved, or is rejected: flipped bits, truncation, full disks, killed processes."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lambert.errors import Interrupted, UserError
from lambert.training.checkpoint import async_writer
from lambert.training.checkpoint import format as module
from lambert.training.checkpoint.async_writer import AsyncCheckpointWriter
from lambert.training.checkpoint.format import (
    Checkpoint,
    Damaged,
    Unreadable,
    delete_old_checkpoints,
    finished_steps,
    load_checkpoint,
    newest_checkpoint,
    write_checkpoint,
)
from lambert.training.config.trainer_options import TrainerOptions


def small_checkpoint(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    weights = {f"w{i}": torch.randn(7, 5, generator=generator) for i in range(3)}
    moments = {f"w{i}/exp_avg": torch.randn(7, 5, generator=generator) for i in range(3)}
    facts = {"versions": {"torch": "2.13.0"}, "spike_detector": {"losses": [1.5, 2.25], "skipped_in_a_row": 0}}
    return Checkpoint(step, {"model": weights, "optimizer": moments}, facts)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three checkpoints: of steps 10, 20 and 30."""
    for step in (10, 20, 30):
        write_checkpoint(tmp_path, small_checkpoint(step))
    return tmp_path


def assert_is(found: Checkpoint | None, step: int) -> None:
    expected = small_checkpoint(step)
    assert found is not None and found.step == step and found.facts == expected.facts
    for part, named in expected.tensors.items():
        assert found.tensors[part].keys() == named.keys()
        assert all(torch.equal(found.tensors[part][name], tensor) for name, tensor in named.items())


def test_what_is_loaded_is_what_was_saved(run: Path) -> None:
    assert finished_steps(run) == [30, 20, 10]
    assert (run / "latest").read_text() == "step-30\n"
    assert_is(load_checkpoint(run, 20), 20)
    assert_is(newest_checkpoint(run)[0], 30)
    assert newest_checkpoint(run / "nothing") == (None, [])


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "manifest.json"])
@pytest.mark.parametrize("left", [0, 1, 0.5, -1])
def test_a_shortened_file_is_named_and_the_one_before_it_taken(run: Path, name: str, left: float) -> None:
    path = run / "checkpoints" / "step-30" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content)) if 0 < left < 1 else int(left)])
    found, problems = newest_checkpoint(run)
    assert_is(found, 20)
    assert len(problems) == 1 and "step-30 is damaged" in problems[0]
    with pytest.raises(Damaged, match=r"step-30 is damaged.*"):
        load_checkpoint(run, 30)


def test_every_flipped_bit_is_found(run: Path) -> None:
    """A thousand of them, spread over all three files by their sizes."""
    folder = run / "checkpoints" / "step-30"
    files = sorted(folder.iterdir())
    contents = {path: path.read_bytes() for path in files}
    draws = random.Random(0)
    for _ in range(1_000):
        path = draws.choices(files, [len(contents[path]) for path in files])[0]
        broken = bytearray(contents[path])
        broken[draws.randrange(len(broken))] ^= 1 << draws.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(Damaged):
            load_checkpoint(run, 30)
        path.write_bytes(contents[path])
    assert_is(newest_checkpoint(run)[0], 30)


@pytest.mark.parametrize("damage", ["file", "folder", "names", "another step", "bomb"])
def test_other_damage_is_told(run: Path, damage: str) -> None:
    folder = run / "checkpoints" / "step-30"
    manifest = json.loads((folder / "manifest.json").read_text())
    content = manifest["content"]
    if damage == "file":
        (folder / "model.safetensors").unlink()
    elif damage == "folder":
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").mkdir()
    elif damage == "names":
        content["files"]["../../other"] = content["files"].pop("model.safetensors")
    elif damage == "another step":
        content["step"] = 31
    else:
        (folder / "manifest.json").write_text("[" * 900_000)
    if damage in ("names", "another step"):
        manifest["sha256"] = module._content_sha256(content)
        (folder / "manifest.json").write_text(json.dumps(manifest))
    found, problems = newest_checkpoint(run)
    assert_is(found, 20)
    assert "step-30 is damaged" in problems[0]


def test_where_all_are_damaged_nothing_is_started_anew(run: Path) -> None:
    for folder in (run / "checkpoints").iterdir():
        (folder / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"no checkpoint .* is complete: .*step-30.*step-20.*step-10.*`fresh=True`"):
        newest_checkpoint(run)


@pytest.mark.parametrize("latest", [None, "step-10\n", "step-99\n", "step-30.partial\n", "../../etc\n", "\udcff"])
def test_which_one_latest_names_does_not_matter(run: Path, latest: str | None) -> None:
    (run / "latest").unlink()
    if latest is not None:
        (run / "latest").write_bytes(latest.encode(errors="surrogateescape"))
    (run / "checkpoints" / "step-99.partial").mkdir()
    (run / "checkpoints" / "step-5.deleted").mkdir()
    (run / "checkpoints" / "step-98").mkdir()
    (run / "checkpoints" / "step-²").mkdir()
    assert_is(newest_checkpoint(run)[0], 30)
    delete_old_checkpoints(run, keep_last=2)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-20", "step-30", "step-²"}


def test_old_ones_go_but_every_tenth_stays(run: Path) -> None:
    write_checkpoint(run, small_checkpoint(45))
    write_checkpoint(run, small_checkpoint(50))
    (run / "checkpoints" / "step-10-mine").mkdir()
    delete_old_checkpoints(run, keep_last=1, keep_every=20)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-20", "step-50", "step-10-mine"}


def test_the_same_step_can_be_saved_again(run: Path) -> None:
    (run / "checkpoints" / "step-30" / "model.safetensors").write_bytes(b"")
    write_checkpoint(run, small_checkpoint(30))
    assert_is(newest_checkpoint(run)[0], 30)


def _calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, error: Exception | None) -> list[int]:
    """From the call number `at` on, `owner.name` raises; returns a list whose only number counts the calls."""
    real: Callable[..., Any] = getattr(owner, name)
    seen = [0]

    def call(*arguments: Any, **options: Any) -> Any:
        seen[0] += 1
        if error is not None and seen[0] == at:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, call)
    return seen


PLACES = [
    (os, "fsync"),
    (Path, "rename"),
    (Path, "replace"),
    (module, "save_file"),
    (Path, "mkdir"),
    (Path, "write_text"),
]


@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[name for _, name in PLACES])
def test_a_full_disk_at_any_place_leaves_the_last_good_one(
    run: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    with monkeypatch.context() as patch:
        seen = _calls(patch, owner, name, 0, None)
        write_checkpoint(run, small_checkpoint(40))
        count = seen[0]
    assert count > 0
    for failing in range(1, count + 1):
        with monkeypatch.context() as patch:
            _calls(patch, owner, name, failing, OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(OSError, match="No space left"):
                write_checkpoint(run, small_checkpoint(50 + failing))
        found, problems = newest_checkpoint(run)
        assert not problems and found is not None
        assert_is(found, found.step)
        assert not list((run / "checkpoints").glob("*.partial"))


def test_a_disk_that_gives_back_something_else_is_found_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(folder: Path) -> None:
        path = folder / "optimizer.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(module, "_forget_cached", forget)
    with pytest.raises(Damaged, match="optimizer.safetensors reads back differently"):
        write_checkpoint(run, small_checkpoint(40))
    assert finished_steps(run) == [30, 20, 10] and (run / "latest").read_text() == "step-30\n"


def test_free_space_is_looked_at_before_anything_is_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1_000))
    seen = _calls(monkeypatch, module, "save_file", 0, None)
    with pytest.raises(OSError, match=r"a checkpoint needs 1\.\d MB, and 1\.0 kB are free"):
        write_checkpoint(run, small_checkpoint(40))
    assert seen == [0]


def test_a_full_disk_is_waited_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = [0]

    def usage(path: Any) -> Any:
        tries[0] += 1
        return shutil._ntuple_diskusage(10**9, 10**9, 0 if tries[0] < 4 else 10**9)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    saver = AsyncCheckpointWriter(run, TrainerOptions(keep_last=1), retry_seconds=0.01)
    saver.start(small_checkpoint(40))
    while saver.is_busy:
        pass
    saved = saver.finished()
    assert saved is not None and saved.step == 40 and tries[0] == 4 and saver.problem is None
    assert saver.finished() is None and finished_steps(run) == [40]


@pytest.mark.parametrize("end", ["patience", "asked"])
def test_a_disk_that_stays_full_ends_with_the_last_good_one(
    run: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    patience = 0.0 if end == "patience" else 100.0
    saver = AsyncCheckpointWriter(run, TrainerOptions(full_disk_minutes=patience / 60), retry_seconds=0.01)
    saver.start(small_checkpoint(40))
    if end == "asked":
        while not saver.waits_for_space:
            assert saver.is_busy
    saver.close()
    assert isinstance(saver.problem, Interrupted) and saver.problem.exit_code == 3
    assert "step 40 cannot be written" in saver.problem.what and saver.finished() is None
    assert "needs 1.0 MB, and 0 bytes are free" in saver.problem.what
    assert saver.problem.remedy == "Free disk space, then give the same command to resume from step 30"
    assert_is(newest_checkpoint(run)[0], 30)


def test_the_first_full_disk_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 300_000))
    saver = AsyncCheckpointWriter(tmp_path, TrainerOptions(full_disk_minutes=5), retry_seconds=0.01)
    saver.start(small_checkpoint(40))
    while not saver.waits_for_space:
        assert saver.is_busy
    assert [record.message for record in caplog.records] == [
        f"a checkpoint needs 1.0 MB, and 300.0 kB are free in {tmp_path}: the run waits up to 5 minutes for space"
    ]
    saver.close()
    assert saver.problem is not None
    assert saver.problem.remedy.endswith("give the same command to start over: the run has no checkpoint yet")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("a bug"), KeyError("name"), OSError(errno.EIO, "Error")])
def test_whatever_fails_in_the_background_ends_the_run(
    run: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(async_writer, "write_checkpoint", fail)
    saver = AsyncCheckpointWriter(run, TrainerOptions())
    saver.start(small_checkpoint(40))
    saver.close()
    assert isinstance(saver.problem, Interrupted) and saver.finished() is None
    assert re.search(f"step 40 cannot be written .*({type(error).__name__}|a bug|name|Error)", saver.problem.what)
    assert saver.problem.remedy.startswith("Free memory" if isinstance(error, MemoryError) else "Fix the disk")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ESTALE])
def test_what_cannot_be_read_now_is_not_called_damaged(run: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it passed over."""

    def closed(path: Path, **recorded: Any) -> Any:
        if "step-30" in str(path):
            raise OSError(number, os.strerror(number), str(path))
        return read_tensors(path, **recorded)

    read_tensors = module.read_tensors
    monkeypatch.setattr(module, "read_tensors", closed)
    with pytest.raises(Unreadable, match=re.escape(f"step-30 cannot be read ({os.strerror(number)})")) as told:
        newest_checkpoint(run)
    assert "damaged" not in str(told.value) and "Delete" not in str(told.value)
    assert ("chmod" in told.value.remedy) == (number == errno.EACCES)
