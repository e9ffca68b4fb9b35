"""A signal in the middle of a start is delivered after it."""

from __future__ import annotations

import signal

import pytest

from lambert.experiments.signals import signals_deferred


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before, done = signal.signal(signal.SIGTERM, stop), []
    try:
        with pytest.raises(KeyboardInterrupt), signals_deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("noted")
        assert done == ["noted"] and signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)
