"""A lost rank is named with host and cause, even if the store is unreachable."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import warm
from lambert.errors import PeerLost
from lambert.training.distributed import heartbeat as module
from lambert.training.distributed.heartbeat import HeartbeatMonitor
from lambert.training.distributed.process_group import init_process_group

ERROR = RuntimeError("Timed out waiting 18000ms for recv operation\nand more lines")


class Store:
    """A store in this process."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.fault = ""
        self.questions = self.writes = self.bytes_read = 0
        self.over = threading.Event()

    def _meet_fault(self) -> None:
        if self.fault == "hangs":
            self.over.wait(60)
        if self.fault:
            raise RuntimeError("Connection reset by peer")

    def set(self, key: str, value: str) -> None:
        self._meet_fault()
        self.writes += 1
        self.content[key] = value.encode()

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self._meet_fault()
        self.questions += 1
        found = [self.content[key] for key in keys]
        self.bytes_read += sum(map(len, found))
        return found


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(module, "_STORE_SECONDS", 1.0)
    made = Store()
    yield made
    made.over.set()


def join(store: Store, rank: int, count: int = 3, **options: Any) -> HeartbeatMonitor:
    return HeartbeatMonitor(lambda: store, rank, count, "run/0", where="10.0.0.1:29400", **options)


def stand_still(monitor: HeartbeatMonitor) -> None:
    """As a killed process."""
    monitor._over.set()
    monitor._thread.join()


def test_who_stands_still_is_named_with_its_host(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = join(store, 0), join(store, 1)
    monkeypatch.setattr(socket, "gethostname", lambda: "far-away")
    third = join(store, 2)
    stand_still(third)
    loss = first.diagnose(ERROR)
    assert isinstance(loss, PeerLost) and loss.exit_code == 4
    assert loss.what == "process 2 on far-away has no heartbeat (Timed out waiting 18000ms for recv operation)"
    assert "same command" in loss.remedy
    assert second.diagnose(ERROR).what == loss.what  # told by the first, without another look at all ranks
    first.end()
    second.end()


def test_who_left_word_is_named_with_the_cause(store: Store) -> None:
    first, second, third = (join(store, rank) for rank in range(3))
    second.report("memory did not suffice")
    what = first.diagnose(ERROR).what
    assert f"process 1 on {socket.gethostname()} ended: memory did not suffice" in what and "process 2" not in what
    for one in (first, second, third):
        one.end()


def test_where_all_live_that_is_said(store: Store) -> None:
    everybody = [join(store, rank) for rank in range(3)]
    assert "but all ranks have a heartbeat" in everybody[0].diagnose(ERROR).what
    for one in everybody:
        one.end()


@pytest.mark.parametrize("fault", ["is gone", "hangs"])
def test_a_store_out_of_reach_is_not_waited_for(store: Store, fault: str) -> None:
    first, *_ = (join(store, rank) for rank in range(3))
    store.fault = fault
    began = time.monotonic()
    assert "the group's store at 10.0.0.1:29400 cannot be reached" in first.diagnose(ERROR).what
    first.report("cannot be left")
    assert time.monotonic() - began < 30
    first.end()


def test_after_a_restart_old_words_count_no_more(store: Store) -> None:
    old = HeartbeatMonitor(lambda: store, 1, 2, "run/0", where="")
    old.report("killed")
    stand_still(old)
    first, second = (HeartbeatMonitor(lambda: store, rank, 2, "run/1", where="") for rank in range(2))
    assert "but all ranks have a heartbeat" in first.diagnose(ERROR).what
    first.end()
    second.end()


@pytest.fixture
def impatient(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.1)
    return store


def watched_by(store: Store, count: int, **options: Any) -> tuple[list[HeartbeatMonitor], dict[int, PeerLost]]:
    """Ranks that all watch, and the error with which each leaves; `options` for all."""
    left: dict[int, PeerLost] = {}
    ranks = [
        join(store, rank, count, leave=lambda error, rank=rank: left.update({rank: error}), **options)
        for rank in range(count)
    ]
    for one in ranks:
        one.watch()
    return ranks, left


def wait(condition: Callable[[], bool]) -> None:
    last = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.01)


def test_all_leave_where_one_stands_still_and_no_collective_fails(impatient: Store) -> None:
    """Also those that do not watch it."""
    ranks, left = watched_by(impatient, 6, timeout_seconds=0.5)
    stand_still(ranks[2])
    wait(lambda: left.keys() == {0, 1, 3, 4, 5})
    assert {error.what for error in left.values()} == {f"process 2 on {socket.gethostname()} has no heartbeat"}
    for one in ranks:
        one.end()


def test_nobody_leaves_who_has_no_reason(impatient: Store) -> None:
    """A rank that has ended is not lost, nor one that told a cause and goes on. Who notices a loss ends by itself."""
    ranks, left = watched_by(impatient, 4, timeout_seconds=0.5)
    ranks[1].end()
    ranks[2].report("a smaller batch is tried")
    asked = impatient.questions
    wait(lambda: impatient.questions > asked + 60)
    assert not left
    for rank in (0, 2):
        ranks[rank]._noticed.set()
    stand_still(ranks[3])
    wait(lambda: bool(impatient.content["run/0/lost"]))
    asked = impatient.questions
    wait(lambda: impatient.questions > asked + 20)
    assert not left
    for one in ranks:
        one.end()


def _hang(rank: int, port: int, said: str) -> None:
    """A rank whose main thread hangs where no error reaches it, as one that waits for its GPU does."""
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.stderr = open(said, "a", buffering=1)  # noqa: SIM115
    module._LOOK_SECONDS, module._GRACE_SECONDS = 0.2, 0.2
    module._PATIENCE_SECONDS = 0.6
    init_process_group(timeout_seconds=60)
    Path(f"{said}.{rank}").touch()
    threading.Event().wait()


@pytest.mark.integration
def test_a_process_that_hangs_with_a_killed_one_ends_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = tmp_path / "said"
    ranks = [warm.start(_hang, rank, port, str(said)) for rank in range(2)]
    wait(lambda: all(Path(f"{said}.{rank}").exists() for rank in range(2)))
    ranks[1].kill()
    assert warm.code_of(ranks[0]) == PeerLost.exit_code
    told = f"process 1 on {socket.gethostname()} has no heartbeat. {module._REMEDY}"
    assert said.read_text().splitlines() == [f"{told}."]


@pytest.mark.parametrize("count", [8, 1_024])
def test_the_store_is_asked_as_little_by_many_ranks_as_by_few(
    store: Store, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """A beat is one write, a look one question; a diagnosis one, and two more for those who come first.

    What a rank holds does not grow with their number, but while it diagnoses.
    """
    monkeypatch.setattr(module.threading.Thread, "start", lambda self: None)
    monkeypatch.setattr(module.atexit, "register", lambda function: None)
    monkeypatch.setattr(module, "_in_time", lambda work: work())
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    ranks = [join(store, rank, count) for rank in range(count)]
    assert store.writes == count + 1
    for _ in range(2):
        store.questions = store.bytes_read = 0
        for one in ranks:
            assert one._lost_neighbours() == ""
        assert store.questions == count and store.bytes_read <= count * 2 * (len(socket.gethostname()) + 8)
    assert store.writes == count + 1
    assert [(len(one._neighbours), len(one._seen), len(one._still)) for one in ranks] == [(2, 2, 2)] * count
    beats = dict(store.content)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: _all_beat(ranks[:5] + ranks[6:]))
    store.questions = store.writes = 0
    tracemalloc.start()
    lost = {one.diagnose(ERROR).what.partition(" (")[0] for one in ranks[:5] + ranks[6:]}
    assert lost == {f"process 5 on {socket.gethostname()} has no heartbeat"}
    assert store.content["run/0/beat/5"] == beats["run/0/beat/5"]
    assert store.questions == count - 1 + 2
    assert store.writes == count - 1 + 1  # all beat again, and one names the lost
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000 and held < 500 * count


def _all_beat(ranks: list[HeartbeatMonitor]) -> None:
    for one in ranks:
        one._beat(one._beats, "1")
