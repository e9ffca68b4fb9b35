"""How long the cells of a sweep will take: a plan of one cell for each batch, found out side by side and remembered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.experiments.grid import Cell, Sweep, option_words
from lambert.experiments.signals import signals_deferred
from lambert.utils.io import write_json

PROBE_SECONDS = 1
FILE = "forecast.json"


def expected_seconds(
    sweep: Sweep, out: Path, *, jobs: int, threads: int, plan_options: Collection[str]
) -> dict[str, float]:
    """What a cell of each batch is expected to take, seconds, by `Cell.batch`.

    Args:
        out: folder of the sweep, where it is remembered.
        plan_options: options that `plan` has; others of a run change no time worth telling.

    Raises:
        UserError: a cell cannot be planned, so that it could not be run either.
    """
    asked_for: dict[str, Any] = {"options": sweep.common_words(), "jobs": jobs, "threads": threads}
    known = _remembered(out / FILE, asked_for)
    first: dict[str, Cell] = {}
    for cell in sweep.cells:
        if cell.batch not in known:
            first.setdefault(cell.batch, cell)
    asked = list(first.values())
    shared = option_words({name: value for name, value in sweep.options.items() if name in plan_options})
    for start in range(0, len(asked), jobs):
        together = asked[start : start + jobs]
        for cell, seconds in zip(together, _planned(shared, together, threads), strict=True):
            known[cell.batch] = seconds
    write_json(out / FILE, {**asked_for, "seconds": known})
    return known


def _planned(shared: Sequence[str], cells: Sequence[Cell], threads: int) -> list[float]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    processes: list[subprocess.Popen[str]] = []
    try:
        with signals_deferred():
            for cell in cells:
                words = ["plan", *shared, *cell.words(), "--json", "--probe-seconds", str(PROBE_SECONDS)]
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "lambert", *words],
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                    )
                )  # fmt: skip
        answers = [process.communicate() for process in processes]
    finally:  # where this is interrupted, nobody wants their answers any more
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    seconds = []
    for cell, process, (out, error) in zip(cells, processes, answers, strict=True):
        if process.returncode:
            told = (error.strip().splitlines() or ["no reason given"])[-1].removeprefix("lambert: ").rstrip(".")
            raise UserError(f"cell {cell.name} cannot be run: {told}", remedy="Change the sweep's file")
        seconds.append(float(json.loads(out.splitlines()[-1])["seconds"]))
    return seconds


def _remembered(path: Path, asked_for: Mapping[str, Any]) -> dict[str, float]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if any(found[name] != value for name, value in asked_for.items()):
            return {}
        return {str(batch): float(seconds) for batch, seconds in found["seconds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
