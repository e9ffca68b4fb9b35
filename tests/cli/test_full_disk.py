"""A full disk, at the first byte that a subcommand writes: one line with the free space."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from conftest import write_small_text
from lambert.cli.main import main
from lambert.corpus.store import Corpus
from lambert.utils.io import check_free_space

OPTIONS = "--model 2x32 --batch-size 8 --samples 80 --sequence-lengths 16 --micro-batch-size 4 --probe-seconds 0"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files can be created but not synced, as on a disk with room for names only; 0.3 MB are free."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 300_000))


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("line", ["prepare TEXT --out OUT --vocab VOCAB", "pretrain --corpus CORPUS --out OUT"])
def test_a_full_disk_is_told_in_one_line(
    line: str, tmp_path: Path, small_corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One cat sat. It slept.\n\nTwo dogs ran. They barked.\n" * 20)
    paths: dict[str, Any] = {
        "TEXT": text,
        "OUT": tmp_path / "out",
        "VOCAB": small_corpus.path,
        "CORPUS": small_corpus.path,
    }
    words = [str(paths.get(word, word)) for word in line.split()]
    options = OPTIONS.split() if words[0] == "pretrain" else []
    assert main([*words, *options]) == 2
    message = capsys.readouterr().err
    assert "300.0 kB are free" in message and "Free disk space" in message and message.count("\n") == 1
    assert "checkpoint yet" not in message and "is complete" not in message


def test_a_run_without_room_for_a_checkpoint_does_not_start(
    tmp_path: Path, small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 900_000))
    out = tmp_path / "run"
    assert main(["pretrain", "--corpus", str(small_corpus.path), "--out", str(out), *OPTIONS.split()]) == 2
    assert "a checkpoint needs 1." in (message := capsys.readouterr().err) and "900.0 kB are free" in message
    assert not (out / "recipe.toml").exists() and not (out / "checkpoints").exists()


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("line", ["prepare TEXT --out OUT --vocab-size 60", "pretrain --corpus CORPUS --out OUT"])
@pytest.mark.parametrize(
    ("left", "number", "said"),
    [(0, errno.ENOSPC, "no inodes left"), (9, errno.EDQUOT, "quota"), (9, errno.EFBIG, "`ulimit -f`")],
)
def test_what_ran_out_is_named(
    line: str,
    left: int,
    number: int,
    said: str,
    tmp_path: Path,
    small_corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where room is left on the disk, but not for another file, or not for this user."""

    def full(path: Any, *arguments: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number), str(path))

    write_small_text(tmp_path / "text.txt")
    facts = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result([*facts[:5], 40, left, left, *facts[8:10]]))
    monkeypatch.setattr(os, "mkdir", full)
    paths = {"TEXT": tmp_path / "text.txt", "OUT": tmp_path / "out", "CORPUS": small_corpus.path}
    words = [str(paths.get(word, word)) for word in line.split()]
    assert main([*words, *(OPTIONS.split() if words[0] == "pretrain" else [])]) == 2
    message = capsys.readouterr().err
    remedy = "Raise that limit" if number == errno.EFBIG else "Free disk space"
    assert said in message and remedy in message and message.count("\n") == 1 and " GB" not in message


@pytest.mark.parametrize(
    ("line", "what"), [("embed MODEL TEXT --out OUT.npy", "vectors"), ("embed-train MODEL PAIRS --out OUT", "model")]
)
def test_room_for_the_result_is_looked_at_before_the_work(
    line: str,
    what: str,
    tiny_places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_before_work: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if line.startswith("embed-train"):
        pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 300_000))
    monkeypatch.setattr("lambert.embeddings.vectors._vectors", lambda *_: pytest.fail("it worked before it looked"))
    paths = {"MODEL": tiny_places["model"], "TEXT": tiny_places["text"], "PAIRS": tiny_places["pairs"]}
    words = [paths.get(word, word.replace("OUT", str(tmp_path / "new" / "out"))) for word in line.split()]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert f"{what} needs 1." in message and "300.0 kB are free" in message and "Free disk space" in message


def test_a_disk_that_fills_while_a_model_is_written_is_told_in_one_line(
    tiny_places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(transformers.BertModel, "save_pretrained", full)
    out = tmp_path / "out"
    for words in (
        ["embed-train", tiny_places["model"], tiny_places["pairs"], "--out", str(out)],
        ["export", tiny_places["model"], str(out), "--sentence-transformers"],
    ):
        assert main(words) == 2
        assert "the disk is full" in (message := capsys.readouterr().err) and "Free disk space" in message
        assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_needs_inodes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = os.statvfs(tmp_path)
    few = os.statvfs_result([*facts[:5], 40, 3, 3, *facts[8:10]])
    monkeypatch.setattr(os, "statvfs", lambda path: few)
    with pytest.raises(OSError, match="needs 8 inodes, and 3 are free") as told:
        check_free_space(tmp_path, 1, what="a checkpoint")
    assert told.value.errno == errno.ENOSPC
