"""The signals that ask a command to save and stop."""

from __future__ import annotations

import signal

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1")


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that this system has; SIGHUP only where nobody ignores it, as `nohup` does."""
    found = (getattr(signal, name) for name in _NAMES if hasattr(signal, name))
    return tuple(one for one in found if one.name != "SIGHUP" or signal.getsignal(one) is not signal.SIG_IGN)
