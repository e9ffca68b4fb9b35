"""Processes that are ready at once: forked from one that has imported PyTorch and compiled LAMB's kernels.

A process that starts from nothing imports for two seconds and compiles for four, which is most of what tests of several
processes would take. All that come from here have the same machine code, as the processes of one run must.
"""

from __future__ import annotations

import functools
import os
import runpy
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver, get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from lambert.cli.main import end

SECONDS = 300
"""After which a process counts as hung."""


@functools.cache
def _context() -> Any:
    """The forking process, started once for all tests of this one."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["warm_imports"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Begin `function(*arguments)` in a process; `function` is one of a module's own."""
    process: BaseProcess = _context().Process(target=function, args=arguments)
    process.start()
    return process


def code_of(process: BaseProcess) -> int:
    """The code that it ends with; minus the signal that ended it."""
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"a process has not ended in {SECONDS} s")
    return process.exitcode


def run_all(function: Callable[..., None], count: int, *arguments: Any) -> None:
    """`function(rank, count, *arguments)` in `count` processes; an exception in one of them is raised here."""
    _context()
    torch.multiprocessing.start_processes(function, args=(count, *arguments), nprocs=count, start_method="forkserver")


def start_ranks(
    program: Path | None,
    words: Sequence[str],
    output: Path,
    *,
    count: int = 2,
    environment: Mapping[str, str] | None = None,
    hosts: Sequence[Path] = (),
) -> list[BaseProcess]:
    """Begin a command line in `count` processes that know of each other, with the variables that `torchrun` sets.

    Args:
        program: file of the program; `python -m lambert` where None.
        output: file to which all append what they print.
        hosts: the working folder of each, which then takes itself for the only one on its machine.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    shared |= {"LOCAL_WORLD_SIZE": str(count), **(environment or {})}
    ranks = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    for rank, host in zip(ranks, hosts, strict=False):
        rank |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "PWD": str(host)}
    return [start(_command, program and str(program), list(words), str(output), own) for own in ranks]


def run_ranks(program: Path | None, words: Sequence[str], output: Path, **options: Any) -> list[int]:
    """The codes of a command line in several processes. Where one fails, the others are killed, as `torchrun` does."""
    processes = start_ranks(program, words, output, **options)
    waiting = list(processes)
    while waiting:
        ended = _wait_for_one(waiting)
        waiting = [process for process in waiting if process.exitcode is None]
        if any(process.exitcode for process in ended):
            for process in waiting:
                process.kill()
    return [code_of(process) for process in processes]


def _wait_for_one(processes: Sequence[BaseProcess]) -> list[BaseProcess]:
    ready = wait([process.sentinel for process in processes], SECONDS)
    ended = [process for process in processes if process.sentinel in ready]
    if not ended:
        for process in processes:
            process.kill()
        raise AssertionError(f"no process has ended in {SECONDS} s")
    for process in ended:
        process.join()
    return ended


def _command(program: str | None, words: list[str], output: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(environment.get("PWD", "."))
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    sys.argv = [program or "lambert", *words]
    if program is None:
        end()
    sys.path.insert(0, str(Path(program or "").parent))
    runpy.run_path(program or "", run_name="__main__")
