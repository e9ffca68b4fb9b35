"""Estimates how long the trials of a sweep take: `plan` runs once for each batch size, and its answer is cached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.experiments.grid import Sweep, Trial, option_arguments
from lambert.experiments.signals import signals_deferred
from lambert.utils.io import write_json

PROBE_SECONDS = 1
FILE = "forecast.json"


def expected_seconds(
    sweep: Sweep, out: Path, *, jobs: int, threads: int, plan_options: Collection[str]
) -> dict[str, float]:
    """Expected seconds of a trial, by `Trial.batch`.

    Args:
        out: folder of the sweep, which holds the cache.
        plan_options: options that `plan` has; other options of a run hardly change its time.

    Raises:
        UserError: a trial cannot be planned, so that it could not be run either.
    """
    asked_for: dict[str, Any] = {"options": sweep.shared_arguments(), "jobs": jobs, "threads": threads}
    known = _cached(out / FILE, asked_for)
    first: dict[str, Trial] = {}
    for trial in sweep.trials:
        if trial.batch not in known:
            first.setdefault(trial.batch, trial)
    asked = list(first.values())
    shared = option_arguments({name: value for name, value in sweep.options.items() if name in plan_options})
    for start in range(0, len(asked), jobs):
        together = asked[start : start + jobs]
        for trial, seconds in zip(together, _planned(shared, together, threads), strict=True):
            known[trial.batch] = seconds
    write_json(out / FILE, {**asked_for, "seconds": known})
    return known


def _planned(shared: Sequence[str], trials: Sequence[Trial], threads: int) -> list[float]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    processes: list[subprocess.Popen[str]] = []
    try:
        with signals_deferred():
            for trial in trials:
                arguments = ["plan", *shared, *trial.arguments(), "--json", "--probe-seconds", str(PROBE_SECONDS)]
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "lambert", *arguments],
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                    )
                )  # fmt: skip
        answers = [process.communicate() for process in processes]
    finally:  # after an interrupt nobody reads their output
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    seconds = []
    for trial, process, (out, error) in zip(trials, processes, answers, strict=True):
        if process.returncode:
            reason = (error.strip().splitlines() or ["no reason given"])[-1].removeprefix("lambert: ").rstrip(".")
            raise UserError(f"trial {trial.name} cannot be run: {reason}", remedy="Change the sweep's file")
        seconds.append(float(json.loads(out.splitlines()[-1])["seconds"]))
    return seconds


def _cached(path: Path, asked_for: Mapping[str, Any]) -> dict[str, float]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if any(found[name] != value for name, value in asked_for.items()):
            return {}
        return {str(batch): float(seconds) for batch, seconds in found["seconds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
