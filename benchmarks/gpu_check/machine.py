"""Stages 1 and 2: the machine's ceilings, and the tests that need a GPU."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch

from gpu_check.measure import copy_bandwidth, product_rate
from gpu_check.report import Report
from gpu_check.stages import Settings

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = (
    *("torch", "numpy", "triton", "safetensors", "tokenizers", "pyarrow", "numba", "transformers", "pytest"),
    *("tomli-w", "tyro", "rich", "filelock", "sentencex"),
)


def ceilings(settings: Settings, report: Report) -> None:
    """Versions, copy bandwidth, and the rate of a large product on random data."""
    report.facts["versions"] = {name: _version(name) for name in _PACKAGES}
    report.facts["python"] = platform.python_version()
    report.facts["cuda"] = torch.version.cuda
    report.facts["compiler"] = shutil.which("cc") or shutil.which("gcc")
    if settings.on_gpu:
        with report.case("device") as row:
            properties = torch.cuda.get_device_properties(0)
            row["name"], row["bytes"] = properties.name, properties.total_memory
            row["capability"] = ".".join(map(str, torch.cuda.get_device_capability(0)))
            row["driver"] = _driver()
    with report.case("copy") as row:
        row["bytes_per_second"] = copy_bandwidth(settings)
        report.expect(row["bytes_per_second"] > 0, "the copy took no time")
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        for random in (True, False):
            name = str(dtype).removeprefix("torch.")
            with report.case(f"product {name}, {'random data' if random else 'ones'}") as row:
                row["flops_per_second"] = product_rate(settings, dtype, random=random)
                row["tf32"] = torch.get_float32_matmul_precision() if dtype == torch.float32 else None


def gpu_tests(settings: Settings, report: Report) -> None:
    """`pytest -m gpu` on the files with such tests."""
    if not settings.on_gpu:
        report.facts["skipped"] = "these tests need a GPU"
        return
    if find_spec("pytest") is None:
        report.facts["skipped"] = "pytest is not installed"
        return
    marked = sorted(str(path) for path in (_ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text())
    if not marked:
        report.facts["skipped"] = "the tests are not here"
        return
    alone = [] if find_spec("hypothesis") else ["--noconftest"]  # conftest.py needs it, these tests do not
    with tempfile.TemporaryDirectory() as folder, report.case("pytest -m gpu") as row:
        program = f"import sys; sys.path[:] = {sys.path!r}; import pytest; sys.exit(pytest.main())"
        words = [sys.executable, "-c", program, "-m", "gpu", "-q", "-p", "no:cacheprovider", "--basetemp", folder]
        options = {"cwd": _ROOT, "capture_output": True, "text": True}
        done = subprocess.run([*words, "-o", "filterwarnings=default", *alone, *marked], check=False, **options)
        said = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
        row["files"] = [str(Path(path).relative_to(_ROOT)) for path in marked]
        row["said"] = said[-1]
        row["failed"] = [line for line in said if line.startswith(("FAILED", "ERROR"))][:20]
        is_good = done.returncode == 0 and "passed" in said[-1]
        report.expect(is_good, f"pytest ended with {done.returncode}: {said[-1]}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    """The driver's version, and the clock and power limits."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = "--query-gpu=driver_version,clocks.max.sm,power.limit"
    words = [program, asked, "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
