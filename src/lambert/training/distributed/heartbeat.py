"""Heartbeats of the ranks: identify the lost rank when a collective fails, or never returns.

Each rank increments its own key in the group's store, in a background thread. In the same thread it watches the
heartbeats of the next ranks and one key in which any rank names the lost ones: one question every few seconds, whatever
the world size. When a collective fails, a rank reads that key, and all heartbeats only if it is empty.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol, TypeVar

from lambert.errors import PeerLost

log = logging.getLogger("lambert")
BEAT_SECONDS = 1.0
_LOOK_SECONDS = 4.0
"""A live rank increments its counter within this time."""
_STORE_SECONDS = 2 * _LOOK_SECONDS
"""Longest wait for an answer of the store."""
_WATCHED = 2
"""A rank watches so many ranks after it: whichever rank is lost, the live one before it sees that."""
_PATIENCE_SECONDS = 60.0
"""How long a rank may have no heartbeat while no collective has failed; at most half the timeout of a collective."""
_GRACE_SECONDS = 10.0
"""How long a rank that hears of a lost one may take to notice by itself, in a collective that fails."""
_ENDED = "ended"
"""In place of a count: the rank has left the group without an error."""
Found = TypeVar("Found")


class Store(Protocol):
    """The part of `torch.distributed`'s store interface used here."""

    def set(self, key: str, value: str) -> None:
        """Write."""

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """Read keys in one question; waits until all exist."""


class _Beat(NamedTuple):
    """What the key of a rank holds."""

    number: str
    host: str
    cause: str

    def sentence(self, rank: int) -> str:
        """That the rank is lost, where, and why if known."""
        why = f"ended: {self.cause}" if self.cause else "has no heartbeat"
        return f"process {rank} on {self.host} {why}"


class HeartbeatMonitor:
    """The ranks of a run, including this one.

    Args:
        connect: opens a connection to the group's store; each thread has its own.
        run: prefix of the keys.
        where: host and port of the store, for messages.
        timeout_seconds: of a collective.
        leave: called with the error where this process hangs in a collective with a lost rank; does not return.
    """

    def __init__(
        self,
        connect: Callable[[], Store],
        rank: int,
        count: int,
        run: str,
        *,
        where: str,
        timeout_seconds: float = math.inf,
        leave: Callable[[PeerLost], None] | None = None,
    ) -> None:
        """Start the heartbeat. Other ranks may only be watched or diagnosed once all have started theirs."""
        self._rank, self._count, self._run, self._where = rank, count, run, where
        self._store, self._beats = connect(), connect()
        self._leave = leave or _leave
        self._patience = math.ceil(min(_PATIENCE_SECONDS, timeout_seconds / 2) / _LOOK_SECONDS)
        self._over = threading.Event()
        self._noticed = threading.Event()
        """The main thread knows of the loss."""
        self._watches = threading.Event()
        self._cause = ""
        self._neighbours = [(rank + 1 + place) % count for place in range(min(_WATCHED, count - 1))]
        self._seen: dict[int, _Beat] = {}
        self._still: dict[int, int] = {}
        """Neighbour → looks in a row that showed nothing new."""
        if rank == 0:
            self._beats.set(f"{run}/lost", "")
        self._beat(self._beats, "0")
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)
        self._thread.start()
        atexit.register(self._exit)

    def watch(self) -> None:
        """Watch the next ranks from now on: all have started."""
        self._watches.set()

    def end(self) -> None:
        """Stop the heartbeat, and tell the others that nothing is wrong."""
        atexit.unregister(self._exit)
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join(timeout=BEAT_SECONDS)
        if not self._noticed.is_set():
            _in_time(lambda: self._beat(self._store, _ENDED))

    def _exit(self) -> None:
        if not hasattr(sys, "last_value"):  # no exception ended this process
            self.end()

    def report(self, cause: str) -> None:
        """Record why this rank stops, for the others."""
        self._cause = cause
        # If this fails, the others still see the counter stop.
        _in_time(lambda: self._beat(self._store, "0"))

    def diagnose(self, error: RuntimeError) -> PeerLost:
        """The error for a collective that failed with `error`: which rank is lost or hangs, where, and why if known."""
        self._noticed.set()
        lost = _in_time(self._missing)
        if lost is None:
            lost = f"the group's store at {self._where} cannot be reached"
        lost = lost or "a collective failed, but all ranks have a heartbeat"
        return PeerLost(f"{lost} ({_first_line(error)})", remedy=_REMEDY)

    def _missing(self) -> str:
        """Which rank is lost or hangs, where, and why if known; empty if all are alive."""
        others = [rank for rank in range(self._count) if rank != self._rank]
        known, _ = self._ask(self._store, ())
        if known:
            return known
        _, before = self._ask(self._store, others)
        time.sleep(_LOOK_SECONDS)
        known, after = self._ask(self._store, others)
        if not known:
            known = "; ".join(beat.sentence(rank) for rank, beat in after.items() if before[rank] == beat or beat.cause)
            self._store.set(f"{self._run}/lost", known)
        return known

    def _ask(self, store: Store, ranks: Sequence[int]) -> tuple[str, dict[int, _Beat]]:
        """What any rank says of lost ranks, and the heartbeats of `ranks`: one question of the store."""
        lost, *beats = store.multi_get([f"{self._run}/lost", *(f"{self._run}/beat/{rank}" for rank in ranks)])
        found = (_Beat(*beat.decode().split("\n", 2)) for beat in beats)
        return lost.decode(), dict(zip(ranks, found, strict=True))

    def _beat(self, store: Store, count: str) -> None:
        store.set(f"{self._run}/beat/{self._rank}", f"{count}\n{socket.gethostname()}\n{self._cause}")

    def _live(self) -> None:
        """Beat, and look at the next ranks now and then, until the run is over."""
        number, looked, heard = 0, time.monotonic(), math.inf
        while not self._over.wait(BEAT_SECONDS):
            number += 1
            try:
                self._beat(self._beats, str(number))
                if not self._watches.is_set() or time.monotonic() - looked < _LOOK_SECONDS:
                    continue
                looked = time.monotonic()
                if lost := self._lost_neighbours():
                    heard = min(heard, looked)
            except RuntimeError:
                return  # the store is gone; the next collective fails
            # NCCL's collectives do not fail: the main thread waits for a GPU that waits for the lost rank.
            if looked - heard >= _GRACE_SECONDS and not self._noticed.is_set() and not self._over.is_set():
                self._leave(PeerLost(lost, remedy=_REMEDY))
                return

    def _lost_neighbours(self) -> str:
        """What any rank says of lost ranks, or what a look at the next ones shows; then the others are told."""
        lost, now = self._ask(self._beats, self._neighbours)
        # Looks are counted, not seconds: where all processes were suspended, none is lost.
        self._still = {
            rank: self._still.get(rank, 0) + 1
            for rank, beat in now.items()
            if self._seen.get(rank) == beat and beat.number != _ENDED
        }
        self._seen = now
        silent = [rank for rank, looks in self._still.items() if looks >= (2 if now[rank].cause else self._patience)]
        if silent and not lost:
            lost = "; ".join(now[rank].sentence(rank) for rank in silent)
            self._beats.set(f"{self._run}/lost", lost)
        return lost


_REMEDY = "The last checkpoint is complete: give the same command again to resume"


def _leave(error: PeerLost) -> None:
    """End this process, whose main thread hangs."""
    log.error(str(error))
    for thread in threading.enumerate():  # a checkpoint that is being written
        if not thread.daemon and thread is not threading.main_thread():
            thread.join(_PATIENCE_SECONDS)
    os._exit(error.exit_code)


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
