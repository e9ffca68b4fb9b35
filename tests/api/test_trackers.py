"""Dashboards beside a run: they show all of it, and nothing that happens to them happens to the run."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lambert
from lambert.api import trackers
from lambert.cli.main import main
from lambert.corpus.store import Corpus
from lambert.tracking import mlflow, weights_and_biases
from lambert.tracking.process import TrackingProcess
from lambert.utils.formatting import shell_command
from tracking.journals import RUN, append, step, write

OPTIONS: dict[str, Any] = {
    "model": "1x32", "optimizer": "lamb", "batch_size": 4, "samples": 40, "sequence_lengths": (16,),
    "micro_batch_size": 4, "evaluation_samples": 0, "probe_seconds": 0, "progress": False, "checkpoint_steps": 2,
}  # fmt: skip

STAND_IN = """
import json, os, pathlib, time
HOME = pathlib.Path(__file__).parent

class errors:
    class Error(Exception):
        pass

def login(**_):
    return True

def Settings(**values):
    return values

def points():
    path = HOME / "points.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

class Run:
    dir, url = str(HOME / "files"), "https://w.test/run"

    def __init__(self, identity):
        self.identity = identity
        self.starting_step = max((one["place"] for one in points() if one["id"] == identity), default=-1) + 1

    def define_metric(self, *_, **__):
        pass

    def log(self, values, step):
        fault = (HOME / "fault").read_text() if (HOME / "fault").exists() else ""
        if fault and values["step"] >= 4:
            if fault == "hangs":
                time.sleep(600)
            raise ConnectionError(fault)
        with (HOME / "points.jsonl").open("a") as file:
            file.write(json.dumps({"id": self.identity, "place": step, **values}) + "\\n")

    def finish(self):
        pass

def init(id, **_):
    return Run(id)
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a stand-in for the client of W&B, where also the run's own process finds it."""
    folder = tmp_path / "packages" / "wandb"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(weights_and_biases, "find_spec", lambda name: folder)
    yield folder
    sys.modules.pop("wandb", None)


def shown(client: Path) -> list[int]:
    """The steps of the losses at the stand-in, in the order they came."""
    points = [json.loads(line) for line in (client / "points.jsonl").read_text().splitlines()]
    return [int(point["step"]) for point in points if "train/loss" in point]


class At(lambert.Callback):
    """Waits in a step until something is true, which the run itself would not."""

    def __init__(self, number: int, until: Any) -> None:
        self.number, self.until = number, until

    def on_step_end(self, trainer: Any, record: Any) -> None:
        end = time.monotonic() + 60
        while record["step"] == self.number and not self.until(trainer):
            assert time.monotonic() < end, "it never came"
            time.sleep(0.05)


def stop(trainer: Any) -> bool:
    trainer.request_stop()
    return True


def weights(run: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(run / "huggingface" / "model.safetensors")
    return tensors


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "lambert" and one.levelno >= logging.WARNING]


@pytest.fixture
def alone(small_corpus: Corpus, tmp_path: Path) -> Path:
    """A run without a dashboard."""
    return lambert.pretrain(small_corpus, out=tmp_path / "alone", **OPTIONS).out


def test_a_run_that_resumes_is_one_run_in_every_dashboard_and_keeps_its_bits(
    small_corpus: Corpus, tmp_path: Path, client: Path, alone: Path
) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out, board = tmp_path / "run", tmp_path / "board"
    callbacks = [lambert.TensorBoardCallback(board), lambert.WandbCallback("bert", mode="online")]
    first = lambert.pretrain(small_corpus, out=out, callbacks=[*callbacks, At(5, stop)], **OPTIONS)
    assert first.step == 5 and shown(client) == [1, 2, 3, 4, 5]
    (out / "latest").write_text("step-4")  # as after a kill: the steps since are computed again
    subprocess.run(["rm", "-r", str(out / "checkpoints" / "step-5")], check=True)
    second = lambert.pretrain(small_corpus, out=out, callbacks=callbacks, **OPTIONS)
    assert second.finished and second.resumed_from_step == 4
    assert shown(client) == list(range(1, 11))
    events = reader.EventAccumulator(str(board / "run"))
    events.Reload()
    assert [one.step for one in events.Scalars("train/loss")] == list(range(1, 11))
    assert all(torch.equal(tensor, weights(alone)[name]) for name, tensor in weights(out).items())
    recipes = [(run / "recipe.toml").read_text().replace(str(run), "RUN") for run in (alone, out)]
    assert recipes[0] == recipes[1]


def test_the_command_line_tracks_and_does_not_record_it(
    small_corpus: Corpus, tmp_path: Path, client: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pretrain", "--model", "1x32", "--batch-size", "4", "--samples", "16", "--sequence-lengths", "16"]
    command += [
        "--probe-seconds",
        "0",
        "--corpus",
        str(small_corpus.path),
        "--out",
        str(tmp_path / "run"),
        "--evaluation-samples",
        "0",
    ]
    assert main([*command, "--wandb", "bert", "--wandb-mode", "online"]) == 0
    assert shown(client) == [1, 2, 3, 4]
    assert "Weights & Biases: https://w.test/run" in capsys.readouterr().out
    assert "wandb" not in (tmp_path / "run" / "recipe.toml").read_text()
    manifests = list((tmp_path / "run").rglob("manifest.json"))
    assert manifests and not any("wandb" in one.read_text() for one in manifests)


def test_a_dashboard_that_fails_is_one_warning_and_the_rest_can_be_sent(
    small_corpus: Corpus, tmp_path: Path, client: Path, caplog: pytest.LogCaptureFixture, alone: Path
) -> None:
    (client / "fault").write_text("the network is down")
    tracker = lambert.WandbCallback("bert", mode="online")
    failed = At(9, lambda trainer: tracker.on_log(trainer, "step", {}) or tracker._process is None)
    output = lambert.pretrain(small_corpus, out=tmp_path / "run", callbacks=[tracker, failed], **OPTIONS)
    assert output.finished and all(torch.equal(one, weights(alone)[name]) for name, one in weights(output.out).items())
    again = shell_command("lambert", "track", tmp_path / "run", "--wandb", "bert", "--wandb-mode", "online")
    assert warnings_in(caplog) == [
        "Weights & Biases failed (the network is down). This does not touch the run; "
        f"`{again}` sends what Weights & Biases lacks, now or later"
    ]
    (client / "fault").unlink()
    assert main(["track", str(tmp_path / "run"), "--wandb", "bert", "--wandb-mode", "online"]) == 0
    assert shown(client) == list(range(1, 11))


def test_a_dashboard_that_hangs_delays_nothing_but_the_last_look(
    small_corpus: Corpus, tmp_path: Path, client: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (client / "fault").write_text("hangs")
    monkeypatch.setattr(trackers, "_WAIT_SECONDS", 0.5)
    tracker = lambert.WandbCallback("bert", mode="online")
    begun: list[Any] = []
    look = At(2, lambda trainer: not begun.append(tracker._process))
    assert lambert.pretrain(small_corpus, out=tmp_path / "run", callbacks=[tracker, look], **OPTIONS).finished
    (warning,) = warnings_in(caplog)
    assert (
        f"Weights & Biases lacks some; process {begun[0].pid} goes on sending" in warning and "lambert track" in warning
    )
    begun[0]._process.kill()
    begun[0]._process.wait()


def test_a_process_that_is_killed_is_one_warning(
    small_corpus: Corpus, tmp_path: Path, client: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = lambert.WandbCallback("bert", mode="online")

    def kill(trainer: Any) -> bool:
        assert tracker._process is not None
        os.kill(tracker._process.pid, signal.SIGKILL)
        return True

    assert lambert.pretrain(small_corpus, out=tmp_path / "run", callbacks=[tracker, At(3, kill)], **OPTIONS).finished
    (warning,) = warnings_in(caplog)
    assert "the process that followed the run was ended" in warning


def test_what_is_wrong_is_told_before_a_new_run_and_does_not_stop_one_that_resumes(
    small_corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    faults = [
        (lambert.TensorBoardCallback(tmp_path / "file"), "cannot be written"),
        (lambert.WandbCallback("bert", mode="onlin"), "Did you mean 'online'"),
        (lambert.MLflowCallback("localhost:5000"), "neither a folder nor a tracking URI"),
    ]
    for module in (weights_and_biases, mlflow):
        monkeypatch.setattr(module, "find_spec", lambda name: name)
    out = tmp_path / "run"
    for callback, message in faults:
        with pytest.raises(lambert.UserError, match=message):
            lambert.pretrain(small_corpus, out=out, callbacks=[callback], **OPTIONS)
        assert not out.exists()
    lambert.pretrain(small_corpus, out=out, callbacks=[At(3, stop)], **OPTIONS)
    callbacks = [callback for callback, _ in faults]
    assert lambert.pretrain(small_corpus, out=out, callbacks=callbacks, **OPTIONS).finished
    told = warnings_in(caplog)
    for (_, message), kind, line in zip(faults, ("tensorboard", "wandb", "mlflow"), told, strict=True):
        assert message in line and f"The run goes on without it; `lambert track {out} --{kind} …` sends" in line


@pytest.fixture
def following(tmp_path: Path, client: Path) -> Iterator[TrackingProcess]:
    write(tmp_path / "run", [RUN, step(1, 3.0)])
    process = TrackingProcess(tmp_path / "run", "wandb", {"project": "bert", "mode": "online"})
    yield process
    process._process.kill()
    process._process.wait()


def test_a_run_that_is_killed_leaves_no_process_and_what_it_wrote_is_sent(
    tmp_path: Path, client: Path, following: TrackingProcess
) -> None:
    append(tmp_path / "run", [step(2, 2.0)])
    following._connection.close()  # as the system does
    assert following._process.wait(60) == 0
    assert shown(client) == [1, 2]


def test_the_signals_of_a_terminal_and_a_scheduler_do_not_end_it(
    tmp_path: Path, client: Path, following: TrackingProcess
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(following.pid, number)
    append(tmp_path / "run", [step(2, 2.0)])
    following.stop()
    outcome = following.outcome(60)
    assert outcome is not None and outcome.problem is None and outcome.place == "https://w.test/run"
    assert shown(client) == [1, 2] and following.outcome() is outcome
