"""What Weights & Biases is told, by a stand-in for its client."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lambert.cli.main import main
from lambert.tracking import weights_and_biases as ours
from tracking.journals import RUN, append, step, write


class StandInRun:
    """A run that keeps what is logged, as the server would: by its own step."""

    dir = "wandb/run/files"
    url = "https://wandb.ai/me/bert/runs/1"

    def __init__(self, history: dict[int, Any]) -> None:
        self.history = history
        self.starting_step = max(history, default=-1) + 1
        self.axes: list[Any] = []
        self.finished = False

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes.append((name, step_metric))

    def log(self, values: dict[str, Any], step: int) -> None:
        assert step >= max(self.history, default=0)
        self.history[step] = values

    def finish(self) -> None:
        self.finished = True


class StandIn(ModuleType):
    """Of the client's module, what is used."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.Error = type("Error", (Exception,), {})
        self.errors = SimpleNamespace(Error=self.Error)
        self.histories: dict[str, dict[int, Any]] = {}
        self.inits: list[dict[str, Any]] = []
        self.runs: list[StandInRun] = []
        self.fault: Exception | None = None
        self.has_account = True

    def login(self, *, prompt: bool, verify: bool) -> bool:
        assert not prompt and not verify
        return self.has_account

    def Settings(self, **values: Any) -> dict[str, Any]:
        return values

    def init(self, **arguments: Any) -> StandInRun:
        if self.fault is not None:
            raise self.fault
        self.inits.append(arguments)
        self.runs.append(StandInRun(self.histories.setdefault(arguments["id"], {})))
        return self.runs[-1]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setattr(ours, "find_spec", lambda name: stand_in)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return stand_in


def test_offline_unless_told_otherwise(
    client: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "mine"
    write(run, [RUN, step(1, 3.0)])
    (run / "recipe.toml").write_text("seed = 7\n")
    assert main(["track", str(run), "--wandb", "bert", "--json"]) == 0
    told = capsys.readouterr().out
    assert "wandb sync" in told and json.loads(told.splitlines()[-1])["wandb"] == "wandb/run"
    assert main(["track", str(run), "--wandb", "bert", "--wandb-mode", "online"]) == 0
    assert "wandb sync" not in capsys.readouterr().out
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main(["track", str(run), "--wandb", "bert"]) == 0
    assert [one["mode"] for one in client.inits] == ["offline", "online", "disabled"]
    assert client.inits[0]["project"] == "bert" and client.inits[0]["name"] == "mine"
    assert client.inits[0]["config"] == {"seed": 7} and client.inits[1]["resume"] == "allow"
    assert all(one.finished for one in client.runs)
    assert client.runs[0].axes == [("step", None), ("*", "step")]


def test_a_later_call_continues_the_same_run(client: StandIn, tmp_path: Path) -> None:
    write(tmp_path, [RUN, step(1, 3.0), step(2, 2.0)])
    command = ["track", str(tmp_path), "--wandb", "bert", "--wandb-mode", "online"]
    assert main(command) == 0
    # What a resume computes again is the same, and W&B would keep both; what follows a rollback is not.
    append(tmp_path, [RUN | {"resumed_from_step": 1}, step(2, 2.0), step(3, 1.0)])
    assert main(command) == 0 and main(command) == 0
    append(tmp_path, [{"event": "rollback", "step": 3, "to_step": 2}, step(3, 1.5)])
    assert main(command) == 0
    (history,) = client.histories.values()
    assert {place: (values["step"], values["train/loss"]) for place, values in history.items()} == {
        2: (1, 3.0), 3: (2, 2.0), 6: (3, 1.0), 8: (3, 1.5),
    }  # fmt: skip
    write(tmp_path, [RUN | {"time": 500.0}, step(1, 3.0)])
    assert main(command) == 0
    assert len(client.histories) == 2


def test_what_is_wrong_is_said_in_one_line(
    client: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [RUN, step(1, 3.0)])
    client.has_account = False
    assert main(["track", str(tmp_path), "--wandb", "bert", "--wandb-mode", "online"]) == 2
    assert "no API key is configured" in capsys.readouterr().err and not client.inits
    client.has_account = True
    client.fault = client.Error("no API key")
    assert main(["track", str(tmp_path), "--wandb", "bert", "--wandb-mode", "online"]) == 2
    assert "could not be started (no API key)" in capsys.readouterr().err
    assert main(["track", str(tmp_path), "--wandb", "bert", "--wandb-mode", "ofline"]) == 2
    assert "Did you mean 'offline'?" in capsys.readouterr().err
    for words in (["track", str(tmp_path)], ["pretrain", "--corpus", "x", "--out", "y"]):
        assert main([*words, "--wandb-mode", "online"]) == 2
        assert "--wandb-mode without --wandb" in capsys.readouterr().err
    assert main(["track", str(tmp_path)]) == 2
    assert "no --tensorboard, --wandb or --mlflow" in capsys.readouterr().err
    monkeypatch.setattr(ours, "find_spec", lambda name: None)
    assert main(["track", str(tmp_path), "--wandb", "bert"]) == 2
    assert "pip install 'lambert-bert[wandb]'" in capsys.readouterr().err
