"""Several processes: started, told to stop, killed, hung, and started again; all from outside, as people see it."""

from __future__ import annotations

import contextlib
import json
import os
import re
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

import warm
from lambert.corpus.store import Corpus
from lambert.training.checkpoint.format import load_checkpoint
from process_state import has_ended

TENSORS = ("model.safetensors", "optimizer.safetensors")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
OPTIONS = [
    *("--model", "2x32", "--batch-size", "8", "--micro-batch-size", "2", "--sequence-lengths", "32", "64"),
    *("--evaluation-samples", "0", "--checkpoint-steps", "5", "--probe-seconds", "0", "--samples"),
]
QUICK_TO_START = ["--optimizer", "adamw"]
"""Where nothing is asked of LAMB: its kernels take seconds to compile."""
HANG_SECONDS = 600
"""After which something hangs, on the busiest machine. No test waits so long for what it expects."""


pytestmark = pytest.mark.integration


@pytest.mark.slow
@pytest.mark.parametrize("case", ["kills", "numbers", "signals", "worlds"])
def test_the_short_form_of_the_faults(case: str) -> None:
    command = [sys.executable, str(BENCHMARKS / "faults.py"), "--quick", "--only", case]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * HANG_SECONDS)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    (row,) = json.loads(ended.stdout.splitlines()[-1])["rows"]
    assert row["good"] == row["done"] > 0, ended.stdout
    if case == "kills":
        assert row["kills"] == 6 and row["where"].keys() == {"step", "write", "sync", "rename", "delete", "outside"}
        # A kill while a checkpoint is written costs the interval before it too.
        assert row["most_steps_redone"] < 2 * row["save_interval"]
    if case == "signals":
        assert row["most_seconds"] < 30


class Faulty:
    """Runs of two processes that something happens to (benchmarks/fault_worker.py), each to its end."""

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        self.folder, self.corpus = folder, corpus

    def __call__(self, name: str, fault: dict[str, Any], *more: str) -> list[int]:
        """The codes of both processes in one session of the run `name`."""
        words = ["pretrain", "--corpus", str(self.corpus.path), "--out", str(self.folder / name), *OPTIONS, "160"]
        words += ["--learning-rate", "0.01", "--precision", "float32", *more]
        self.output = self.folder / f"{name}.txt"
        told = {"FAULT": json.dumps(fault | {"log": str(self.folder / "log")} if fault else {})}
        return warm.run_ranks(BENCHMARKS / "fault_worker.py", words, self.output, environment=told)


@pytest.fixture
def faulty(tmp_path: Path, small_corpus: Corpus) -> Faulty:
    return Faulty(tmp_path, small_corpus)


def test_killed_in_a_step_and_in_a_write_two_processes_end_in_the_same_weights(tmp_path: Path, faulty: Faulty) -> None:
    """The same command goes on each time; bit for bit."""
    assert faulty("whole", {}) == [0, 0], faulty.output.read_text()
    for rank, stage, count in ((1, "step", 8), (0, "write", 2), (0, "delete", 1)):
        codes = faulty("killed", {"rank": rank, "stage": stage, "count": count})
        assert codes[rank] == -signal.SIGKILL, faulty.output.read_text()
    assert faulty("killed", {}) == [0, 0], faulty.output.read_text()
    assert [json.loads(line)["stage"] for line in (tmp_path / "log").read_text().splitlines()] == [
        "step", "write", "delete"
    ]  # fmt: skip
    sessions = [record["resumed_from_step"] for record in records(tmp_path / "killed") if record["event"] == "run"]
    assert len(sessions) == 4 and sessions[0] == 0 and sessions[1] == 5
    whole, killed = (tmp_path / name / "huggingface" / "model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


def test_a_loss_that_is_no_number_in_one_process_changes_nothing_anywhere(tmp_path: Path, faulty: Faulty) -> None:
    fault = {"rank": 1, "stage": "nan", "count": 7, "steps": 2}
    assert faulty("run", fault, "--checkpoint-steps", "1", "--keep-last", "100") == [0, 0], faulty.output.read_text()
    assert [record["step"] for record in records(tmp_path / "run") if record["event"] == "skipped"] == [7, 8]
    before, *after, later = (
        [(tmp_path / "run" / "checkpoints" / f"step-{step}" / name).read_bytes() for name in TENSORS]
        for step in (6, 7, 8, 9)
    )
    assert after == [before, before] and later != before


def records(run: Path) -> list[dict[str, Any]]:
    journal = run / "journal.jsonl"
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
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

    def start(*more: str, samples: int = 80_000_000) -> subprocess.Popen[str]:
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
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 143
    assert "process 1 was ended by SIGKILL: restarting all from the last checkpoint (1 of 3 times)" in output
    assert "Traceback" not in output
    first, second = (record for record in records(tmp_path / "run") if record["event"] == "run")
    assert first["resumed_from_step"] == 0 and second["resumed_from_step"] >= 5


def is_asked_to_stop(process: int) -> bool:
    """Whether SIGTERM waits for a stopped process; True for one that has ended."""
    with contextlib.suppress(OSError):
        pending = re.search(r"^ShdPnd:\s*(\w+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
        return pending is None or bool(int(pending[1], 16) >> (signal.SIGTERM - 1) & 1)
    return True


def test_a_process_that_hangs_is_named_in_time(two_processes: Callable[..., subprocess.Popen[str]]) -> None:
    process = two_processes("--timeout-minutes", "0.3", "--restarts", "0")
    sound, hung = workers(process.pid)
    began = time.monotonic()
    os.kill(hung, signal.SIGSTOP)
    assert process.stdout is not None
    told = next(line for line in process.stdout if "has no heartbeat" in line)
    assert time.monotonic() - began < 300  # 18 s were asked for; the default of 600 s would be seen
    assert told.startswith("lambert: process 1 on ") and "the same command" in told
    while not has_ended(sound) or not is_asked_to_stop(hung):
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.kill(hung, signal.SIGKILL)  # not before: the launcher's code is that of the first that it sees end
    process.communicate(timeout=HANG_SECONDS)
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
        pytest.param(
            ["--processes", "3", "--micro-batch-size", "4"], "3 ranks for 2 micro-batches", marks=pytest.mark.slow
        ),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_one_process(
    small_corpus: Corpus, tmp_path: Path, more: list[str], told: str
) -> None:
    command = [sys.executable, "-m", "lambert", "pretrain", "--corpus", str(small_corpus.path), "--out"]
    command += [str(tmp_path / "run"), *OPTIONS, "80", *more]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_SECONDS)
    assert ended.returncode == 2 and ended.stderr.count(told) == 1, ended.stderr
    assert "torch/distributed" not in ended.stderr, ended.stderr


def test_a_model_cut_over_processes_makes_the_same_steps(small_corpus: Corpus, tmp_path: Path) -> None:
    """Ten steps, the last once more from the checkpoint before it, beside a process that has the whole model."""
    from lambert.cli.main import main

    def words(run: Path, *more: str) -> list[str]:
        options = [*OPTIONS, "80", "--precision", "float32", "--learning-rate", "0.01", "--optimizer", "lamb"]
        return ["pretrain", "--corpus", str(small_corpus.path), "--out", str(run), *options, *more]

    assert main(words(tmp_path / "alone")) == 0
    cut = tmp_path / "cut"
    for sitting in range(2):
        output = tmp_path / f"{sitting}.txt"
        codes = warm.run_ranks(None, words(cut, "--shard"), output)
        assert codes == [0, 0], output.read_text()
        assert "sharded over the ranks, as gradients and moments are (--shard)" in output.read_text()
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


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "divides them evenly"),
        pytest.param(["--deterministic"], "Leave out --shard or --deterministic", marks=pytest.mark.slow),
    ],
)
def test_a_cut_that_cannot_be_is_refused(small_corpus: Corpus, tmp_path: Path, more: list[str], told: str) -> None:
    command = [sys.executable, "-m", "lambert", "pretrain", "--corpus", str(small_corpus.path), "--out"]
    command += [str(tmp_path / "run"), *OPTIONS, "80", "--processes", "3", "--shard", *more]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_SECONDS)
    assert ended.returncode == 2 and ended.stderr.count(told) == 1, ended.stderr


@pytest.mark.parametrize("fault", ["altered", "another"])
def test_a_machine_that_reads_another_corpus_is_named(fault: str, small_corpus: Corpus, tmp_path: Path) -> None:
    """Each machine has its own copy, and the one of the second is not what the run's checkpoints are said to hold."""
    hosts = [tmp_path / "first", tmp_path / "second"]
    for host in hosts:
        shutil.copytree(small_corpus.path, host / "corpus")
    if fault == "altered":
        shard = hosts[1] / "corpus" / small_corpus.manifest["shards"][0]["file"]
        content = shard.read_bytes()
        shard.write_bytes(content[:4_096] + bytes(len(content) - 8_192) + content[-4_096:])
    else:
        manifest = json.loads((hosts[1] / "corpus" / "manifest.json").read_text())
        (hosts[1] / "corpus" / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "0" * 64}))
    run, output = tmp_path / "run", tmp_path / "output"
    options = ["pretrain", "--corpus", "corpus", "--out", str(run), *OPTIONS, "800", *QUICK_TO_START]
    ranks = warm.start_ranks(None, options, output, hosts=hosts)
    codes = [warm.code_of(rank) for rank in ranks]
    told = output.read_text()
    assert codes[1] == 2 and codes[0] in (2, 3), told
    assert not (run / "latest").exists() and "Traceback" not in told
    assert re.search(r"lambert: process 1 .*(train.*\.arrow cannot be used: its SHA-256|reads another corpus)", told)
