"""Parts built here or by several processes at once; what is finished is never done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lambert.corpus.parts import (
    DocumentEncoder,
    Encoded,
    PartBuilder,
    PartProgress,
    PartRecord,
    PartSettings,
    batches_of,
)
from lambert.corpus.processes import in_order, worker_processes
from lambert.corpus.sources import Document, TextReader, stored_bytes
from lambert.corpus.store import TOKENIZER_FOLDER
from lambert.corpus.working import PARTS_FOLDER

_SECONDS_BETWEEN_LOOKS = 0.5
_STOP = "stop"


@dataclass(frozen=True)
class Job:
    """One part to build."""

    folder: Path
    """Working folder of the corpus."""
    number: int
    files: tuple[Path, ...]
    settings: PartSettings

    @property
    def record_file(self) -> Path:
        """Where its record lies when it is finished."""
        return self.folder / PARTS_FOLDER / f"{self.number:05}.json"

    def sources(self) -> list[list[Any]]:
        """Its files with their sizes and times, as they are now."""
        return [_identity(file) for file in self.files]

    def is_finished(self) -> bool:
        """Whether its record is there, of the same files."""
        try:
            return PartRecord.read(self.record_file).sources == self.sources()
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @property
    def progress_file(self) -> Path:
        """Where a worker says how far it has come."""
        return self.folder / PARTS_FOLDER / f"{self.number:05}.progress"


def _identity(file: Path) -> list[Any]:
    if stored_bytes(file) is None:  # a dataset by name
        return [str(file), None, None]
    return [str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns]


Tell = Callable[[int, tuple[int, int, int]], None]
"""Called with a part's number and its stored bytes, documents and tokens so far."""


def build_parts(jobs: Sequence[Job], workers: int, tell: Tell) -> list[PartRecord]:
    """The records of all parts, in order; those that are not there yet are built.

    With at least as many of them as workers, each worker builds parts; with fewer, all workers encode for one part at
    a time, which this process reads and writes.

    Raises:
        UserError: an input is wrong, or a worker was killed.
    """
    left = [job for job in jobs if not job.is_finished()]
    for job in jobs:
        if job not in left:
            _tell_finished(job, tell)
    if workers == 1:
        for job in left:
            _build(job, tell)
    elif len(left) >= workers:
        _part_by_part(left, workers, tell)
    else:
        for job in left:
            _batch_by_batch(job, workers, tell)
    return [PartRecord.read(job.record_file) for job in jobs]


def _tell_finished(job: Job, tell: Tell) -> None:
    record = PartRecord.read(job.record_file)
    counts = record.splits.values()
    documents, tokens = sum(split.documents for split in counts), sum(split.tokens for split in counts)
    tell(job.number, (record.statistics.stored_bytes, documents, tokens))


Encode = Callable[[Iterable[list[Document]]], Iterable[Encoded]]


def _build(job: Job, tell: Tell, encode: Encode | None = None) -> None:
    """Builds a part from its files; batches are encoded here unless `encode` says how."""
    tokenizer = Tokenizer.from_file(str(job.folder / TOKENIZER_FOLDER / "tokenizer.json"))
    reader = TextReader(job.files, text_field=job.settings.text_field)

    def progress(reached: PartProgress) -> None:
        tell(job.number, (reader.statistics.stored_bytes, reached.documents, reached.tokens))

    job.record_file.unlink(missing_ok=True)  # one of other files must not vouch for the shards that are written now
    sources = job.sources()  # before reading: a file that changes meanwhile is read again another time
    builder = PartBuilder(job.folder, job.number, tokenizer, job.settings, progress)
    batches = batches_of(reader)
    here = DocumentEncoder(tokenizer, job.settings)
    builder.build(map(here.encode, batches) if encode is None else encode(batches))
    builder.record(reader.statistics, sources).write(job.record_file)
    _tell_finished(job, tell)


def _part_by_part(jobs: Sequence[Job], workers: int, tell: Tell) -> None:
    """Each process reads, encodes and writes a part, the largest first."""
    stop = jobs[0].folder / _STOP
    stop.unlink(missing_ok=True)
    try:
        with worker_processes(workers) as executor, _stopping(stop):
            futures = {executor.submit(_in_worker, job): job for job in sorted(jobs, key=_size, reverse=True)}
            waiting: set[Future[None]] = set(futures)
            while waiting:
                done, waiting = wait(waiting, _SECONDS_BETWEEN_LOOKS, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                    _tell_finished(futures[future], tell)
                for future in waiting:
                    _tell_progress(futures[future], tell)
    finally:
        stop.unlink(missing_ok=True)


@contextmanager
def _stopping(stop: Path) -> Iterator[None]:
    """Tells the workers, who look after every batch, when this process is to stop."""
    try:
        yield
    except BaseException:
        stop.touch()
        raise


def _size(job: Job) -> int:
    return sum(stored_bytes(file) or 0 for file in job.files)


def _batch_by_batch(job: Job, workers: int, tell: Tell) -> None:
    """This process reads and writes; the others encode."""
    tokenizer_file = job.folder / TOKENIZER_FOLDER / "tokenizer.json"
    with worker_processes(workers, _begin_encoding, tokenizer_file, job.settings) as executor:
        _build(job, tell, lambda batches: in_order(executor, workers, _encode, batches))


_encoder: DocumentEncoder | None = None
"""Of this process, where it encodes for another."""


def _begin_encoding(tokenizer_file: Path, settings: PartSettings) -> None:
    global _encoder
    _encoder = DocumentEncoder(Tokenizer.from_file(str(tokenizer_file)), settings)


def _encode(documents: list[Document]) -> Encoded:
    assert _encoder is not None
    return _encoder.encode(documents)


def _in_worker(job: Job) -> None:
    def tell(number: int, values: tuple[int, int, int]) -> None:
        if (job.folder / _STOP).exists():
            raise InterruptedError("the process that asked for this part stops")
        aside = job.progress_file.with_suffix(".progress-partial")
        aside.write_text(json.dumps(values))
        aside.replace(job.progress_file)

    _build(job, tell)


def _tell_progress(job: Job, tell: Tell) -> None:
    try:
        stored_bytes, documents, tokens = json.loads(job.progress_file.read_text())
    except (OSError, ValueError):
        return
    tell(job.number, (stored_bytes, documents, tokens))
