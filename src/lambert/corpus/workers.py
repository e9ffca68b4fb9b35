"""Builds partitions in this process or in several worker processes; finished ones are never built again."""

from __future__ import annotations

import json
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from lambert.corpus.build_folder import PARTITIONS_FOLDER
from lambert.corpus.partitions import (
    DocumentEncoder,
    EncodedBatch,
    PartitionBuilder,
    PartitionRecord,
    PartitionSettings,
    Progress,
    batches_of,
)
from lambert.corpus.sources import Document, TextReader, identities, stored_bytes
from lambert.corpus.store import TOKENIZER_FOLDER
from lambert.errors import UserError
from lambert.utils.tokenizer_calls import open_tokenizer

_POLL_SECONDS = 0.5
_STOP = "stop"
_BATCHES_AHEAD = 2
"""Batches that wait or are worked on, per process."""


@dataclass(frozen=True)
class Job:
    """One partition to build."""

    folder: Path
    """Build folder of the corpus."""
    number: int
    files: tuple[Path, ...]
    settings: PartitionSettings

    @property
    def record_file(self) -> Path:
        """Where its record is when it is finished."""
        return self.folder / PARTITIONS_FOLDER / f"{self.number:05}.json"

    @property
    def progress_file(self) -> Path:
        """Where a worker writes its progress."""
        return self.folder / PARTITIONS_FOLDER / f"{self.number:05}.progress"

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer to encode with."""
        return self.folder / TOKENIZER_FOLDER / "tokenizer.json"

    def finished_record(self) -> PartitionRecord | None:
        """Its record, where there is one of the same files."""
        try:
            record = PartitionRecord.read(self.record_file)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if record.sources == identities(self.files) else None


Report = Callable[[int, Progress], None]
"""Called with a partition's number and its progress."""


def build_partitions(jobs: Sequence[Job], workers: int, report: Report) -> list[PartitionRecord]:
    """The records of all partitions, in order; those that are not finished are built.

    With at least as many unfinished partitions as workers, each worker builds partitions. With fewer, all workers
    encode for one partition at a time, which this process reads and writes.

    Raises:
        UserError: an input is wrong, or a worker was killed.
    """
    unfinished: list[Job] = []
    for job in jobs:
        if (record := job.finished_record()) is None:
            unfinished.append(job)
        else:
            report(job.number, record.progress)
    if workers == 1:
        for job in unfinished:
            _build(job, report)
    elif len(unfinished) >= workers:
        _build_in_parallel(unfinished, workers, report)
    else:
        for job in unfinished:
            with worker_processes(workers, _load_encoder, job.tokenizer_file, job.settings) as executor:
                _build(job, report, partial(_encode_ahead, executor, workers))
    return [PartitionRecord.read(job.record_file) for job in jobs]


Encode = Callable[[Iterable[list[Document]]], Iterable[EncodedBatch]]


def _build(job: Job, report: Report, encode: Encode | None = None) -> None:
    """Builds a partition from its files; batches are encoded in this process unless `encode` is given."""
    tokenizer = open_tokenizer(job.tokenizer_file)
    reader = TextReader(job.files, job.settings.read)

    def progress(documents: int, tokens: int) -> None:
        report(job.number, (reader.statistics.stored_bytes, documents, tokens))

    job.record_file.unlink(missing_ok=True)  # a record of other files must not vouch for the shards written now
    sources = identities(job.files)  # before reading: a file that changes meanwhile is read again next time
    builder = PartitionBuilder(job.folder, job.number, tokenizer, job.settings, progress)
    batches = batches_of(reader)
    encoded = map(DocumentEncoder(tokenizer, job.settings).encode, batches) if encode is None else encode(batches)
    builder.build(encoded)
    record = builder.record(reader.statistics, sources)
    record.write(job.record_file)
    report(job.number, record.progress)


def _build_in_parallel(jobs: Sequence[Job], workers: int, report: Report) -> None:
    """Each worker reads, encodes and writes whole partitions, the largest first."""

    def size(job: Job) -> int:
        return sum(stored_bytes(file) or 0 for file in job.files)

    stop = jobs[0].folder / _STOP
    stop.unlink(missing_ok=True)
    try:
        with worker_processes(workers) as executor:
            try:
                futures = {executor.submit(_in_worker, job): job for job in sorted(jobs, key=size, reverse=True)}
                waiting: set[Future[None]] = set(futures)
                while waiting:
                    done, waiting = wait(waiting, _POLL_SECONDS, return_when=FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    for future, job in futures.items():
                        if future in done:
                            report(job.number, PartitionRecord.read(job.record_file).progress)
                        elif future in waiting and (progress := _read_progress(job)) is not None:
                            report(job.number, progress)
            except BaseException:
                stop.touch()  # workers look for it after every batch
                raise
    finally:
        stop.unlink(missing_ok=True)


def _read_progress(job: Job) -> Progress | None:
    try:
        stored, documents, tokens = json.loads(job.progress_file.read_text())
    except (OSError, ValueError):
        return None
    return stored, documents, tokens


def _in_worker(job: Job) -> None:
    def report(number: int, progress: Progress) -> None:
        if (job.folder / _STOP).exists():
            raise InterruptedError("the main process stops")
        unfinished = job.progress_file.with_suffix(".progress-partial")
        unfinished.write_text(json.dumps(progress))
        unfinished.replace(job.progress_file)

    _build(job, report)


_encoder: DocumentEncoder | None = None
"""Of this process, where it encodes for another."""


def _load_encoder(tokenizer_file: Path, settings: PartitionSettings) -> None:
    global _encoder
    _encoder = DocumentEncoder(open_tokenizer(tokenizer_file), settings)


def _encode(documents: list[Document]) -> EncodedBatch:
    assert _encoder is not None
    return _encoder.encode(documents)


def _encode_ahead(
    executor: ProcessPoolExecutor, workers: int, batches: Iterable[list[Document]]
) -> Iterator[EncodedBatch]:
    """The batches encoded by the workers, in order, a bounded number of them ahead."""
    waiting: deque[Future[EncodedBatch]] = deque()
    for batch in batches:
        waiting.append(executor.submit(_encode, batch))
        if len(waiting) > _BATCHES_AHEAD * workers:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def worker_processes(
    count: int, begin: Callable[..., None] | None = None, *values: Any
) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` processes, each of which first calls `begin(*values)`; they end with this process.

    Raises:
        UserError: one of them was killed.
    """
    executor = ProcessPoolExecutor(count, get_context("spawn"), initializer=_begin, initargs=(begin, values))
    try:
        yield executor
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps because memory ran out",
            remedy="Give fewer `workers`; finished partitions are kept, and the same call resumes",
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _begin(begin: Callable[..., None] | None, values: tuple[Any, ...]) -> None:
    # Ctrl-C reaches every process of the terminal; the main process stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin(*values)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
