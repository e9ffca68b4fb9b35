"""Writes `journal.jsonl`: one JSON object a line (fields in docs/journal.md)."""

from __future__ import annotations

import errno
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lambert.runlog.schema import FORMAT_VERSION, Event


class Journal:
    """Appends events to a file; every line is complete and readable at once.

    Half a last line, as a killed run leaves it, is ended before anything is added. Where the disk is full, events wait
    in memory for the next one to be written.
    """

    def __init__(self, path: Path, *, silent: bool = False) -> None:
        """`silent` writes nothing, for ranks other than 0."""
        self._silent = silent
        if silent:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        self._waiting = b"" if self._ends_well() else b"\n"

    def _ends_well(self) -> bool:
        if self._file.seek(0, 2) == 0:
            return True
        self._file.seek(-1, 2)
        return self._file.read(1) == b"\n"

    def write(self, event: str, fields: Mapping[str, Any]) -> None:
        """Adds one event. Numbers that are not finite become null, as JSON has none; `run` gets the format version."""
        if self._silent:
            return
        if event == Event.RUN:
            fields = {"format_version": FORMAT_VERSION, **fields}
        line = json.dumps({"event": event, "time": round(time.time(), 3), **_finite(fields)}, allow_nan=False)
        self._waiting += line.encode() + b"\n"
        self._write_waiting()

    def _write_waiting(self) -> None:
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._silent:
            self._file.close()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
