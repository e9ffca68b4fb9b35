"""The signals that ask a command to save and stop, and the one that a child gets when its parent is killed."""

from __future__ import annotations

import ctypes
import signal

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1")


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that this system has; SIGHUP only where nobody ignores it, as `nohup` does."""
    found = (getattr(signal, name) for name in _NAMES if hasattr(signal, name))
    return tuple(one for one in found if one.name != "SIGHUP" or signal.getsignal(one) is not signal.SIG_IGN)


def end_with_parent() -> None:
    """On Linux: get SIGTERM when the parent process is killed, for nothing else would stop this one."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
