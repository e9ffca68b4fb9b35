"""Handing a journal on, once or while its run goes on."""

from __future__ import annotations

import hashlib
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lambert.errors import UserError
from lambert.runlog.reader import JOURNAL, RECIPE
from lambert.runlog.records import Record, number_or_none
from lambert.runlog.tail import JournalTail
from lambert.tracking.figures import Figures, figures_of, returns_to

_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class RunFacts:
    """What a sink is told before the first record."""

    name: str
    """Of the run folder."""
    journal_id: str
    """Tells this journal from every other one: a digest of its first line, which holds the time."""
    recipe: dict[str, Any]
    """`recipe.toml`; empty where there is none."""


class Sink(Protocol):
    """Where figures go."""

    def begin(self, facts: RunFacts) -> int:
        """Get ready; how many records of this journal it has already."""

    def add(self, place: int, figures: Figures) -> None:
        """Take the figures of the record at this place, from 1, of the journal."""

    def restart(self, step: int, seconds: float | None) -> None:
        """What was told of later steps is about to be told anew."""

    def flush(self, place: int) -> None:
        """Everything up to this place has been handed over."""

    def close(self) -> None:
        """Nothing more comes."""


@dataclass(frozen=True)
class Tracked:
    """What was handed on."""

    records: int
    """Of the journal, from its beginning."""
    step: int
    """The last one told of, 0 for none."""
    ended: bool
    """Whether the run had stopped in good order."""


def track(
    run: Path,
    sinks: Sequence[Sink],
    *,
    follow: bool = False,
    poll_seconds: float = _POLL_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Tracked:
    """Hand a run's journal on to `sinks`, each from where it stopped the last time.

    Args:
        follow: wait for more until the run ends, and for the journal itself should the run not have begun.
        sleep: for tests.

    Raises:
        UserError: there is no run folder or no journal, or the journal was replaced by another run's meanwhile.
    """
    journal = run / JOURNAL
    if not run.is_dir() or not (follow or journal.is_file()):
        raise UserError(f"there is no {journal}", remedy="Give the folder that a run wrote (its --out)")
    tail, have, journal_id = JournalTail(journal), [0] * len(sinks), None
    place, step, ended, flushed = 0, 0, False, 0
    try:
        while True:
            first = _first_line_digest(journal)
            if journal_id is None and first is not None:
                journal_id = first
                facts = RunFacts(run.resolve().name, journal_id, _recipe(run))
                have = [sink.begin(facts) for sink in sinks]
            elif journal_id is not None and first != journal_id:
                raise UserError(f"{journal} was replaced by that of another run", remedy="Give the same command again")
            for record in tail.read():
                place += 1
                ended = record["event"] == "end" or (ended and record["event"] != "run")
                figures = figures_of(record)
                step = step if figures is None else figures.step
                for sink, done in zip(sinks, have, strict=True):
                    if place > done:
                        _hand_over(sink, place, record, figures)
            if place > flushed:
                flushed = place
                for sink, done in zip(sinks, have, strict=True):
                    sink.flush(max(place, done))
            if ended or not follow:
                return Tracked(place, step, ended)
            sleep(poll_seconds)
    finally:
        for sink in sinks:
            sink.close()


def _hand_over(sink: Sink, place: int, record: Record, figures: Figures | None) -> None:
    back = returns_to(record)
    if back is not None:
        sink.restart(back, number_or_none(record.get("time")))
    if figures is not None:
        sink.add(place, figures)


def _first_line_digest(journal: Path) -> str | None:
    """A digest of the first line; None while there is no complete one."""
    try:
        with journal.open("rb") as file:
            line = file.readline(10_000_000)
    except OSError:
        return None
    return hashlib.sha256(line).hexdigest() if line.endswith(b"\n") else None


def _recipe(run: Path) -> dict[str, Any]:
    try:
        with (run / RECIPE).open("rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError):  # the figures are worth having without it
        return {}
