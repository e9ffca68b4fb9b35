"""Rank and world size from the environment that `torchrun` sets; the only reader of RANK etc."""

from __future__ import annotations

import os


def process_count() -> int:
    """World size; 1 for a single process."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_one_of_several() -> bool:
    """Whether `torchrun` or a similar launcher started this process."""
    return "WORLD_SIZE" in os.environ


def process_rank() -> int:
    """Global rank, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int | None:
    """Rank on this machine; None for a single process."""
    text = os.environ.get("LOCAL_RANK")
    return None if text is None else int(text)


def local_process_count() -> int:
    """Number of ranks on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def store_address() -> tuple[str, int]:
    """Host and port of the rendezvous store."""
    return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


def is_first_process() -> bool:
    """Whether this is rank 0, the one that prints; works before the process group exists."""
    return process_rank() == 0


def restart_count() -> int:
    """How often `torchrun` has restarted the ranks."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
