"""Rank and world size from the environment that `torchrun` sets; the only reader of RANK etc."""

from __future__ import annotations

import os

from lambert.errors import LaunchError


def process_count() -> int:
    """World size; 1 for a single process.

    Raises:
        LaunchError: here and in all others: a variable is no such number; it is named.
    """
    return _whole_number("WORLD_SIZE", 1, least=1)


def is_one_of_several() -> bool:
    """Whether `torchrun` or a similar launcher started this process."""
    return "WORLD_SIZE" in os.environ


def process_rank() -> int:
    """Global rank, from 0."""
    return _whole_number("RANK", 0)


def local_rank() -> int | None:
    """Rank on this machine; None for a single process."""
    return _whole_number("LOCAL_RANK", 0) if "LOCAL_RANK" in os.environ else None


def local_process_count() -> int:
    """Number of ranks on this machine."""
    return _whole_number("LOCAL_WORLD_SIZE", 1, least=1)


def all_on_this_machine() -> bool:
    """Whether no rank runs on another machine, as far as the launcher says."""
    return local_process_count() >= process_count()


def launcher_hosts_store() -> bool:
    """Whether the rendezvous store is in the launcher, as `torchrun`'s, and not in rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def master_host() -> str:
    """Host of the rendezvous store as the launcher names it; empty without one."""
    return os.environ.get("MASTER_ADDR", "")


def store_address() -> tuple[str, int]:
    """Host and port of the rendezvous store; on loopback if rank 0 hosts it for this machine alone."""
    host = master_host()
    if all_on_this_machine() and not launcher_hosts_store():
        host = "127.0.0.1"
    return host, _whole_number("MASTER_PORT", 0, least=1, most=65_535)


def is_first_process() -> bool:
    """Whether this is rank 0, the one that prints; works before the process group exists."""
    return os.environ.get("RANK", "0") == "0"


def restart_count() -> int:
    """How often `torchrun` has restarted the ranks."""
    return _whole_number("TORCHELASTIC_RESTART_COUNT", 0)


def check() -> None:
    """Refuse an environment that does not say which rank of how many this process is.

    Raises:
        LaunchError: names the variable.
    """
    count, rank = process_count(), process_rank()
    if "RANK" in os.environ and "WORLD_SIZE" not in os.environ:
        raise LaunchError(f"RANK={rank} without WORLD_SIZE in the environment", remedy=_REMEDY.format("RANK"))
    if count == 1 and rank == 0:
        return
    for needed in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(needed):
            raise LaunchError(
                f"WORLD_SIZE={count} without {needed} in the environment", remedy=_REMEDY.format("WORLD_SIZE")
            )
    if rank >= count:
        raise LaunchError(f"RANK={rank} with WORLD_SIZE={count}: ranks count from 0", remedy=_REMEDY.format("RANK"))
    local_rank(), local_process_count(), store_address(), restart_count()


_REMEDY = "Unset {} for a single process, or start all of them with torchrun, which sets every variable"


def _whole_number(name: str, default: int, *, least: int = 0, most: int = 1_000_000) -> int:
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit() and least <= int(text[:20]) <= most):
        wanted = f"a whole number from {least} to {most:,}"
        raise LaunchError(f"{name}={text!r} in the environment is not {wanted}", remedy=_REMEDY.format(name))
    return int(text)
