"""The only door to `torch.distributed`, and the only reader of RANK and its kin."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, distributed

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together; by default this one alone."""

    rank: int = 0
    """Place of this process, from 0."""
    count: int = 1
    """How many processes there are."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where this process's copy of the model lives."""

    @property
    def is_first(self) -> bool:
        """True in the one process that writes files."""
        return self.rank == 0

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, all of one dtype in one collective."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, summed in zip(tensors, parts, strict=True):
            tensor.copy_(summed.view_as(tensor))

    def sum_integers(self, values: Sequence[int]) -> list[int]:
        """Each whole number summed over all processes."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.int64, device=self.device)
        distributed.all_reduce(tensor)
        return [int(value) for value in tensor]

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            distributed.barrier()

    def share(self, count: int) -> range:
        """This process's contiguous part of `count` things, such as the micro-batches of a step."""
        return range(count * self.rank // self.count, count * (self.rank + 1) // self.count)


def is_first_process() -> bool:
    """Whether this is the one process that speaks, before or after they have joined."""
    return os.environ.get("RANK", "0") == "0"


def join_processes() -> Processes:
    """The group that `torchrun` started, or this process alone when it did not.

    Uses NCCL and one GPU per process where there are GPUs, Gloo otherwise.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    has_gpu = torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    if count > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if has_gpu else "gloo", timeout=_TIMEOUT)
    return Processes(rank, count, device)


def leave_processes(processes: Processes) -> None:
    """Close what `join_processes` opened."""
    if processes.count > 1 and distributed.is_initialized():
        distributed.destroy_process_group()
