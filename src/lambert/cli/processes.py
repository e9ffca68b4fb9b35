"""Starting the processes that `plan` and `pretrain` share a machine's work over."""

from __future__ import annotations

import shlex
from typing import Any

from lambert.cli.subcommand import PRINTED, warn
from lambert.errors import PeerLost, UserError
from lambert.training.distributed.env import is_one_of_several


def process_count(asked: int) -> int:
    """How many processes are to be started here: what is asked for, or one for each GPU; 1 where this is one of them.

    Raises:
        UserError: the number is out of range, or far more than this machine has cores or GPUs for.
    """
    from lambert.training.distributed.launcher import default_process_count, most_processes

    check_count("processes", asked)
    if is_one_of_several():
        return 1
    if asked > (most := most_processes()):
        # Each is a Python of its own with PyTorch in it, and all would be there before the first could refuse.
        raise UserError(
            f"{asked:,} processes on this machine", remedy=f"Give at most {most:,}, better one for each core"
        )
    return asked or default_process_count()


def check_count(name: str, value: int) -> None:
    """Refuse a number that no machine has.

    Raises:
        UserError: names it.
    """
    if not 0 <= value <= 4_096:
        raise UserError(f"{value} {name}", remedy="Give a whole number from 0 to 4,096")


def start_processes(
    command: str, count: int, *, json: bool, threads: int = 0, restarts: int = 0, fresh: bool = False
) -> dict[str, Any]:
    """Start `count` processes that do this command, again where one was killed; each says what it has to say itself.

    Args:
        command: what asks for the same, as `Verb.as_command` makes it.
        fresh: the first start, and only that, begins over.
    """
    from lambert.training.distributed.launcher import run_processes

    words = shlex.split(command)[1:] + ["--json"] * json
    first = ["--fresh"] * fresh
    for attempt in range(restarts + 1):
        ended = run_processes([*words, *first], count, threads=threads)
        first = []
        if not (ended.lost or ended.exit_code == PeerLost.exit_code) or attempt == restarts:
            break
        why = ended.lost or "a process was lost"
        warn(f"{why}: starting all again from the last checkpoint ({attempt + 1} of {restarts} times)")
    return {"exit_code": ended.exit_code, PRINTED: True}
