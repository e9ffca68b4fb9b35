"""Runs stages one after another, each in a process of its own that ends at its limit, and keeps a line for each."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_check.report import write_line
from gpu_check.stages import STAGES, Stage

_LOG_TAIL = 400


def line_path(results: Path, stage: Stage) -> Path:
    """Where the line of a stage is."""
    return results / f"{stage.number:02}-{stage.name}.json"


def read_lines(results: Path) -> dict[int, dict[str, Any]]:
    """Stage number → its line, for the stages that have one."""
    lines = {}
    for stage in STAGES:
        with contextlib.suppress(OSError, ValueError):
            lines[stage.number] = json.loads(line_path(results, stage).read_text(encoding="utf-8"))
    return lines


def open_stages(results: Path) -> list[Stage]:
    """The stages without a line, and those whose line is not ok."""
    lines = read_lines(results)
    return [stage for stage in STAGES if not lines.get(stage.number, {}).get("ok")]


def run_stage(stage: Stage, program: Sequence[str], results: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run a stage and return its line, whatever becomes of its process.

    Args:
        program: the words that start this program, with the options that all stages share.
    """
    path, log = line_path(results, stage), results / f"{stage.number:02}-{stage.name}.log"
    path.unlink(missing_ok=True)
    began = time.monotonic()
    words = [*program, "--stage", str(stage.number)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        try:
            ended = _how_it_ended(process, stage.limit)
        finally:
            _kill_group(process)
    seconds = round(time.monotonic() - began, 1)
    line = read_lines(results).get(stage.number)
    if line is None:
        said = log.read_text(errors="replace").strip()[-_LOG_TAIL:]
        line = {"stage": stage.number, "name": stage.name, "ok": False, "problems": [f"no line. {said}"], "rows": []}
    if ended:
        line["ok"] = False
        line["problems"] = [*(one for one in line["problems"] if one != "unfinished"), f"{ended}; see {log.name}"]
    line["seconds"] = seconds
    write_line(path, line)
    return line


def _how_it_ended(process: subprocess.Popen[bytes], limit: float) -> str:
    """Empty where the process ended by itself without an error."""
    try:
        code = process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        return f"killed at its limit of {limit:g} s"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}" if code else ""


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a stage: its process, and the runs that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def environment_of(root: Path, work: Path, device: str) -> dict[str, str]:
    """The environment of a stage: lambert's source, caches of its own, and no GPU where none is asked for."""
    path = [str(root / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "LAMBERT_PROBE_CACHE": "off",  # every forecast is measured
        "HF_HUB_OFFLINE": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    found.setdefault("TORCHINDUCTOR_CACHE_DIR", str(work / "inductor"))
    if device == "cpu":
        found["CUDA_VISIBLE_DEVICES"] = ""
    return found


def run_stages(
    stages: Sequence[Stage], program: Sequence[str], results: Path, environment: Mapping[str, str], say: Any
) -> list[dict[str, Any]]:
    """Run the stages in order; each prints its line as soon as it has ended."""
    results.mkdir(parents=True, exist_ok=True)
    lines = []
    for stage in stages:
        print(f"stage {stage.number} of {len(STAGES)}, at most {stage.limit} s: {stage.asks}", file=sys.stderr)
        lines.append(run_stage(stage, program, results, environment))
        say(json.dumps(lines[-1]))
    return lines


def fresh_folder(path: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
