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

import torch

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch, SampleStream, example_source
from lambert.data.objective import ObjectiveConfig
from lambert.errors import Interrupted, UserError
from lambert.utils.shared_arrays import SharedArrays
from lambert.utils.stop_signals import stop_signals

Samples = tuple[int, int]
"""First sample of a batch and the number of its samples."""
_BATCHES_EACH = 2
"""Batches of each process that are being made or wait to be taken; so many are kept in memory."""
_SECONDS_TO_END = 10.0
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
        self._index = SharedArrays()
        self._workers: list[_Worker] = []
        self._beginning: list[_Worker] = []
        self._asked: deque[Samples] = deque()
        self._number = 0
        try:
            for _ in range(count):
                self._workers.append(_Worker(self._index))
        except OSError as error:
            self.close()
            raise UserError(f"a process that makes batches cannot be started: {error}", remedy=_REMEDY) from None

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [worker.process.pid for worker in self._workers]

    @property
    def shared_bytes(self) -> int:
        """Shared memory of index and batches."""
        own = (memory.size for worker in self._workers for memory in worker.batches)
        return self._index.size + sum(own)

    def begin(self, stream: SampleStream) -> None:
        """Make batches of `stream` from now on. Returns before the processes are ready.

        Raises:
            Interrupted: as `batches`.
        """
        self._drop()
        while self._beginning:
            self._beginning.pop().answer()
        request = {"stream": _described(stream), "index": self._index.write(stream.examples.index())}
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
        """The batches `wanted`, in order; those of `later` are begun.

        What was begun and is not next is dropped.

        Raises:
            UserError: the corpus is damaged or another one, as a process says.
            Interrupted: a process has ended, or failed.
        """
        while self._beginning:
            self._beginning.pop().answer()
        most = _BATCHES_EACH * len(self._workers)
        plan = deque((*wanted, *itertools.islice(later, most)))
        if list(self._asked) != list(itertools.islice(plan, len(self._asked))):
            self._drop()
        for _ in self._asked:
            plan.popleft()
        taken = []
        for _ in wanted:
            self._ask(plan, most)
            taken.append(self._take())
        self._ask(plan, most)
        return taken

    def close(self) -> None:
        """End the processes; may be called from another thread, whose call then raises `Interrupted`."""
        for worker in self._workers:
            worker.process.kill()  # it holds nothing that is worth saving
        for worker in self._workers:
            worker.process.wait()

    def _ask(self, plan: deque[Samples], most: int) -> None:
        while plan and len(self._asked) < most:
            samples = plan.popleft()
            worker, place = self._of(self._number + len(self._asked))
            worker.ask({"batch": [place, *samples]})
            self._asked.append(samples)

    def _of(self, number: int) -> tuple[_Worker, int]:
        """Who makes batch `number`, and into which of its places; the batch there before was taken by then."""
        count = len(self._workers)
        return self._workers[number % count], number // count % _BATCHES_EACH

    def _take(self) -> PretrainingBatch:
        worker, place, answer = self._next_answer()
        arrays = worker.batches[place].read(answer["arrays"])
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        batch = PretrainingBatch(**{"attention_mask": None, **answer["numbers"], **tensors})
        return batch.pin_memory() if self._pins else batch.clone()

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
        self.batches = [SharedArrays() for _ in range(_BATCHES_EACH)]
        own, its = socket.socketpair()
        self._connection = Connection(own.detach())
        descriptors = [its.fileno(), index.descriptor, *(memory.descriptor for memory in self.batches)]
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
                    place, first, count = request["batch"]
                    answer = _written(stream.batch(first, count), places[place])
            except UserError as error:
                answer = {"wrong": error.what, "remedy": error.remedy}
            except Exception as error:
                answer = {"failed": f"{type(error).__name__}: {error}"}
            connection.send_bytes(json.dumps(answer).encode())


def _written(batch: PretrainingBatch, place: SharedArrays) -> dict[str, Any]:
    tensors, numbers = batch.parts()
    return {"arrays": place.write({name: tensor.numpy() for name, tensor in tensors.items()}), "numbers": numbers}


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
    }


def _opened(described: dict[str, Any], index: dict[str, Any]) -> SampleStream:
    corpus = Corpus.open(described["corpus"])
    if corpus.fingerprint != described["fingerprint"]:
        raise UserError(f"the corpus {corpus.path} has changed since the run began", remedy="Restore it, or start anew")
    objective = ObjectiveConfig(**described["objective"])
    examples = example_source(corpus, described["split"], objective=objective, index=index, **described["examples"])
    return SampleStream(examples, **described["stream"])
