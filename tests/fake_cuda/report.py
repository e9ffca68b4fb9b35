"""Runs a module of this package in a process of its own, since the fake device is loaded before torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


def run(module: str, report: Path, *words: object) -> dict[str, Any]:
    """The report of a module of `fake_cuda`, and in `said` what it wrote to stderr."""
    shim = os.environ.get("FAKE_CUDA_FOLDER", str(TESTS.parent / ".pytest_cache" / "fake_cuda"))
    path = os.pathsep.join((str(TESTS), str(TESTS.parent / "src")))
    done = subprocess.run(
        [sys.executable, "-m", "fake_cuda", module, str(report), *map(str, words)],
        env={**os.environ, "FAKE_CUDA_FOLDER": shim, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert report.exists(), done.stderr[-3000:]
    result: dict[str, Any] = {"said": done.stderr, **json.loads(report.read_text())}
    return result
