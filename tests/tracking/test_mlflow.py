"""What MLflow is told: by a stand-in for its client, and by the client itself where it is installed."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lambert.cli.main import main
from lambert.cli.sweep_trackers import check_trackers, group_variables, with_trackers
from lambert.experiments.grid import Sweep, Trial
from lambert.tracking import mlflow as ours
from lambert.tracking.follow import Metrics, RunFacts
from tracking.journals import END, RUN, append, evaluation, step, write


class MlflowException(Exception):
    pass


@dataclass
class StandInRun:
    info: Any
    tags: dict[str, str]
    points: list[tuple[str, float, int, int]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    status: str = "RUNNING"

    @property
    def data(self) -> Any:
        return SimpleNamespace(tags=self.tags)


@dataclass
class Server:
    """What the stand-in keeps, as a server would; `fails_after` requests with metrics it is gone."""

    runs: list[StandInRun] = field(default_factory=list)
    experiments: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    fails_after: int = 1_000_000


def client_of(server: Server) -> type:
    class MlflowClient:
        def __init__(self, tracking_uri: str) -> None:
            server.addresses.append(tracking_uri)

        def get_experiment_by_name(self, name: str) -> Any:
            known = name in server.experiments
            return SimpleNamespace(experiment_id=str(server.experiments.index(name))) if known else None

        def create_experiment(self, name: str) -> str:
            server.experiments.append(name)
            return str(len(server.experiments) - 1)

        def search_runs(self, experiments: list[str], condition: str) -> list[StandInRun]:
            tag, _, value = condition.partition(" = ")
            name = tag.removeprefix("tags.`").removesuffix("`")
            return [run for run in server.runs if run.tags.get(name) == value.strip("'")]

        def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> StandInRun:
            info = SimpleNamespace(run_id=f"{run_name}{len(server.runs)}", experiment_id=experiment)
            server.runs.append(StandInRun(info, dict(tags)))
            return server.runs[-1]

        def update_run(self, run_id: str, status: str) -> None:
            self._run(run_id).status = status

        set_terminated = update_run

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
            run = self._run(run_id)
            if metrics and len(server.batches) >= server.fails_after:
                raise MlflowException("no answer from http://me:secret@host/api")
            assert len(metrics) <= 1_000 and len(params) <= 100
            for name, value in params:
                assert run.params.setdefault(name, value) == value, "params never change"
            server.batches += [len(metrics)] if metrics else []
            run.points += metrics
            run.tags.update(tags)

        def _run(self, run_id: str) -> StandInRun:
            return next(run for run in server.runs if run.info.run_id == run_id)

    return MlflowClient


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    kept, module, exceptions, entities = Server(), *map(ModuleType, ("mlflow", "mlflow.exceptions", "mlflow.entities"))
    module.MlflowClient = client_of(kept)  # type: ignore[attr-defined]
    exceptions.MlflowException = MlflowException  # type: ignore[attr-defined]
    entities.Metric = entities.Param = entities.RunTag = lambda *values: values  # type: ignore[attr-defined]
    for one in (module, exceptions, entities):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    monkeypatch.setattr(ours, "find_spec", lambda name: None if name == "sqlalchemy" else module)
    for name in [name for name in os.environ if name.startswith("MLFLOW")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return kept


def test_a_later_call_continues_the_same_run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = tmp_path / "mine", tmp_path / "ml"
    write(run, [RUN, step(1, 3.0), step(2, 2.0), evaluation(2, 5.5)])
    (run / "recipe.toml").write_text('seed = 7\ncommand = ""\n[[phases]]\nsteps = 4\n')
    command = ["track", str(run), "--mlflow", str(folder), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mlflow"] == str(folder / "0" / "mine0")
    (one,) = server.runs
    assert one.params == {"seed": "7", "phases.1.steps": "4"} and one.status == "RUNNING"
    assert [point for point in one.points if point[0] == "train/loss"] == [
        ("train/loss", 3.0, 102_000, 1), ("train/loss", 2.0, 103_000, 2),
    ]  # fmt: skip
    assert one.points[-2:] == [("held_out/mlm_loss", 5.5, 110_000, 2), ("held_out/unigram_loss", 6.0, 110_000, 2)]
    assert server.experiments == ["lambert"] and server.addresses == [folder.as_uri()]

    before = list(one.points)
    assert main(command) == 0 and one.points == before
    append(run, [RUN | {"resumed_from_step": 1}, step(2, 2.0), step(3, 1.0), END])
    assert main(command) == 0 and one.status == "FINISHED" and len(server.runs) == 1
    assert [point[3] for point in one.points if point[0] == "train/loss"] == [1, 2, 3]

    write(run, [RUN | {"time": 500.0}, step(1, 9.0)])
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "others")
    assert main(command) == 0 and len(server.runs) == 2 and server.experiments == ["lambert", "others"]


def test_a_request_says_how_far_it_goes(server: Server, tmp_path: Path) -> None:
    """However many metrics wait, and wherever the server is lost: each arrives once."""
    facts = RunFacts("mine", "5eed", {})
    lost = 0
    while True:
        server.fails_after = len(server.batches) + 1
        sink = ours.MLflowSink(tmp_path)
        done = sink.begin(facts)
        for record in range(done + 1, 11):
            values = {f"trust_ratio/layer[{number}]": 1.0 for number in range(300 if record < 10 else 900)}
            sink.add(record, Metrics(record, 100.0, values))
        try:
            sink.flush(12)
            break
        except MlflowException:
            lost += 1
        assert lost < 20
    (one,) = server.runs
    assert lost == 3 and one.tags["lambert.records"] == "12"
    points = [(name, number) for name, _, _, number in one.points]
    assert len(points) == len(set(points)) and {number for _, number in points} == set(range(1, 11))
    server.fails_after, server.batches[:] = 1_000, []
    sink.add(13, Metrics(13, 100.0, {f"trust_ratio/layer[{number}]": 1.0 for number in range(2_500)}))
    sink.flush(13)
    assert server.batches == [1_000, 1_000, 500] and len(one.points) == len(points) + 2_500
    assert "trust_ratio/layer.7" in dict(points) and sum(number == 10 for _, number in points) == 900


def test_what_is_wrong_is_said_in_one_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [RUN, step(1, 3.0)])

    def refused(uri: str) -> str:
        assert main(["track", str(tmp_path), "--mlflow", uri]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "'localhost:5000' is neither a folder nor a tracking URI" in refused("localhost:5000")
    assert "'' is neither" in refused("")
    assert "http:// is no address" in refused("http://")
    assert "http://host:no is no address" in refused("http://me:secret@host:no")
    assert "is a database, which needs the whole of MLflow" in refused("sqlite:///runs.db")
    (tmp_path / "file").touch()
    assert "file cannot be written" in refused(str(tmp_path / "file"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nothing answers
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"no server answers at http://{address}" in refused(f"http://me:secret@{address}")
    server.fails_after = 0
    assert "MLflow failed (no answer from http://host/api)" in refused(str(tmp_path / "ml"))
    monkeypatch.setattr(ours, "find_spec", lambda name: None)
    assert "pip install 'lambert-bert[mlflow]'" in refused(str(tmp_path / "ml"))


def test_a_server_is_asked_and_named(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "mine", [RUN, step(1, 3.0)])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert main(["track", str(tmp_path / "mine"), "--mlflow", f"http://me:secret@127.0.0.1:{port}/"]) == 0
    assert server.addresses == [f"http://me:secret@127.0.0.1:{port}/"]
    told = capsys.readouterr()
    assert f"MLflow: http://127.0.0.1:{port}/#/experiments/0/runs/mine0\n" in told.out
    assert "secret" not in told.out + told.err


@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow-skinny is not installed")
def test_what_mlflow_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    run, folder = tmp_path / "mine", tmp_path / "ml"
    ratios = {"event": "trust_ratios", "time": 104.0, "step": 2, "trust_ratios": {"qkv.weight[0]": 0.5}}
    write(run, [RUN, step(1, 3.0), step(2, 2.0), ratios])
    (run / "recipe.toml").write_text("seed = 7\n")
    assert main(["track", str(run), "--mlflow", str(folder)]) == 0
    append(run, [RUN | {"resumed_from_step": 1}, step(2, 2.0), step(3, 1.0), END])
    assert main(["track", str(run), "--mlflow", str(folder)]) == 0
    from mlflow import MlflowClient

    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    client = MlflowClient(tracking_uri=folder.as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("lambert").experiment_id])
    assert found.data.params == {"seed": "7"} and found.info.status == "FINISHED" and found.info.run_name == "mine"
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in history] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert found.data.metrics["trust_ratio/qkv.weight.0"] == 0.5


def test_the_experiment_of_a_sweep_is_made_before_its_runs(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that start together would each make one."""
    trials = (Trial("adamw", (8,), "sqrt", 1.0, 0),)
    out = tmp_path / "first"
    sweep = with_trackers(Sweep({}, trials), {"mlflow": str(tmp_path / "ml")}, out)
    assert sweep.options == {"mlflow": str(tmp_path / "ml")}
    check_trackers(sweep, out, starts=False)
    assert server.experiments == []
    for _ in range(2):
        check_trackers(sweep, out, starts=True)
        assert server.experiments == ["first"]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert group_variables(out) == {"WANDB_RUN_GROUP": "first"}
    check_trackers(sweep, out, starts=True)
    assert server.experiments == ["first", "mine"]
