"""Parts built here or by several processes at once; what is finished is never done again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lambert.corpus.parts import PartBuilder, PartProgress, PartRecord, PartSettings
from lambert.corpus.sources import TextReader, stored_bytes
from lambert.corpus.store import TOKENIZER_FOLDER
from lambert.corpus.working import PARTS_FOLDER
from lambert.errors import UserError

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

    Raises:
        UserError: an input is wrong, or a worker was killed.
    """
    left = [job for job in jobs if not job.is_finished()]
    for job in jobs:
        if job not in left:
            _tell_finished(job, tell)
    if workers > 1 and len(left) > 1:
        _by_processes(left, min(workers, len(left)), tell)
    else:
        for job in left:
            _build(job, tell)
    return [PartRecord.read(job.record_file) for job in jobs]


def _tell_finished(job: Job, tell: Tell) -> None:
    record = PartRecord.read(job.record_file)
    counts = record.splits.values()
    documents, tokens = sum(split.documents for split in counts), sum(split.tokens for split in counts)
    tell(job.number, (record.statistics.stored_bytes, documents, tokens))


def _build(job: Job, tell: Tell) -> None:
    tokenizer = Tokenizer.from_file(str(job.folder / TOKENIZER_FOLDER / "tokenizer.json"))
    reader = TextReader(job.files, text_field=job.settings.text_field)

    def progress(reached: PartProgress) -> None:
        tell(job.number, (reader.statistics.stored_bytes, reached.documents, reached.tokens))

    job.record_file.unlink(missing_ok=True)  # one of other files must not vouch for the shards that are written now
    sources = job.sources()  # before reading: a file that changes meanwhile is read again another time
    builder = PartBuilder(job.folder, job.number, tokenizer, job.settings, progress)
    builder.build(reader)
    builder.record(reader.statistics, sources).write(job.record_file)
    _tell_finished(job, tell)


def _by_processes(jobs: Sequence[Job], workers: int, tell: Tell) -> None:
    stop = jobs[0].folder / _STOP
    stop.unlink(missing_ok=True)
    executor = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin_worker)
    try:
        futures = {executor.submit(_in_worker, job, os.getpid()): job for job in jobs}
        waiting: set[Future[None]] = set(futures)
        while waiting:
            done, waiting = wait(waiting, _SECONDS_BETWEEN_LOOKS, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
                _tell_finished(futures[future], tell)
            for future in waiting:
                _tell_progress(futures[future], tell)
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps for want of memory",
            remedy="Give fewer --workers; what is finished is kept, and the same command goes on from there",
        ) from None
    except BaseException:
        stop.touch()  # workers look for it after every batch
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        stop.unlink(missing_ok=True)


def _begin_worker() -> None:
    # Ctrl-C reaches every process of the terminal; the one that asked tells the others to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _in_worker(job: Job, parent: int) -> None:
    def tell(number: int, values: tuple[int, int, int]) -> None:
        if os.getppid() != parent:  # whoever asked for this has gone
            os.kill(os.getpid(), signal.SIGTERM)
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
