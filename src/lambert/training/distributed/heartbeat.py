"""Heartbeats of the ranks: identify the lost rank when a collective fails.

Each rank increments its own key in the group's store, in a background thread. When a collective fails or times out, the
remaining ranks check whose counter has stopped.
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
"""A live rank increments its counter within this time."""
_STORE_SECONDS = 2 * _LOOK_SECONDS
"""Longest wait for an answer of the store."""
Found = TypeVar("Found")


class Store(Protocol):
    """The part of `torch.distributed`'s store interface used here."""

    def set(self, key: str, value: str) -> None:
        """Write."""

    def get(self, key: str) -> bytes:
        """Read a key; waits until it exists."""

    def check(self, keys: list[str]) -> bool:
        """Whether all keys exist."""


class HeartbeatMonitor:
    """The ranks of a run, including this one."""

    def __init__(self, connect: Callable[[], Store], rank: int, count: int, run: str, *, where: str) -> None:
        """Start the heartbeat.

        Args:
            connect: opens a connection to the group's store; each thread has its own.
            run: prefix of the keys.
            where: host and port of the store, for messages.
        """
        self._rank, self._count, self._run, self._where = rank, count, run, where
        self._store, self._beats = connect(), connect()
        self._over = threading.Event()
        self._beats.set(f"{run}/host/{rank}", socket.gethostname())
        self._beats.set(f"{run}/beat/{rank}", "0")
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop the heartbeat."""
        self._over.set()
        self._thread.join(timeout=BEAT_SECONDS)

    def report(self, cause: str) -> None:
        """Record why this rank stops, for the others."""
        # If this fails, the others still see the counter stop.
        _in_time(lambda: self._store.set(f"{self._run}/cause/{self._rank}", cause))

    def diagnose(self, error: RuntimeError) -> PeerLost:
        """The error for a collective that failed with `error`: which rank is lost or hangs, where, and why if known."""
        lost = _in_time(self._missing)
        if lost is None:
            lost = f"the group's store at {self._where} cannot be reached"
        lost = lost or "a collective failed, but all ranks have a heartbeat"
        return PeerLost(f"{lost} ({_first_line(error)})", remedy=_REMEDY)

    def _missing(self) -> str:
        """Which rank is lost or hangs, where, and why if known; empty if all are alive."""
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
                return  # the store is gone; the next collective fails


_REMEDY = "The last checkpoint is complete: give the same command again to resume"


def _in_time(work: Callable[[], Found]) -> Found | None:
    """The result of `work` on the store; None if it fails or takes too long: after a network failure, a
    call could block for many minutes.
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
