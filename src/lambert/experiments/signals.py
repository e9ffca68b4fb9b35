"""Defers signals while child processes start: a child started but not yet recorded would be orphaned."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lambert.utils.stop_signals import stop_signals


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Signals that ask for a stop and arrive within the block are delivered at its end."""
    if threading.current_thread() is not threading.main_thread():  # Python has signal handlers there only
        yield
        return
    pending: list[int] = []
    before = {number: signal.signal(number, lambda arrived, _: pending.append(arrived)) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if pending:
            signal.raise_signal(pending[0])
