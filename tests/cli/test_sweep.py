"""A small sweep from its file to its table; stopped, resumed, and nothing run twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lambert.cli.main import main
from lambert.corpus.store import Corpus
from process_state import has_ended

FILE = """
[run]
corpus = "{corpus}"
model = "1x32"
samples = {samples}
sequence_lengths = [16, 32]
precision = "float32"
micro_batch_size = 4
evaluation_samples = 32
checkpoint_steps = 5

[grid]
optimizers = ["adamw", "muon"]
batch_sizes = [8]
seeds = {seeds}
"""


def write(folder: Path, corpus: Corpus, *, samples: int = 160, seeds: str = "[0, 1]", more: str = "") -> Path:
    file = folder / "sweep.toml"
    file.write_text(FILE.format(corpus=corpus.path, samples=samples, seeds=seeds) + more)
    return file


def journals(out: Path) -> dict[str, list[dict[str, object]]]:
    return {
        path.parent.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(out.glob("trials/*/journal.jsonl"))
    }


def test_a_sweep_makes_a_table_and_runs_nothing_twice(
    small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", str(write(tmp_path, small_corpus)), "--out", str(tmp_path / "out"), "--jobs", "2", "--json"]
    assert main(words) == 0
    output = capsys.readouterr().out
    assert "4 runs, 2 at a time: about" in output and "±" in output
    results = json.loads(output.splitlines()[-1])
    configs = results["configurations"]
    found = [(config["optimizer"], config["loss"]["seeds"], config["diverged"]) for config in configs]
    assert found == [("adamw", 2, 0), ("muon", 2, 0)]
    assert results["left"] == []
    for name in ("table.json", "loss_by_batch.svg", "report.html"):
        assert (tmp_path / "out" / name).stat().st_size > 500
    before = journals(tmp_path / "out")
    assert main(words) == 0
    assert "4 already done; 0 runs" in capsys.readouterr().out
    assert journals(tmp_path / "out") == before
    losses = {trial["trial"]["optimizer"] + str(trial["trial"]["seed"]): trial["loss"] for trial in results["trials"]}
    for name, events in before.items():
        optimizer, _, _, seed = name.split("_")
        evaluation = [event for event in events if event["event"] == "evaluation"][-1]
        assert losses[optimizer + seed[1:]] == evaluation["mlm_loss"]


def start_until(words: list[str], is_so: Callable[[], bool]) -> subprocess.Popen[bytes]:
    """Start the command, and wait until something is so; the command must not end before."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not is_so():
        assert process.poll() is None, "ended before it was stopped"
        time.sleep(0.1)
    return process


def test_a_sweep_that_is_stopped_resumes_the_trial_it_was_in(small_corpus: Corpus, tmp_path: Path) -> None:
    """The trial is far longer than any test: no processor ends it before the stop."""
    file, out = write(tmp_path, small_corpus, samples=4_000_000, seeds="[0]"), tmp_path / "out"
    words = [sys.executable, "-m", "lambert", "sweep", str(file), "--out", str(out), "--jobs", "1"]

    def sessions() -> list[dict[str, object]]:
        return [event for events in journals(out).values() for event in events if event["event"] == "run"]

    first = start_until(words, lambda: any(out.glob("trials/*/checkpoints/step-*")))
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "another sweep runs in" in again.stderr
    first.send_signal(signal.SIGTERM)
    assert first.wait() == 130 and len(sessions()) == 1
    second = start_until(words, lambda: len(sessions()) > 1)
    second.send_signal(signal.SIGTERM)
    assert second.wait() == 130
    assert len(journals(out)) == 1 and sessions()[1]["resumed_from_step"]


def test_the_trials_of_a_killed_sweep_save_and_end_with_it(small_corpus: Corpus, tmp_path: Path) -> None:
    """And the same command waits for them and goes on."""
    file, out = write(tmp_path, small_corpus, samples=4_000_000, seeds="[0]"), tmp_path / "out"
    words = [sys.executable, "-m", "lambert", "sweep", str(file), "--out", str(out), "--jobs", "1"]
    first = start_until(words, lambda: any(b'"step"' in log.read_bytes() for log in out.glob("trials/*/journal.jsonl")))
    children = [int(child) for child in Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()]
    assert children
    first.kill()
    first.wait()
    second = start_until(
        words, lambda: sum(event["event"] == "run" for one in journals(out).values() for event in one) > 1
    )
    assert all(has_ended(child) for child in children)
    second.send_signal(signal.SIGTERM)
    assert second.wait() == 130
    (events,) = journals(out).values()
    sessions = [event for event in events if event["event"] == "run"]
    assert sessions[1]["resumed_from_step"] == max(
        e["step"] for e in events[: events.index(sessions[1])] if "step" in e
    )


def test_a_sweep_that_is_stopped_while_it_plans_leaves_no_plan_behind(small_corpus: Corpus, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "lambert",
        "sweep",
        str(write(tmp_path, small_corpus)),
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while not (plans := children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert plans
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert all(has_ended(int(plan)) for plan in plans)


def test_a_budget_leaves_trials_out_and_says_which(
    small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, small_corpus, samples=2_000_000, seeds="[0]")
    words = ["sweep", str(file), "--out", str(tmp_path / "out"), "--budget-hours", "0.001"]
    assert main(words) == 2
    assert "a budget of 0.001 hours is too short for any of 2 runs; the shortest takes about" in capsys.readouterr().err
    assert not journals(tmp_path / "out")
    assert main([*words, "--dry-run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["left"]) == 2


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--jobs", "-1"], "-1 jobs"),
        (["--threads", "0"], "0 threads"),
        (["--budget-hours", "0"], "a budget of 0.0 hours"),
    ],
)
def test_wrong_numbers(
    more: list[str], expected: str, small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(write(tmp_path, small_corpus)), "--out", str(tmp_path / "out"), *more]) == 2
    assert expected in capsys.readouterr().err


def test_a_trial_that_cannot_be_run_ends_the_sweep_before_it_begins(
    small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = '\n[[grid]]\noptimizers = "lamb"\nbatch_sizes = 5000000\n'
    text = write(tmp_path, small_corpus).read_text().replace("[grid]", "[[grid]]")
    (tmp_path / "sweep.toml").write_text(text + more)
    assert main(["sweep", str(tmp_path / "sweep.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "trial lamb_b5000000_x1_s0 cannot be run" in capsys.readouterr().err
    assert not journals(tmp_path / "out")


STAND_IN = """
import json, os, pathlib
class errors:
    class Error(Exception):
        pass
def Settings(**settings):
    return settings
class Run:
    starting_step, dir = 0, "offline/files"
    def define_metric(self, *names, **how):
        pass
    def log(self, values, step):
        pass
    def finish(self):
        pass
def init(**given):
    told = {"name": given["name"], "config": given["config"], "group": os.environ.get("WANDB_RUN_GROUP")}
    pathlib.Path(__file__).with_name(given["name"] + ".json").write_text(json.dumps(told))
    return Run()
"""
"""Of W&B's client, which reads the group from that variable."""


@pytest.mark.integration
def test_every_trial_is_a_run_of_the_dashboards_with_its_settings(
    small_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    package, board, out = tmp_path / "packages" / "wandb", tmp_path / "board", tmp_path / "first"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("WANDB_RUN_GROUP", "")
    words = ["sweep", str(write(tmp_path, small_corpus, samples=80, seeds="[3]")), "--out", str(out), "--jobs", "2"]
    assert main([*words, "--tensorboard", str(board), "--wandb", "my-project"]) == 0, capsys.readouterr().err
    names = ["adamw_b8_x1_s3", "muon_b8_x1_s3"]
    assert sorted(path.name for path in (board / "first").iterdir()) == names
    told = {path.stem: json.loads(path.read_text()) for path in package.glob("*.json")}
    for name in names:
        steps = [event for event in journals(out)[name] if event["event"] == "step"]
        shown = reader.EventAccumulator(str(board / "first" / name))
        shown.Reload()
        assert [one.step for one in shown.Scalars("train/loss")] == [event["step"] for event in steps]
        assert [one.value for one in shown.Scalars("train/loss")] == pytest.approx([event["loss"] for event in steps])
        recipe = shown.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
        optimizer = name.split("_")[0]
        assert f'"optimizer": "{optimizer}"' in recipe and '"seed": 3' in recipe
        assert (told[name]["group"], told[name]["config"]["optimizer"]) == ("first", optimizer)
        assert "tensorboard" not in (out / "trials" / name / "recipe.toml").read_text()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--wandb-mode", "offline"], "--wandb-mode without --wandb"),
        (["--tensorboard", "{file}"], "cannot be written"),
        (["--mlflow", "localhost:5000"], "mlflow"),
    ],
)
def test_a_dashboard_that_cannot_work_ends_the_sweep_before_it_begins(
    more: list[str], expected: str, small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, small_corpus)
    words = [word.format(file=file) for word in more]
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), *words]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
