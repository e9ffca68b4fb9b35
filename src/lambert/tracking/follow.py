"""Sends the metrics of a journal to dashboards, once or while the run trains."""

from __future__ import annotations

import hashlib
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lambert.errors import UserError
from lambert.runlog import schema
from lambert.runlog.records import MOST_LINE_BYTES, Record, check_format, number_or_none
from lambert.runlog.schema import JOURNAL_FILE, RECIPE_FILE, Event
from lambert.runlog.tail import JournalTail
from lambert.tracking.checks import without_password

_POLL_SECONDS = 2.0
_MOST_CHARACTERS = 200
"""Of another program's message."""
_FIELDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    Event.STEP: {"train": schema.TRAINING_METRICS, "speed": schema.THROUGHPUT_METRICS},
    Event.EVALUATION: {"held_out": (*schema.LOSSES, *schema.BASELINES)},
    Event.NOISE: {"noise": schema.NOISE_METRICS},
    Event.PHASE: {"phase": ("sequence_length", "batch_size")},
    Event.MICRO_BATCH: {"phase": ("micro_batch_size",)},
    Event.CHECKPOINT: {"checkpoint": ("bytes", "seconds")},
    Event.SKIPPED: {"incidents": ("consecutive",)},
}
"""Event → group → fields of docs/journal.md; a metric is called group/field."""


@dataclass(frozen=True)
class Metrics:
    """The metrics of one record."""

    step: int
    seconds: float | None
    """When the record was written, since 1970-01-01 00:00 UTC."""
    values: Mapping[str, float]
    """Finite numbers only."""


def metrics_of(record: Record) -> Metrics | None:
    """The metrics of a record; None for records without any, or without a step."""
    event = record["event"]
    step = number_or_none(record.get("first_step" if event == Event.PHASE else "step"))
    if step is None or step < 0 or step != int(step):
        return None
    found = {name: number for name, value in _named(record) if (number := number_or_none(value)) is not None}
    return Metrics(int(step), number_or_none(record.get("time")), found) if found else None


def returns_to(record: Record) -> int | None:
    """The step to which a resume or a rollback returns; None for other records."""
    field = {Event.RUN: "resumed_from_step", Event.ROLLBACK: "to_step"}.get(record["event"])
    step = None if field is None else number_or_none(record.get(field))
    return None if step is None or step < 0 else int(step)


def _named(record: Record) -> Iterator[tuple[str, object]]:
    event = record["event"]
    for group, fields in _FIELDS.get(event, {}).items():
        for field in fields:
            yield f"{group}/{field}", record.get(field)
    if event == Event.STEP:
        for part, seconds in _items(record.get(schema.BREAKDOWN)):
            yield f"speed/{part}_seconds", seconds
    elif event == Event.TRUST_RATIOS:
        for layer, ratio in _items(record.get("trust_ratios")):
            yield f"trust_ratio/{layer}", ratio
    elif event == Event.SPIKE:
        for spike in record.get("spikes") or ():
            if isinstance(spike, Mapping):
                yield f"incidents/{spike.get('metric')}_spike_z_score", spike.get("z_score")


def _items(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from value.items()


@dataclass(frozen=True)
class RunFacts:
    """What a sink gets before the first record."""

    name: str
    """Of the run folder."""
    journal_id: str
    """A digest of the journal's first line, which holds the time: no other journal has it."""
    recipe: dict[str, Any]
    """`recipe.toml`; empty where there is none."""


class Sink(Protocol):
    """A dashboard. Records are counted from 1 over the journal."""

    name: str
    """As messages name it."""
    replaces_steps: bool
    """Whether it drops the later steps at a `restart`. One that cannot is not told again what a resume repeats."""

    @property
    def place(self) -> str | None:
        """Where to find the run, once it has begun."""

    @property
    def shown_by(self) -> str | None:
        """The command that shows or uploads what is at `place`, where there is one."""

    @property
    def words(self) -> list[str]:
        """The options of `lambert track` that make it."""

    def check(self, name: str) -> None:
        """Raise a UserError for what would keep a run of this name from it, as far as that is known at once."""

    def begin(self, facts: RunFacts) -> int:
        """Get ready; returns how many records of this journal it has already."""

    def add(self, record: int, metrics: Metrics) -> None:
        """Take the metrics of one record."""

    def restart(self, step: int, seconds: float | None) -> None:
        """The run has returned to `step`: metrics of later steps come again."""

    def flush(self, record: int) -> None:
        """Everything up to this record has been handed over."""

    def close(self, *, ended: bool) -> None:
        """Nothing more comes. `ended`: the run has ended, and everything up to there has been handed over."""


@dataclass(frozen=True)
class Tracked:
    """The result of `track`."""

    records: int
    """Of the journal, from its beginning."""
    step: int
    """The last one with metrics, 0 for none."""
    ended: bool
    """Whether the journal ends with an `end` event."""


def track(
    run: Path,
    sinks: Sequence[Sink],
    *,
    follow: bool = False,
    poll_seconds: float = _POLL_SECONDS,
    sleep: Callable[[float], object] = time.sleep,
) -> Tracked:
    """Send a run's journal to `sinks`, each from where it stopped the last time.

    Args:
        follow: wait for more until the run ends; the journal need not exist yet.
        sleep: called between two reads; where it returns True, the next one is the last.

    Raises:
        UserError: there is no run folder or no journal, the journal has another format, another run replaced it, or a
            sink failed.
    """
    journal = run / JOURNAL_FILE
    if not run.is_dir() or not (follow or journal.is_file()):
        raise UserError(f"there is no {journal}", remedy="Give the folder that `lambert pretrain --out` wrote")
    tail, feeds, journal_id = JournalTail(journal), [_Feed(sink) for sink in sinks], None
    count, step, ended, flushed, is_last = 0, 0, False, 0, not follow
    is_complete = False
    try:
        while True:
            first = _first_line_digest(journal)
            if journal_id is None and first is not None:
                journal_id = first
                for feed in feeds:
                    feed.begin(RunFacts(run.resolve().name, journal_id, _recipe(run)))
            elif journal_id is not None and first != journal_id:
                raise UserError(
                    f"{journal} was replaced by the journal of another run", remedy="Run the same command again"
                )
            for record in tail.read():
                check_format(record, journal)
                count += 1
                ended = record["event"] == Event.END or (ended and record["event"] != Event.RUN)
                metrics = metrics_of(record)
                step = step if metrics is None else metrics.step
                for feed in feeds:
                    feed.take(count, record, metrics)
            if count > flushed:
                flushed = count
                for feed in feeds:
                    feed.flush(count)
            if ended or is_last:
                is_complete = True
                return Tracked(count, step, ended)
            is_last = sleep(poll_seconds) is True
    finally:
        for feed in feeds:
            feed.close(ended=ended and is_complete)


class _Feed:
    """Hands a journal to a sink: what it has not had; after a resume no step twice, unless it drops the first one."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._had = sink, 0
        self._last: dict[str, int] = {}  # event → highest step
        self._repeats: dict[str, int] = {}  # the same, before the last resume or rollback

    def begin(self, facts: RunFacts) -> None:
        with self._named():
            self._had = self._sink.begin(facts)

    def take(self, count: int, record: Record, metrics: Metrics | None) -> None:
        event, back = record["event"], returns_to(record)
        if back is not None:
            if event == Event.ROLLBACK:  # the steps after it are others; those after a resume are the same again
                self._last = {name: min(step, back) for name, step in self._last.items()}
            self._repeats = dict(self._last)
        is_new = count > self._had
        with self._named():
            if back is not None and is_new:
                self._sink.restart(back, number_or_none(record.get("time")))
            if metrics is None:
                return
            is_repeat = metrics.step <= self._repeats.get(event, -1) and not self._sink.replaces_steps
            self._last[event] = max(metrics.step, self._last.get(event, -1))
            if is_new and not is_repeat:
                self._sink.add(count, metrics)

    def flush(self, count: int) -> None:
        with self._named():
            self._sink.flush(max(count, self._had))

    def close(self, *, ended: bool) -> None:
        with self._named():
            self._sink.close(ended=ended)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What fails in a client, whatever it raises, is one line that names it."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{self._sink.name} failed ({told(error)})", remedy="Run the same command again to send what is missing"
            ) from None


def told(error: Exception) -> str:
    """What a client says, on one line, without passwords."""
    line = without_password((str(error) or type(error).__name__).strip().splitlines()[0])
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]} …"


def _first_line_digest(journal: Path) -> str | None:
    """A digest of the first line; None while there is no complete one."""
    try:
        with journal.open("rb") as file:
            line = file.readline(MOST_LINE_BYTES)
    except OSError:
        return None
    return hashlib.sha256(line).hexdigest() if line.endswith(b"\n") else None


def _recipe(run: Path) -> dict[str, Any]:
    try:
        with (run / RECIPE_FILE).open("rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError):  # the metrics are useful without it
        return {}
