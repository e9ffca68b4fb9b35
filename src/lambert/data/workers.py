"""Processes that make batches ahead, in order. Every batch is a function of its first sample and the number of samples
alone, so any number of them makes the same batches.

They are started as programs of their own and not by `multiprocessing`: no process is forked that uses a GPU, nobody's
main module is imported twice, and nothing is pickled. They share one copy of the corpus's index, hand over batches
through shared memory, and end as soon as the process that started them does, however that ends.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch, SampleStream, example_source
from lambert.data.mask_schedule import MaskSchedule
from lambert.data.objective import ObjectiveConfig
from lambert.errors import Interrupted, UserError
from lambert.utils.shared_arrays import SharedArrays
from lambert.utils.stop_signals import stop_signals

Samples = tuple[int, ...]
"""The first sample of some consecutive batches, then the number of samples of each."""
_GROUPS_EACH = 2
"""Groups of batches of each process that are being made or wait to be taken; so many are kept in memory."""
_SECONDS_TO_END = 10.0
_TYPES = {np.dtype(np.int64).str: torch.int64, np.dtype(np.bool_).str: torch.bool}
"""Of the tensors of a batch."""
_PROGRAM = "import sys; sys.path[:] = {path}; from lambert.data.workers import serve; serve({descriptors})"
_REMEDY = "Give fewer `data_workers`, or 0 to make batches in the run's own process; the same call resumes"


class BatchWorkers:
    """`count` processes. `begin` says of which stream, `batches` takes its batches.

    Args:
        pins: return batches in page-locked memory.

    Raises:
        UserError: the processes cannot be started.
    """

    def __init__(self, count: int, *, pins: bool) -> None:
        self._pins = pins
        self._workers: list[_Worker] = []
        self._beginning: list[_Worker] = []
        self._asked: deque[Samples] = deque()
        self._number = 0
        with self._starting():
            self._index = SharedArrays()
            for _ in range(count):
                self._workers.append(_Worker(self._index))

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [worker.process.pid for worker in self._workers]

    @property
    def shared_bytes(self) -> int:
        """Shared memory of index and batches."""
        own = (memory.size for worker in self._workers for memory in worker.places)
        return self._index.size + sum(own)

    def begin(self, stream: SampleStream) -> None:
        """Make batches of `stream` from now on. Returns before the processes are ready.

        Raises:
            Interrupted: as `batches`.
        """
        self._drop()
        while self._beginning:
            self._beginning.pop().answer()
        with self._starting():
            index = self._index.write(stream.examples.index())
        request = {"stream": _described(stream), "index": index}
        for worker in self._workers:
            worker.ask(request)
        self._beginning = list(self._workers)

    def are_ready(self) -> bool:
        """Whether `batches` would not wait for the processes to begin.

        Raises:
            UserError, Interrupted: as `batches`.
        """
        while self._beginning and self._beginning[-1].has_answered():
            self._beginning.pop().answer()
        return not self._beginning

    def batches(self, wanted: Sequence[Samples], later: Iterable[Samples] = ()) -> list[PretrainingBatch]:
        """The batches of the groups `wanted`, in order; the groups of `later` are begun.

        What was begun and is not next is dropped.

        Raises:
            UserError: the corpus is damaged or another one, as a process says.
            Interrupted: a process has ended, or failed.
        """
        while self._beginning:
            self._beginning.pop().answer()
        most = _GROUPS_EACH * len(self._workers)
        plan = deque((*wanted, *itertools.islice(later, most)))
        if list(self._asked) != list(itertools.islice(plan, len(self._asked))):
            self._drop()
        for _ in self._asked:
            plan.popleft()
        taken: list[PretrainingBatch] = []
        for _ in wanted:
            self._ask(plan, most)
            taken.extend(self._take())
        self._ask(plan, most)
        return taken

    def close(self) -> None:
        """End the processes; may be called from another thread, whose call then raises `Interrupted`."""
        for worker in self._workers:
            worker.process.kill()  # it holds nothing that is worth saving
        for worker in self._workers:
            worker.process.wait()

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """Context for what the system may refuse: processes, memory, open files."""
        try:
            yield
        except OSError as error:
            self.close()
            raise UserError(f"processes that make batches cannot be started: {error}", remedy=_REMEDY) from None

    def _ask(self, plan: deque[Samples], most: int) -> None:
        while plan and len(self._asked) < most:
            samples = plan.popleft()
            worker, place = self._of(self._number + len(self._asked))
            worker.ask({"batches": [place, *samples]})
            self._asked.append(samples)

    def _of(self, number: int) -> tuple[_Worker, int]:
        """Who makes batch `number`, and into which of its places; the batch there before was taken by then."""
        count = len(self._workers)
        return self._workers[number % count], number // count % _GROUPS_EACH

    def _take(self) -> list[PretrainingBatch]:
        worker, place, answer = self._next_answer()
        layout, numbers = answer["layout"], answer["numbers"]
        shared = torch.from_numpy(worker.places[place].bytes(layout))
        copied = shared.pin_memory() if self._pins else shared.clone()
        given: list[dict[str, Any]] = [{"attention_mask": None, **each} for each in numbers]
        for name, (kind, shape, first) in layout.items():
            number, field = name.split()
            own = copied[first : first + np.dtype(kind).itemsize * math.prod(shape)]
            given[int(number)][field] = own.view(_TYPES[kind]).view(shape)
        return [PretrainingBatch(**each) for each in given]

    def _drop(self) -> None:
        while self._asked:
            self._next_answer()

    def _next_answer(self) -> tuple[_Worker, int, dict[str, Any]]:
        worker, place = self._of(self._number)
        self._number += 1
        self._asked.popleft()
        return worker, place, worker.answer()


class _Worker:
    """One process, seen from the one that started it."""

    def __init__(self, index: SharedArrays) -> None:
        self.places = [SharedArrays() for _ in range(_GROUPS_EACH)]
        own, its = socket.socketpair()
        self._connection = Connection(own.detach())
        descriptors = [its.fileno(), index.descriptor, *(memory.descriptor for memory in self.places)]
        program = _PROGRAM.format(path=ascii(sys.path), descriptors=descriptors)
        # Ctrl-C and a scheduler's signals reach every process; the run's own stops, saves, and then needs them still.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=descriptors,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            its.close()

    def ask(self, request: dict[str, Any]) -> None:
        with self._watched():
            self._connection.send_bytes(json.dumps(request).encode())

    def has_answered(self) -> bool:
        with self._watched():
            return self._connection.poll()

    def answer(self) -> dict[str, Any]:
        """Of the oldest request without one; waits for it."""
        with self._watched():
            answer: dict[str, Any] = json.loads(self._connection.recv_bytes())
        if "wrong" in answer:
            raise UserError(answer["wrong"], remedy=answer["remedy"])
        if "failed" in answer:
            raise Interrupted(f"{self._name} failed: {answer['failed']}", remedy=_REMEDY)
        return answer

    @property
    def _name(self) -> str:
        return f"process {self.process.pid}, which makes batches,"

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Context for the connection, which ends with the process."""
        try:
            yield
        except (EOFError, OSError):
            try:
                code = self.process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                code = 0
            killer = next((one.name for one in signal.Signals if one == -code), f"signal {-code}")
            how = f"ended with exit code {code}" if code >= 0 else f"was killed by {killer}"
            perhaps = ", perhaps because memory ran out" if code == -signal.SIGKILL else ""
            raise Interrupted(f"{self._name} {how}{perhaps}", remedy=_REMEDY) from None


def serve(descriptors: Sequence[int]) -> None:
    """Answer requests until the other side of the connection is closed: the whole life of such a process.

    Args:
        descriptors: of the connection, of the index, and of the places for batches.
    """
    torch.set_num_threads(1)
    connection, index = Connection(descriptors[0]), SharedArrays(descriptors[1])
    places = [SharedArrays(descriptor) for descriptor in descriptors[2:]]
    stream: SampleStream | None = None
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            request = json.loads(connection.recv_bytes())
            answer: dict[str, Any] = {}
            try:
                if "stream" in request:
                    stream = _opened(request["stream"], index.read(request["index"]))
                else:
                    assert stream is not None
                    place, first, *counts = request["batches"]
                    answer = _written(stream.batches(first, counts), places[place])
            except UserError as error:
                answer = {"wrong": error.what, "remedy": error.remedy}
            except Exception as error:
                answer = {"failed": f"{type(error).__name__}: {error}"}
            connection.send_bytes(json.dumps(answer).encode())


def _written(batches: Sequence[PretrainingBatch], place: SharedArrays) -> dict[str, Any]:
    parts = [batch.parts() for batch in batches]
    arrays = {f"{at} {name}": each.numpy() for at, (tensors, _) in enumerate(parts) for name, each in tensors.items()}
    return {"layout": place.write(arrays), "numbers": [numbers for _, numbers in parts]}


def _described(stream: SampleStream) -> dict[str, Any]:
    examples = stream.examples
    corpus = examples.split.corpus
    return {
        "corpus": str(corpus.path.absolute()),
        "fingerprint": corpus.fingerprint,
        "split": examples.split.name,
        "examples": {name: getattr(examples, name) for name in ("sequence_length", "seed", "phase", "all_masked")},
        "objective": asdict(examples.objective),
        "stream": {"packs": stream.packs, "fixed_shapes": stream.fixed_shapes},
        "mask_schedule": None if stream.mask_schedule is None else asdict(stream.mask_schedule),
    }


def _opened(described: dict[str, Any], index: dict[str, Any]) -> SampleStream:
    corpus = Corpus.open(described["corpus"])
    if corpus.fingerprint != described["fingerprint"]:
        raise UserError(f"the corpus {corpus.path} has changed since the run began", remedy="Restore it, or start anew")
    objective = ObjectiveConfig(**described["objective"])
    examples = example_source(corpus, described["split"], objective=objective, index=index, **described["examples"])
    schedule = described["mask_schedule"] and MaskSchedule(**described["mask_schedule"])
    return SampleStream(examples, mask_schedule=schedule, **described["stream"])
