"""On which addresses the processes of a run listen, as the kernel sees them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

import warm
from lambert.corpus.store import Corpus

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc"),
]
LISTENING = "0A"


def family(process: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        lists = [file.read_text() for file in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:  # it has just ended
        return []
    return [process, *(one for text in lists for child in text.split() for one in family(int(child)))]


def listening(processes: Sequence[int]) -> set[str]:
    """The addresses on which these processes and their children listen; words of /proc are in host byte order."""
    held = set()
    for process in [one for parent in processes for one in family(parent)]:
        for file in Path(f"/proc/{process}/fd").glob("*"):
            try:
                held.add(os.readlink(file))
            except OSError:
                continue
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in held:
                address = bytes.fromhex(fields[1].partition(":")[0])
                words = [address[i : i + 4] for i in range(0, len(address), 4)]
                found.add(str(ip_address(b"".join(word[::-1] for word in words))))
    return found


def seen_until_the_end(processes: Sequence[int], is_over: Callable[[], bool]) -> set[str]:
    seen: set[str] = set()
    while not is_over():
        seen |= listening(processes)
        time.sleep(0.02)
    return seen


def options(corpus: Corpus, out: Path) -> list[str]:
    sizes = ["--model", "2x32", "--batch-size", "8", "--micro-batch-size", "4", "--sequence-lengths", "32", "64"]
    quick = ["--samples", "160", "--evaluation-samples", "0", "--probe-seconds", "0", "--optimizer", "adamw"]
    return ["pretrain", "--corpus", str(corpus.path), "--out", str(out), *sizes, *quick]


def test_processes_of_one_machine_listen_on_loopback_alone(tmp_path: Path, small_corpus: Corpus) -> None:
    """The launcher's store, and what the ranks open to each other."""
    command = [sys.executable, "-m", "lambert", *options(small_corpus, tmp_path / "run"), "--processes", "2"]
    environment = {name: value for name, value in os.environ.items() if name != "GLOO_SOCKET_IFNAME"}
    said = tmp_path / "said"
    with said.open("w") as file:
        run = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    seen = seen_until_the_end([run.pid], lambda: run.poll() is not None)
    assert run.returncode == 0, said.read_text()
    assert seen == {"127.0.0.1"}


@pytest.mark.parametrize("host", ["localhost", "192.0.2.77"])
def test_so_does_the_store_of_the_first_of_processes_started_by_hand(
    tmp_path: Path, small_corpus: Corpus, host: str
) -> None:
    """All ranks are on this machine, so MASTER_ADDR is not used, as it might be an address that others reach."""
    words, output = options(small_corpus, tmp_path / "run"), tmp_path / "said"
    ranks = warm.start_ranks(None, words, output, environment={"MASTER_ADDR": host})
    pids = [rank.pid for rank in ranks if rank.pid is not None]
    seen = seen_until_the_end(pids, lambda: all(rank.exitcode is not None for rank in ranks))
    assert [rank.exitcode for rank in ranks] == [0, 0], output.read_text()
    assert seen == {"127.0.0.1"}
