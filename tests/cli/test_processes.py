"""Several processes: started, told to stop, killed, hung, and started again; all from outside, as people see it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lambert.corpus.store import Corpus
from lambert.training.checkpoint.format import load_checkpoint
from process_state import has_ended

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
OPTIONS = [
    *("--model", "2x32", "--batch-size", "8", "--micro-batch-size", "2", "--sequence-lengths", "32", "64"),
    *("--evaluation-samples", "0", "--checkpoint-steps", "5", "--probe-seconds", "0", "--samples"),
]
QUICK_TO_START = ["--optimizer", "adamw"]
"""Where nothing is asked of LAMB: its kernels take seconds to compile."""


@pytest.mark.parametrize(
    "case", ["kills", "numbers", *(pytest.param(case, marks=pytest.mark.slow) for case in ("signals", "worlds"))]
)
def test_the_short_form_of_the_faults(case: str) -> None:
    command = [sys.executable, str(BENCHMARKS / "faults.py"), "--quick", "--only", case]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    (row,) = json.loads(ended.stdout.splitlines()[-1])["rows"]
    assert row["good"] == row["done"] > 0, ended.stdout
    if case == "kills":
        assert row["kills"] == 6 and row["where"].keys() == {"step", "write", "sync", "rename", "delete", "outside"}
        # A kill while a checkpoint is written costs the interval before it too.
        assert row["most_steps_redone"] < 2 * row["save_interval"]
    if case == "signals":
        assert row["most_seconds"] < 30


def records(run: Path) -> list[dict[str, Any]]:
    journal = run / "journal.jsonl"
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def workers(launcher: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True, check=False).stdout
    return [one for one in map(int, found.split()) if "pretrain" in Path(f"/proc/{one}/cmdline").read_text()]


@pytest.fixture
def two_processes(tmp_path: Path, small_corpus: Corpus) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a run of two processes, far from its end when it is looked at; what is left of it is killed afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start(*more: str, samples: int = 80_000) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lambert", "pretrain", "--corpus", str(small_corpus.path), "--out"]
        command += [str(tmp_path / "run"), *OPTIONS, str(samples), "--processes", "2", *QUICK_TO_START, *more]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        started.append(process)
        wait_for(lambda: any(record["event"] == "checkpoint" for record in records(tmp_path / "run")), process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_killed_process_is_named_and_all_are_started_again(
    tmp_path: Path, two_processes: Callable[..., subprocess.Popen[str]]
) -> None:
    process = two_processes()
    os.kill(workers(process.pid)[1], signal.SIGKILL)
    wait_for(lambda: sum(record["event"] == "run" for record in records(tmp_path / "run")) == 2, process)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "process 1 was ended by SIGKILL: starting all again from the last checkpoint (1 of 3 times)" in output
    assert "Traceback" not in output
    first, second = (record for record in records(tmp_path / "run") if record["event"] == "run")
    assert first["resumed_from_step"] == 0 and second["resumed_from_step"] >= 5


def test_a_process_that_hangs_is_named_in_time(two_processes: Callable[..., subprocess.Popen[str]]) -> None:
    process = two_processes("--timeout-minutes", "0.2", "--restarts", "0")
    sound, hung = workers(process.pid)
    began = time.monotonic()
    os.kill(hung, signal.SIGSTOP)
    assert process.stdout is not None
    told = next(line for line in process.stdout if "has no heartbeat" in line)
    assert time.monotonic() - began < 60  # 12 s of time-out, some seconds to look around, a busy machine
    assert told.startswith("lambert: process 1 on ") and "the same command" in told
    while not has_ended(sound) and time.monotonic() - began < 90:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.kill(hung, signal.SIGKILL)  # not before: the launcher's code is that of the first to end
    process.communicate(timeout=60)
    assert process.returncode == 4


def test_wrong_numbers_are_refused_before_anything_starts(small_corpus: Corpus, tmp_path: Path) -> None:
    from lambert.cli.main import main

    command = ["pretrain", "--corpus", str(small_corpus.path), "--out", str(tmp_path / "run"), *OPTIONS, "80"]
    for more in (["--processes", "-1"], ["--threads", "5000"], ["--restarts", "-2"], ["--timeout-minutes", "0"]):
        assert main([*command, *more]) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--processes", "3", "--deterministic"], "--deterministic start 1 or 2 or 4"),
        (["--processes", "3", "--micro-batch-size", "4"], "3 processes share 2 micro-batches"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_one_process(
    small_corpus: Corpus, tmp_path: Path, more: list[str], told: str
) -> None:
    command = [sys.executable, "-m", "lambert", "pretrain", "--corpus", str(small_corpus.path), "--out"]
    command += [str(tmp_path / "run"), *OPTIONS, "80", *more]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 2 and ended.stderr.count(told) == 1, ended.stderr
    assert "torch/distributed" not in ended.stderr, ended.stderr


def test_a_model_cut_over_processes_makes_the_same_steps(small_corpus: Corpus, tmp_path: Path) -> None:
    """Ten steps, the last once more from the checkpoint before it, beside a process that has the whole model."""
    from lambert.cli.main import main

    def words(run: Path, *more: str) -> list[str]:
        options = [*OPTIONS, "80", "--precision", "float32", "--learning-rate", "0.01"]
        return ["pretrain", "--corpus", str(small_corpus.path), "--out", str(run), *options, *more]

    assert main(words(tmp_path / "alone")) == 0
    cut = tmp_path / "cut"
    for sitting in range(2):
        command = [sys.executable, "-m", "lambert", *words(cut, "--processes", "2", "--shard", "--restarts", "0")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == 0, ended.stderr
        assert "sharded over the ranks, as gradients and moments are (--shard)" in ended.stdout
        one, other = (load_checkpoint(run, 10) for run in (tmp_path / "alone", cut))
        for part in ("model", "optimizer"):
            assert one.tensors[part].keys() == other.tensors[part].keys()
            for name, tensor in one.tensors[part].items():
                if "key_value.bias" not in name:  # a third of it has no gradient but rounding
                    torch.testing.assert_close(other.tensors[part][name], tensor, rtol=1e-3, atol=1e-6, msg=name)
        if sitting == 0:
            shutil.rmtree(cut / "checkpoints" / "step-10")
    assert [record["resumed_from_step"] for record in records(cut) if record["event"] == "run"] == [0, 9]
    noisy = {
        run: [record for record in records(run) if record["event"] == "noise"] for run in (tmp_path / "alone", cut)
    }
    assert noisy[tmp_path / "alone"] and not noisy[cut]  # what FSDP2 has not summed yet cannot be seen


def test_a_cut_that_cannot_be_is_refused(small_corpus: Corpus, tmp_path: Path) -> None:
    for more, told in ((["--deterministic"], "Leave out --shard or --deterministic"), ([], "divides them evenly")):
        command = [sys.executable, "-m", "lambert", "pretrain", "--corpus", str(small_corpus.path), "--out"]
        command += [str(tmp_path / "run"), *OPTIONS, "80", "--processes", "3", "--shard", *more]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode == 2 and ended.stderr.count(told) == 1, ended.stderr
