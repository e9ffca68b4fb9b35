"""What `torchrun` says of this process in its environment; the only reader of RANK and its kin."""

from __future__ import annotations

import os


def process_count() -> int:
    """How many processes train together; 1 where this one was started alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_one_of_several() -> bool:
    """Whether something like `torchrun` has started this process."""
    return "WORLD_SIZE" in os.environ


def process_rank() -> int:
    """Place of this process among all, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int | None:
    """Place of this process on its machine; None where it was started alone."""
    text = os.environ.get("LOCAL_RANK")
    return None if text is None else int(text)


def local_process_count() -> int:
    """How many processes of the group share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def store_address() -> tuple[str, int]:
    """Host and port of the store through which the processes find each other."""
    return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


def is_first_process() -> bool:
    """Whether this is the one process that speaks, before or after they have joined."""
    return process_rank() == 0


def restart_count() -> int:
    """How often `torchrun` has started the processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
