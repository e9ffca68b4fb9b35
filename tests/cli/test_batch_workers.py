"""Processes that make batches: none outlives its run, however that ends, and one that is killed ends it with a word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lambert.corpus.store import Corpus

HANG_SECONDS = 240
OPTIONS = ("--model", "1x32", "--batch-size", "8", "--samples", "8000000", "--sequence-lengths", "32")
OPTIONS += ("--evaluation-samples", "0", "--probe-seconds", "0", "--precision", "float32", "--optimizer", "adamw")

pytestmark = [pytest.mark.integration, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


def steps(run: Path) -> int:
    journal = run / "journal.jsonl"
    return journal.read_text().count('"event": "step"') if journal.exists() else 0


def children(pid: int) -> list[int]:
    """The processes that make the batches of a run."""
    found = [int(one) for one in Path(f"/proc/{pid}/task").glob("*/children") for one in one.read_text().split()]
    return [one for one in found if b"lambert.data.workers" in Path(f"/proc/{one}/cmdline").read_bytes()]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def started(tmp_path: Path, small_corpus: Corpus) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A run far from its end, in a group of its own, and its two processes."""
    command = [sys.executable, "-m", "lambert", "pretrain", "--corpus", str(small_corpus.path), *OPTIONS]
    command += ["--out", str(tmp_path / "run"), "--data-workers", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: steps(tmp_path / "run") > 3 or process.poll() is not None)
    own = children(process.pid)
    yield process, own
    process.kill()
    process.communicate()


def test_signals_to_all_of_them_save_the_run_and_leave_none(
    tmp_path: Path, started: tuple[subprocess.Popen[str], list[int]]
) -> None:
    """As Ctrl-C and a scheduler send them: the processes go on until the run has stopped."""
    process, workers = started
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    before = steps(tmp_path / "run")
    wait_for(lambda: steps(tmp_path / "run") > before + 10 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 130 and "saved at step" in out
    assert error.count("\n") == 1 and "stopping after this step and saving" in error
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_a_killed_process_ends_the_run_with_a_word_and_no_hang(
    started: tuple[subprocess.Popen[str], list[int]],
) -> None:
    process, workers = started
    os.kill(workers[0], signal.SIGKILL)
    _, error = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 3 and "Traceback" not in error
    assert f"process {workers[0]}, which makes batches, was killed by SIGKILL" in error and "--data-workers" in error
    assert not Path(f"/proc/{workers[1]}").exists()


def test_none_outlives_a_run_that_is_killed(started: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, workers = started
    process.kill()
    wait_for(lambda: not any(is_alive(worker) for worker in workers))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
