"""The process group: ranks and their collectives (`torch.distributed`).

Tensors are reduced where they are: over NCCL on GPUs. Python integers go over Gloo, so that they wait for no GPU.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from lambert.errors import Interrupted, UserError
from lambert.training.distributed import env
from lambert.training.distributed.heartbeat import HeartbeatMonitor, Store
from lambert.training.distributed.store import connect_sparingly, join_store, stay_on_loopback
from lambert.utils.stop_signals import end_with_parent

TIMEOUT_SECONDS = 600.0
PIECE_BYTES = 1 << 24
"""Bytes that one broadcast sends."""


@dataclass(frozen=True)
class ProcessGroup:
    """The ranks that train one model; by default a single one.

    Every collective raises `PeerLost` if a rank has died or does not answer in time.
    """

    rank: int = 0
    """Rank of this process, from 0."""
    world_size: int = 1
    """Number of ranks."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Device of this rank's model."""
    peers: HeartbeatMonitor | None = None
    """Heartbeats, after `init_process_group`."""
    is_first_on_host: bool = True
    """Whether no rank before this one runs on its machine, as far as the launcher says."""

    @property
    def is_main_process(self) -> bool:
        """True on rank 0, which writes the files."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """This rank and its machine, in messages that rank 0 does not print; empty on rank 0."""
        return f"process {self.rank} on {socket.gethostname()}" if self.rank else ""

    @contextmanager
    def translate_peer_errors(self) -> Iterator[None]:
        """Context for collectives: raises `PeerLost` for errors caused by lost ranks."""
        try:
            yield
        except RuntimeError as error:
            if self.peers is None:
                raise
            raise self.peers.diagnose(error) from None

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """All-reduce each tensor in place (sum), with one collective for each dtype."""
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with self.translate_peer_errors():
            distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, summed in zip(tensors, parts, strict=True):
            tensor.copy_(summed.view_as(tensor))

    def all_reduce_async(self, tensor: Tensor) -> Callable[[], None]:
        """Start an in-place all-reduce (sum) of `tensor`; the returned function waits for it."""
        with self.translate_peer_errors():
            work = distributed.all_reduce(tensor, async_op=True)
        assert work is not None

        def wait() -> None:
            with self.translate_peer_errors():
                work.wait()

        return wait

    def tree_all_reduce(self, flat: Tensor) -> None:
        """All-reduce a vector in place (sum), in a fixed binary tree over the ranks.

        The world size is a power of two. Recursive halving reduces, then recursive doubling gathers. Each rank sends
        and receives 2 (1 − 1 / world size) times the vector, as in a ring.
        """
        if flat.numel() < self.world_size:  # fewer elements than ranks
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
        """All-reduce integers with max."""
        if self.world_size == 1:
            return list(values)
        return self._reduced(values, distributed.ReduceOp.MAX)

    def all_reduce_ints(self, values: Sequence[int]) -> list[int]:
        """All-reduce integers with sum."""
        if self.world_size == 1:
            return list(values)
        return self._reduced(values, distributed.ReduceOp.SUM)

    def barrier(self) -> None:
        """Wait for all ranks, but not for their GPUs."""
        self.all_reduce_ints([0])

    def from_main(self, work: Callable[[], Any]) -> Any:
        """What `work` returns on rank 0, which alone calls it; the other ranks get it by way of JSON.

        Raises:
            UserError: rank 0 raised it, and then all ranks do, with the same words and exit code.
            Interrupted: on the other ranks, where rank 0 raised any other exception.
        """
        if self.world_size == 1:
            return work()
        result: Any = None
        failure: Exception | None = None
        if self.is_main_process:
            try:
                result = work()
            except Exception as error:  # whatever it is: the others must not wait for what never comes
                failure = error
        told = self._json_from_main({"result": result, "failure": failure and _failure_facts(failure)})
        if failure is not None:
            raise failure
        if told["failure"] is not None:
            kind = Interrupted if told["failure"]["exit_code"] == Interrupted.exit_code else UserError
            raise kind(told["failure"]["what"], remedy=told["failure"]["remedy"])
        return result if self.is_main_process else told["result"]

    def _json_from_main(self, value: Any) -> Any:
        text = json.dumps(value).encode() if self.is_main_process else b""
        data = torch.empty(self.all_reduce_ints([len(text)])[0], dtype=torch.uint8)
        data[: len(text)] = torch.frombuffer(bytearray(text or b" "), dtype=torch.uint8)[: len(text)]
        return json.loads(self.broadcast(data).numpy().tobytes())

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor in host memory, sent in pieces of at most `PIECE_BYTES`.

        Args:
            tensor: on rank 0 in host memory; only its shape and dtype count on the others, so it may be on "meta".
        """
        if self.world_size == 1:
            return tensor
        whole = tensor.contiguous() if self.is_main_process else torch.empty_like(tensor, device="cpu")
        for piece in whole.flatten().view(torch.uint8).split(PIECE_BYTES) if whole.numel() else ():
            with self.translate_peer_errors():
                distributed.broadcast(piece, 0)
        return whole

    def scatter_rows(self, tensor: Tensor) -> Tensor:
        """This rank's rows of rank 0's tensor [rows, …], as `torch.chunk` divides them; in host memory.

        Args:
            tensor: see `broadcast`.
        """
        count = len(tensor)
        most = -(-count // self.world_size)
        own = torch.empty(most, *tensor.shape[1:], dtype=tensor.dtype)
        chunks: list[Tensor] | None = None
        if self.is_main_process:
            filler = tensor.new_empty(most * self.world_size - count, *tensor.shape[1:])
            chunks = list((torch.cat([tensor, filler]) if len(filler) else tensor).split(most))
        with self.translate_peer_errors():
            distributed.scatter(own, chunks, 0)
        return own[: max(0, min(most, count - self.rank * most))]

    def _reduced(self, values: Sequence[int], operation: distributed.ReduceOp.RedOpType) -> list[int]:
        tensor = torch.tensor(values, dtype=torch.int64)
        with self.translate_peer_errors():
            distributed.all_reduce(tensor, operation)
        result: list[int] = tensor.tolist()
        return result

    def _exchange(self, partner: int, given: Tensor, received: Tensor) -> None:
        operations = [
            distributed.P2POp(distributed.isend, given, partner),
            distributed.P2POp(distributed.irecv, received, partner),
        ]
        with self.translate_peer_errors():
            for work in distributed.batch_isend_irecv(operations):
                work.wait()

    def rank_range(self, count: int) -> range:
        """This rank's contiguous range of `count` items, such as the micro-batches of a step."""
        return range(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)


def _failure_facts(error: Exception) -> dict[str, Any]:
    """What the other ranks need to raise the error of rank 0."""
    if isinstance(error, UserError):
        return {"exit_code": error.exit_code, "what": error.what, "remedy": error.remedy}
    words = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return {"exit_code": Interrupted.exit_code, "what": f"rank 0 failed ({words})", "remedy": "See its message"}


def init_process_group(*, timeout_seconds: float = TIMEOUT_SECONDS) -> ProcessGroup:
    """The process group that `torchrun` started, or a single rank without it.

    Uses one GPU for each rank if there are GPUs: NCCL for its tensors, and Gloo for those on the CPU. Else Gloo alone.

    Args:
        timeout_seconds: timeout of a collective.

    Raises:
        UserError: a variable of the launcher is missing or wrong, or the other ranks cannot be reached.
    """
    env.check()
    count, rank = env.process_count(), env.process_rank()
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda", env.local_rank() or 0) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    if count == 1:
        return ProcessGroup(rank, count, device)
    if not distributed.is_initialized():
        if sys.platform == "linux" and env.local_rank() is not None:
            end_with_parent()
        if env.all_on_this_machine():
            stay_on_loopback()
        connect_sparingly()
        backend, timeout = "cpu:gloo,cuda:nccl" if has_gpu else "gloo", timedelta(seconds=timeout_seconds)
        store = join_store(timeout_seconds)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
    if not _joined:
        _joined.append(_peers(rank, count, timeout_seconds))
    return ProcessGroup(rank, count, device, _joined[0], is_first_on_host=not env.local_rank())


_joined: list[HeartbeatMonitor] = []
"""The heartbeats of this process's group, if it has one."""


def _peers(rank: int, count: int, timeout_seconds: float) -> HeartbeatMonitor:
    host, port = env.store_address()
    patience = timedelta(seconds=10)

    def connect() -> Store:
        store: Store = distributed.TCPStore(host, port, is_master=False, timeout=patience)  # type: ignore[attr-defined]
        return store

    run = f"lambert/{env.restart_count()}"  # new keys after a restart: old messages do not count
    peers = HeartbeatMonitor(connect, rank, count, run, where=f"{host}:{port}", timeout_seconds=timeout_seconds)
    ProcessGroup(rank, count).barrier()  # now every rank has a heartbeat
    peers.watch()
    return peers


def destroy_process_group(processes: ProcessGroup) -> None:
    """Close the process group."""
    if processes.peers is not None:
        processes.peers.end()
        _joined.clear()
    if processes.world_size > 1 and distributed.is_initialized():
        distributed.destroy_process_group()
