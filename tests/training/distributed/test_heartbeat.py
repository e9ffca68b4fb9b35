"""A lost rank is named with host and cause, even if the store is unreachable."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from lambert.errors import PeerLost
from lambert.training.distributed import heartbeat as module
from lambert.training.distributed.heartbeat import HeartbeatMonitor

ERROR = RuntimeError("Timed out waiting 18000ms for recv operation\nand more lines")


class Store:
    """A store in this process."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.fault = ""
        self.over = threading.Event()

    def _meet_fault(self) -> None:
        if self.fault == "hangs":
            self.over.wait(60)
        if self.fault:
            raise RuntimeError("Connection reset by peer")

    def set(self, key: str, value: str) -> None:
        self._meet_fault()
        self.content[key] = value.encode()

    def get(self, key: str) -> bytes:
        self._meet_fault()
        return self.content[key]

    def check(self, keys: list[str]) -> bool:
        self._meet_fault()
        return all(key in self.content for key in keys)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(module, "_STORE_SECONDS", 1.0)
    made = Store()
    yield made
    made.over.set()


def join(store: Store, rank: int) -> HeartbeatMonitor:
    return HeartbeatMonitor(lambda: store, rank, 3, "run/0", where="10.0.0.1:29400")


def test_who_stands_still_is_named_with_its_host(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = join(store, 0), join(store, 1)
    monkeypatch.setattr(socket, "gethostname", lambda: "far-away")
    third = join(store, 2)
    third.end()
    loss = first.diagnose(ERROR)
    assert isinstance(loss, PeerLost) and loss.exit_code == 4
    assert loss.what == "process 2 on far-away has no heartbeat (Timed out waiting 18000ms for recv operation)"
    assert "same command" in loss.remedy
    second.end()
    assert "process 1" in first.diagnose(ERROR).what
    first.end()


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
    first = join(store, 0)
    store.fault = fault
    began = time.monotonic()
    assert "the group's store at 10.0.0.1:29400 cannot be reached" in first.diagnose(ERROR).what
    first.report("cannot be left")
    assert time.monotonic() - began < 30
    first.end()


def test_after_a_restart_old_words_count_no_more(store: Store) -> None:
    old = HeartbeatMonitor(lambda: store, 1, 2, "run/0", where="")
    old.report("killed")
    old.end()
    first, second = (HeartbeatMonitor(lambda: store, rank, 2, "run/1", where="") for rank in range(2))
    assert "but all ranks have a heartbeat" in first.diagnose(ERROR).what
    first.end()
    second.end()
