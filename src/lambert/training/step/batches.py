"""The micro-batches of each step: made when they are asked for, a step ahead by a thread, or ahead by processes."""

from __future__ import annotations

import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from lambert.data.dataloader import PretrainingBatch, SampleStream
from lambert.data.workers import BatchWorkers, Samples
from lambert.errors import UserError
from lambert.training.config.phase import Phase
from lambert.training.distributed import env
from lambert.training.distributed.process_group import ProcessGroup

MOST_WORKERS = 4
"""Processes that are started without being asked for."""
GROUP_TOKENS = 65_536
"""Tokens, padding included, that are made at once: enough that numpy's calls cost little."""
_BUSY = 0.2
"""Part of its time in which the thread makes batches, beyond which processes make them."""
_STEPS = 20
"""Steps over which that is measured."""


class StepBatches:
    """Makes the micro-batches of this rank.

    On a CPU the training thread makes them, and on a GPU a thread those of the next step, in page-locked memory. Where
    that is busy for long, and so takes Python's lock from the training thread, processes make them, and the thread only
    copies. All make the same batches.

    Args:
        workers: processes; None starts none on a CPU, and on a GPU those that it takes.
    """

    def __init__(self, processes: ProcessGroup, workers: int | None) -> None:
        self._processes = processes
        self._on_gpu = processes.device.type == "cuda"
        self._thread = ThreadPoolExecutor(1, "batches") if self._on_gpu or workers else None
        self._pace = WorkPace() if self._on_gpu and workers is None else None
        self._count = spare_cores() if workers is None else workers
        self._pool: BatchWorkers | None = None
        self._begun: SampleStream | None = None
        self._next: tuple[tuple[Phase, int], Future[list[PretrainingBatch]]] | None = None

    def of(self, phase: Phase, stream: SampleStream, step: int) -> list[PretrainingBatch]:
        """The micro-batches of a step, which may be made already.

        Raises:
            UserError: the corpus is damaged.
            Interrupted: a process that makes batches has ended.
        """
        if self._thread is None:
            return self._make(phase, stream, step)
        if self._next is None or self._next[0] != (phase, step):
            self.make_ahead(phase, stream, step)
        assert self._next is not None
        made, self._next = self._next[1], None
        return made.result()

    def make_ahead(self, phase: Phase, stream: SampleStream, step: int) -> None:
        """Begin with the micro-batches of a step, where a thread makes them and the phase has that step."""
        if self._thread is not None and step <= phase.last_step:
            self._next = (phase, step), self._thread.submit(self._make, phase, stream, step)

    def close(self) -> None:
        """End thread and processes."""
        if self._thread is None:
            return
        self._thread.shutdown(wait=False, cancel_futures=True)
        for _ in range(2):  # the thread may wait for the processes, or start them right now
            if self._pool is not None:
                self._pool.close()
            self._thread.shutdown()

    def _samples(self, phase: Phase, step: int) -> list[Samples]:
        """The samples of a step's micro-batches, in groups of a size for the caches."""
        micro_batches = [phase.samples_of(step, index) for index in self._processes.rank_range(phase.micro_batch_count)]
        size = max(1, GROUP_TOKENS // (phase.micro_batch_size * phase.config.sequence_length))
        groups = [micro_batches[start : start + size] for start in range(0, len(micro_batches), size)]
        return [(group[0][0], *(count for _, count in group)) for group in groups]

    def _make(self, phase: Phase, stream: SampleStream, step: int) -> list[PretrainingBatch]:
        began, wanted, pool = time.perf_counter(), self._samples(phase, step), self._workers(stream)
        if pool is None:
            batches = [batch for first, *counts in wanted for batch in stream.batches(first, counts)]
        else:
            steps = range(step + 1, phase.last_step + 1)
            batches = pool.batches(wanted, (samples for later in steps for samples in self._samples(phase, later)))
        if self._on_gpu:
            batches = [batch.pin_memory() for batch in batches]
        if self._pace is not None:
            self._pace.add(began, time.perf_counter())
        return batches

    def _workers(self, stream: SampleStream) -> BatchWorkers | None:
        """The processes, once they are ready; those that nobody asked for are not waited for."""
        if not self._count or self._thread is None or (self._pool is None and self._pace and not self._pace.is_busy):
            return None
        try:
            if self._pool is None:
                self._pool = BatchWorkers(self._count, pins=self._on_gpu)
            if self._begun is not stream:
                self._pool.begin(stream)
                self._begun = stream
            return self._pool if self._pace is None or self._pool.are_ready() else None
        except UserError:
            if self._pace is None:
                raise
            self._count = 0  # the thread continues alone
            if self._pool is not None:
                self._pool.close()
            return None


class WorkPace:
    """How much of its time the thread makes batches."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float]] = deque(maxlen=_STEPS)

    def add(self, began: float, ended: float) -> None:
        """Add a step whose batches were made from `began` to `ended`, seconds."""
        self._steps.append((began, ended))

    @property
    def is_busy(self) -> bool:
        """Whether it was more than a fifth of the last twenty steps."""
        if len(self._steps) < _STEPS:
            return False
        return sum(ended - began for began, ended in self._steps) > _BUSY * (self._steps[-1][1] - self._steps[0][0])


def spare_cores() -> int:
    """Cores for processes that make a rank's batches: at most four, and none that its threads need."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(0, min(MOST_WORKERS, cores // env.local_process_count() - 2))
