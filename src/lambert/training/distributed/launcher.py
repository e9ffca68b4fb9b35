"""Starts several ranks on this machine with `torchrun`'s agent."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from lambert.training.distributed.env import is_one_of_several
from lambert.training.distributed.store import LOOPBACK_RENDEZVOUS
from lambert.utils.stop_signals import stop_signals


@dataclass(frozen=True)
class Ended:
    """How the ranks ended."""

    exit_code: int
    """0, or the exit code of the first rank that failed; 128 + signal if this process was stopped."""
    lost: str = ""
    """Which rank was killed, and by which signal; empty if none was."""


def default_process_count() -> int:
    """One for each GPU; 1 without GPUs, or under `torchrun` or a similar launcher."""
    return 1 if is_one_of_several() or not torch.cuda.is_available() else torch.cuda.device_count()


def most_processes() -> int:
    """Most processes on one machine: four for each core, the number of GPUs, or 16, whichever is largest."""
    return max(16, 4 * _cores(), torch.cuda.device_count())


def run_processes(arguments: Sequence[str], count: int, *, threads: int = 0) -> Ended:
    """Run `python -m lambert ARGUMENTS` on `count` ranks, and wait for them.

    Signals that ask for a stop are forwarded; ranks still running 30 seconds later are killed.

    Args:
        threads: of each rank; 0 divides the cores among them.
    """
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # we report what matters
    os.environ["OMP_NUM_THREADS"] = str(threads or max(1, _cores() // count))
    asks = stop_signals()
    optional: dict[str, Any] = {"signals_to_handle": ",".join(number.name for number in asks)}
    known = {field.name for field in dataclasses.fields(LaunchConfig)}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=f"lambert-{os.getpid()}",
        rdzv_backend=LOOPBACK_RENDEZVOUS,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
        **{name: value for name, value in optional.items() if name in known},
    )
    try:
        elastic_launch(config, sys.executable)("-m", "lambert", *arguments)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode >= 0:
            return Ended(failure.exitcode)
        number = signal.Signals(-failure.exitcode)
        lost = "" if number in asks else f"process {rank} was ended by {number.name}"
        return Ended(128 + number, lost)
    except SignalException as stop:
        return Ended(128 + stop.sigval)
    return Ended(0)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
