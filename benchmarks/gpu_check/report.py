"""What a stage has found so far: saved after every case, so that a stage that is killed leaves what it had."""

from __future__ import annotations

import json
import math
import os
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Report:
    """The line of one stage. `ok` means that every case ran and gave sense, not that it was fast."""

    def __init__(self, path: Path, number: int, name: str) -> None:
        self._path, self._began = path, time.monotonic()
        self._head = {"stage": number, "name": name}
        self.facts: dict[str, Any] = {}
        """Further fields of the line."""
        self.problems: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self.save(finished=False)

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return time.monotonic() - self._began

    @contextmanager
    def case(self, name: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """A row to fill. An exception ends the case, not the stage; the row says what it was, warnings too."""
        row: dict[str, Any] = {"case": name, **facts}
        began = time.monotonic()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("default")
                yield row
            if caught:
                row["warnings"] = [*dict.fromkeys(str(one.message)[:200] for one in caught)][:3]
        except Exception as error:
            row["problem"] = described(error)
            self.problems.append(f"{name}: {row['problem']}")
            traceback.print_exc()  # into the stage's log
        row["case_seconds"] = round(time.monotonic() - began, 2)
        self._rows.append(row)
        self.save(finished=False)

    def expect(self, is_so: bool, otherwise: str) -> None:
        """Note a problem where something is not as it must be."""
        if not is_so:
            self.problems.append(otherwise)

    def save(self, *, finished: bool) -> None:
        """Write the line."""
        problems = self.problems if finished else [*self.problems, "unfinished"]
        line = {
            **self._head,
            "ok": not problems,
            "seconds": round(self.seconds, 1),
            "problems": problems,
            **self.facts,
            "rows": self._rows,
        }
        write_line(self._path, line)


def described(error: BaseException) -> str:
    """Type, message and place of an exception, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed here: carry it in the archive, with --wheels{place}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:500] + place


def write_line(path: Path, line: dict[str, Any]) -> None:
    """Write a stage's line, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_plain(line), allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become words, so that they are seen."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
