"""Following a journal while a run writes it: new lines as they come, and the state they add up to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lambert.runlog.records import Phase, Record, number_or_none, parse_line, phase_of
from lambert.runlog.schema import Event

_HEAD_BYTES = 256


class JournalTail:
    """Hands out the complete lines that were added to a journal since the last call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._head = b""  # the file's first bytes when its lines were read: tells a new file from a grown one

    def read(self) -> Iterator[Record]:
        """New records; damaged lines are skipped, half a line waits for its rest, a missing file has none.

        A file that was replaced or has shrunk (a run started afresh) is read from its beginning.
        """
        try:
            with self.path.open("rb") as journal:
                if journal.read(len(self._head)) != self._head or journal.seek(0, os.SEEK_END) < self._offset:
                    self._offset = 0
                journal.seek(0)
                self._head = journal.read(min(_HEAD_BYTES, self._offset))
                journal.seek(self._offset)
                added = journal.read()
        except OSError:
            return
        complete = added[: added.rfind(b"\n") + 1]
        if self._offset < _HEAD_BYTES:
            self._head = (self._head + complete)[:_HEAD_BYTES]
        self._offset += len(complete)
        for line in complete.splitlines():
            record = parse_line(line)
            if record is not None:
                yield record


@dataclass
class LiveState:
    """What is known of the run so far."""

    header: Record = field(default_factory=dict)
    phases: dict[int, Phase] = field(default_factory=dict)
    step: Record | None = None
    evaluation: Record | None = None
    checkpoint: Record | None = None
    end: Record | None = None

    def update(self, record: Record) -> None:
        """Takes one record in; one that lacks what it needs changes nothing."""
        match record["event"]:
            case Event.RUN:
                if record.get("resumed_from_step") == 0:  # a new run: what was known is of another one
                    self.phases, self.step, self.evaluation, self.checkpoint = {}, None, None, None
                self.header, self.end = record, None
            case Event.PHASE:
                try:
                    phase = phase_of(record)
                except ValueError:
                    return
                self.phases[phase.number] = phase
            case Event.STEP:
                self.step = record
            case Event.EVALUATION:
                self.evaluation = record
            case Event.CHECKPOINT:
                self.checkpoint = record
            case Event.END:
                self.end = record

    def number(self, name: str) -> float | None:
        """A metric of the last step."""
        return number_or_none(self.step.get(name)) if self.step else None

    @property
    def total_steps(self) -> int | None:
        """Of the whole run, as far as it is known: recorded, else where the phases so far end."""
        recorded = number_or_none(self.header.get("total_steps"))
        if recorded is not None:
            return int(recorded)
        return max((phase.last_step for phase in self.phases.values()), default=None)
