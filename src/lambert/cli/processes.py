"""Starts the ranks of `plan` and `pretrain` on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lambert.cli.subcommand import PRINTED, warn
from lambert.errors import PeerLost, UserError
from lambert.training.distributed.env import is_one_of_several


def process_count(asked: int) -> int:
    """Number of processes to start: as given, or one for each GPU; 1 if this process is already one of several.

    Raises:
        UserError: the number is out of range, or far too large for this machine's cores or GPUs.
    """
    from lambert.training.distributed.launcher import default_process_count, most_processes

    check_count("processes", asked)
    if is_one_of_several():
        return 1
    if asked > (most := most_processes()):
        # Each one imports PyTorch, and all would start before the first could raise an error.
        raise UserError(
            f"{asked:,} processes on this machine", remedy=f"Give at most {most:,}, ideally one for each core"
        )
    return asked or default_process_count()


def check_count(name: str, value: int) -> None:
    """Check a number of processes or restarts.

    Raises:
        UserError: it is out of range.
    """
    if not 0 <= value <= 4_096:
        raise UserError(f"{value} {name}", remedy="Give a whole number from 0 to 4,096")


def start_processes(
    command: Sequence[str], count: int, *, json: bool, threads: int = 0, restarts: int = 0, fresh: bool = False
) -> dict[str, Any]:
    """Run the command on `count` processes, and restart them all if one was killed. Each prints its own messages.

    Args:
        command: the words from `Subcommand.as_command`.
        fresh: start from scratch, on the first start only.
    """
    from lambert.training.distributed.launcher import run_processes

    arguments = [*command[1:], *["--json"] * json]
    first = ["--fresh"] * fresh
    for attempt in range(restarts + 1):
        ended = run_processes([*arguments, *first], count, threads=threads)
        first = []
        if not (ended.lost or ended.exit_code == PeerLost.exit_code) or attempt == restarts:
            break
        reason = ended.lost or "a process was lost"
        warn(f"{reason}: restarting all from the last checkpoint ({attempt + 1} of {restarts} times)")
    return {"exit_code": ended.exit_code, PRINTED: True}
