"""Heartbeats of the ranks of a run: which one is missing when a collective fails.

Each rank counts up a key of its own in the group's store, in a thread beside the training. When a collective fails
or times out, the ranks that are left look whose counter stands still.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from lambert.errors import PeerLost

BEAT_SECONDS = 1.0
_LOOK_SECONDS = 4.0
"""Time in which a process that lives has counted on."""
_STORE_SECONDS = 2 * _LOOK_SECONDS
"""The store has answered in this time, or it never will."""
Found = TypeVar("Found")


class Store(Protocol):
    """What is needed of `torch.distributed`'s stores."""

    def set(self, key: str, value: str) -> None:
        """Write."""

    def get(self, key: str) -> bytes:
        """Read; waits for a key that is not there."""

    def check(self, keys: list[str]) -> bool:
        """Whether all keys are there."""


class HeartbeatMonitor:
    """The processes of a run, this one among them."""

    def __init__(self, connect: Callable[[], Store], rank: int, count: int, run: str, *, where: str) -> None:
        """Start the heartbeat.

        Args:
            connect: a new connection to the group's store; each thread has its own.
            run: beginning of the keys in the store.
            where: host and port of the store, for messages.
        """
        self._rank, self._count, self._run, self._where = rank, count, run, where
        self._store, self._beats = connect(), connect()
        self._over = threading.Event()
        self._beats.set(f"{run}/host/{rank}", socket.gethostname())
        self._beats.set(f"{run}/beat/{rank}", "0")
        self._thread = threading.Thread(target=self._live, name="signs-of-life", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop the heartbeat."""
        self._over.set()
        self._thread.join(timeout=BEAT_SECONDS)

    def report(self, cause: str) -> None:
        """Leave word for the others why this process ends."""
        _in_time(lambda: self._store.set(f"{self._run}/cause/{self._rank}", cause))  # or they see it standing still

    def loss(self, error: RuntimeError) -> PeerLost:
        """What to tell of a collective that failed with `error`: who is gone or hangs, where, and why if known."""
        told = _in_time(self._missing)
        if told is None:
            told = f"the process that keeps the group together, at {self._where}, cannot be reached"
        told = told or "the processes could not work together, though all heartbeats are alive"
        return PeerLost(f"{told} ({_first_line(error)})", remedy=_REMEDY)

    def _missing(self) -> str:
        """Who is gone or hangs, where, and why if known; empty where all live."""
        before = self._read("beat")
        time.sleep(_LOOK_SECONDS)
        after, causes, hosts = self._read("beat"), self._read("cause"), self._read("host")
        others = [rank for rank in range(self._count) if rank != self._rank]
        named = [
            f"process {rank} on {hosts.get(rank, 'an unknown host')} "
            + (f"ended: {causes[rank]}" if rank in causes else "has no heartbeat")
            for rank in others
            if rank in causes or before.get(rank) == after.get(rank)
        ]
        return "; ".join(named)

    def _read(self, name: str) -> dict[int, str]:
        keys = {rank: f"{self._run}/{name}/{rank}" for rank in range(self._count)}
        return {rank: self._store.get(key).decode() for rank, key in keys.items() if self._store.check([key])}

    def _live(self) -> None:
        number = 0
        while not self._over.wait(BEAT_SECONDS):
            number += 1
            try:
                self._beats.set(f"{self._run}/beat/{self._rank}", str(number))
            except RuntimeError:
                return  # the store is gone; the next collective will tell


_REMEDY = "The last checkpoint is complete: give the same command again to resume"


def _in_time(work: Callable[[], Found]) -> Found | None:
    """What `work` with the store returns; None where that fails or takes too long: with a store that a cut cable has
    put out of reach it could wait for many minutes.
    """
    found: list[Found] = []

    def do() -> None:
        with suppress(RuntimeError):
            found.append(work())

    thread = threading.Thread(target=do, name="store", daemon=True)
    thread.start()
    thread.join(_STORE_SECONDS)
    return found[0] if found else None


def _first_line(error: BaseException) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if len(line) <= 160 else line[:157] + "..."
