"""Whether a process that a test has started, or one of its children, still runs."""

from __future__ import annotations

from pathlib import Path


def has_ended(process: int) -> bool:
    """Also of one that nobody has reaped yet: a parent that is not ours may take its time."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
