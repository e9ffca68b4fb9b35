"""Processes that work for this one: quiet at Ctrl-C, gone when it goes, a few batches ahead where order counts."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from lambert.errors import UserError

_AHEAD = 2
"""Batches that wait or are worked on, for each process."""

Given = TypeVar("Given")
Made = TypeVar("Made")


@contextmanager
def worker_processes(
    count: int, begin: Callable[..., None] | None = None, *values: Any
) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` processes, each of which first calls `begin(*values)`.

    Raises:
        UserError: one of them was killed.
    """
    executor = ProcessPoolExecutor(count, get_context("spawn"), initializer=_begin, initargs=(begin, values))
    try:
        yield executor
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps for want of memory",
            remedy="Give fewer --workers; what is finished is kept, and the same command goes on from there",
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def in_order(
    executor: ProcessPoolExecutor, count: int, work: Callable[[Given], Made], items: Iterable[Given]
) -> Iterator[Made]:
    """`work` of each item, in order, a bounded number of them ahead."""
    waiting: deque[Future[Made]] = deque()
    for item in items:
        waiting.append(executor.submit(work, item))
        if len(waiting) > _AHEAD * count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _begin(begin: Callable[..., None] | None, values: tuple[Any, ...]) -> None:
    # Ctrl-C reaches every process of the terminal; the one that asked tells the others to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin(*values)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
