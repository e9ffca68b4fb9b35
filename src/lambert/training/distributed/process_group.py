"""The process group: ranks and their collectives (`torch.distributed`)."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache

import torch
from torch import Tensor, distributed

from lambert.training.distributed import env
from lambert.training.distributed.heartbeat import HeartbeatMonitor, Store

TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model together; by default this one alone.

    Every method that needs the others raises `PeerLost` where one of them has died or does not answer in time.
    """

    rank: int = 0
    """Place of this process, from 0."""
    world_size: int = 1
    """How many processes there are."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where this process's copy of the model lives."""
    peers: HeartbeatMonitor | None = None
    """Their heartbeats, where `init_process_group` has joined them."""

    @property
    def is_main_process(self) -> bool:
        """True in the one process that writes files."""
        return self.rank == 0

    @contextmanager
    def translate_peer_errors(self) -> Iterator[None]:
        """What happens inside needs the other processes."""
        try:
            yield
        except RuntimeError as error:
            if self.peers is None:
                raise
            raise self.peers.loss(error) from None

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, all of one dtype in one collective."""
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with self.translate_peer_errors():
            distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, summed in zip(tensors, parts, strict=True):
            tensor.copy_(summed.view_as(tensor))

    def all_reduce_async(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to replace `tensor` by its sum over all processes; what is returned waits for the end of that."""
        with self.translate_peer_errors():
            work = distributed.all_reduce(tensor, async_op=True)
        assert work is not None

        def wait() -> None:
            with self.translate_peer_errors():
                work.wait()

        return wait

    def tree_all_reduce(self, flat: Tensor) -> None:
        """Replace a vector by its sum over all processes, added up in the binary tree over their ranks.

        Their number is a power of two. Neighbours exchange halves, then those two apart quarters, and so on; then
        the sums go back the same way. Each process sends and gets 2 (1 − 1 / processes) times the vector, as in a ring.
        """
        if flat.numel() < self.world_size:  # too short for a part each
            longer = torch.cat([flat, flat.new_zeros(self.world_size)])
            self.tree_all_reduce(longer)
            flat.copy_(longer[: flat.numel()])
            return
        begin, end, distance = 0, flat.numel(), 1
        parts: list[tuple[int, int, int]] = []
        while distance < self.world_size:
            partner, middle = self.rank ^ distance, begin + (end - begin) // 2
            kept, given = ((begin, middle), (middle, end)) if self.rank < partner else ((middle, end), (begin, middle))
            received = torch.empty(kept[1] - kept[0], dtype=flat.dtype, device=flat.device)
            self._exchange(partner, flat[slice(*given)], received)
            flat[slice(*kept)] += received
            parts.append((partner, begin, end))
            (begin, end), distance = kept, 2 * distance
        for partner, whole_begin, whole_end in reversed(parts):
            other = slice(end, whole_end) if begin == whole_begin else slice(whole_begin, begin)
            self._exchange(partner, flat[begin:end], flat[other])
            begin, end = whole_begin, whole_end

    def all_reduce_max(self, values: Sequence[int]) -> list[int]:
        """The greatest of each whole number over all processes."""
        if self.world_size == 1:
            return list(values)
        return self._reduced(values, distributed.ReduceOp.MAX)

    def all_reduce_ints(self, values: Sequence[int]) -> list[int]:
        """Each whole number summed over all processes."""
        if self.world_size == 1:
            return list(values)
        return self._reduced(values, distributed.ReduceOp.SUM)

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            with self.translate_peer_errors():
                distributed.barrier()

    def _reduced(self, values: Sequence[int], operation: distributed.ReduceOp.RedOpType) -> list[int]:
        tensor = torch.tensor(values, dtype=torch.int64, device=self.device)
        with self.translate_peer_errors():
            distributed.all_reduce(tensor, operation)
        return [int(value) for value in tensor]

    def _exchange(self, partner: int, given: Tensor, received: Tensor) -> None:
        operations = [
            distributed.P2POp(distributed.isend, given, partner),
            distributed.P2POp(distributed.irecv, received, partner),
        ]
        with self.translate_peer_errors():
            for work in distributed.batch_isend_irecv(operations):
                work.wait()

    def rank_range(self, count: int) -> range:
        """This process's contiguous part of `count` things, such as the micro-batches of a step."""
        return range(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)


def init_process_group(*, timeout_seconds: float = TIMEOUT_SECONDS) -> ProcessGroup:
    """The group that `torchrun` started, or this process alone when it did not.

    Uses NCCL and one GPU per process where there are GPUs, Gloo otherwise.

    Args:
        timeout_seconds: how long a collective waits for another process.
    """
    count, rank = env.process_count(), env.process_rank()
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda", env.local_rank() or 0) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    if count == 1:
        return ProcessGroup(rank, count, device)
    if not distributed.is_initialized():
        _end_with_parent()
        timeout = timedelta(seconds=timeout_seconds)
        distributed.init_process_group("nccl" if has_gpu else "gloo", timeout=timeout)
    return ProcessGroup(rank, count, device, _peers(rank, count))


@lru_cache(maxsize=1)
def _peers(rank: int, count: int) -> HeartbeatMonitor:
    host, port = env.store_address()
    patience = timedelta(seconds=10)

    def connect() -> Store:
        store: Store = distributed.TCPStore(host, port, is_master=False, timeout=patience)  # type: ignore[attr-defined]
        return store

    run = f"lambert/{env.restart_count()}"  # what died before a restart left its last word there
    peers = HeartbeatMonitor(connect, rank, count, run, where=f"{host}:{port}")
    distributed.barrier()  # from here on everybody can be asked for
    return peers


def destroy_process_group(processes: ProcessGroup) -> None:
    """Close what `init_process_group` opened."""
    if processes.peers is not None:
        processes.peers.end()
    if processes.world_size > 1 and distributed.is_initialized():
        distributed.destroy_process_group()


def _end_with_parent() -> None:
    """Be told to stop when the process that started this one is killed: nobody else would."""
    if sys.platform != "linux" or env.local_rank() is None:
        return
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
