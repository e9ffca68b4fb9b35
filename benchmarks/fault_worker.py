"""`lambert` in a process that something happens to: what `faults.py` starts in place of `python -m lambert`.

The environment variable FAULT holds a JSON object: `rank`, whom it happens to; `stage`, what or where; `count`, at
which time it gets there; `log`, a file that gets one line when it has happened. Stages:

    step    killed at a random instant of its step number `count`, by a second thread
    write   killed when half of a tensor file is on disk
    sync    killed instead of a call of fsync
    rename  killed just before or just after a rename
    delete  killed when one file of an old checkpoint is gone
    nan, inf, large    in `steps` from `count` on its loss is no number, is infinite, or a thousand times too large
    slow    each step takes `seconds` more

Kernels are PyTorch's own here: without numba a process starts in half the time.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.modules["numba"] = None  # type: ignore[assignment]

from lambert.cli import main as cli  # noqa: E402
from lambert.training.checkpoint import format as checkpoint  # noqa: E402
from lambert.training.step import launcher  # noqa: E402

FAULT: dict[str, Any] = json.loads(os.environ.get("FAULT", "{}"))
CHANCE = random.Random(FAULT.get("seed", 0))


def die() -> None:
    """As by kill -9, having told where."""
    with Path(FAULT["log"]).open("a") as log:
        print(json.dumps({**FAULT, "process": os.getpid()}), file=log, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class Countdown:
    """Becomes true at the `count`-th question."""

    def __init__(self) -> None:
        self._left = int(FAULT.get("count", 1))

    def is_over(self) -> bool:
        """Asked each time the process gets to the place."""
        self._left -= 1
        return self._left == 0


def patch_step(countdown: Countdown) -> None:
    """Dies within a step, wherever it is then."""
    real, times = launcher.launch_step, [0.05]

    def step(*arguments: Any, **options: Any) -> Any:
        began = time.monotonic()
        if countdown.is_over():
            threading.Timer(CHANCE.random() * min(times), die).start()
        result = real(*arguments, **options)
        times.append(time.monotonic() - began)
        return result

    launcher.launch_step = step


def patch_write(countdown: Countdown) -> None:
    """Dies with half a file written."""
    real = checkpoint.save_file

    def save(tensors: Any, path: Path) -> None:
        real(tensors, path)
        if countdown.is_over():
            os.truncate(path, path.stat().st_size // 2)
            die()

    checkpoint.save_file = save  # type: ignore[assignment]


def patch_sync(countdown: Countdown) -> None:
    """Dies in place of an fsync of the checkpoint writer."""
    real = os.fsync

    def sync(descriptor: int) -> None:
        if threading.current_thread().name == "checkpoint-writer" and countdown.is_over():
            die()
        real(descriptor)

    os.fsync = sync  # type: ignore[assignment]


def patch_rename(countdown: Countdown) -> None:
    """Dies around a rename of the checkpoint writer."""

    def patched(real: Any) -> Any:
        def rename(self: Path, target: Any) -> Path:
            is_time = threading.current_thread().name == "checkpoint-writer" and countdown.is_over()
            if is_time and CHANCE.random() < 0.5:
                die()
            renamed: Path = real(self, target)
            if is_time:
                die()
            return renamed

        return rename

    Path.rename = patched(Path.rename)  # type: ignore[method-assign]
    Path.replace = patched(Path.replace)  # type: ignore[method-assign]


def patch_delete(countdown: Countdown) -> None:
    """Dies with half a checkpoint deleted."""
    real = shutil.rmtree

    def remove(path: Any, **options: Any) -> None:
        if Path(path).is_dir() and countdown.is_over():
            next(iter(Path(path).iterdir())).unlink()
            die()
        real(path, **options)

    shutil.rmtree = remove  # type: ignore[assignment]


def patch_loss(factor: float) -> None:
    """Multiplies the loss in some steps."""
    real, first = launcher.launch_step, int(FAULT["count"])

    def step(*arguments: Any, task: Any, **options: Any) -> Any:
        nonlocal number
        number += 1

        def spoiled(model: Any, batch: Any) -> Any:
            output = task(model, batch)
            if first <= number < first + FAULT["steps"]:
                return replace(output, loss_sums={k: factor * v for k, v in output.loss_sums.items()})
            return output

        return real(*arguments, task=spoiled, **options)

    number = 0
    launcher.launch_step = step


def patch_slow() -> None:
    """Makes steps long enough to be looked at from outside."""
    real = launcher.launch_step

    def step(*arguments: Any, **options: Any) -> Any:
        time.sleep(FAULT["seconds"])
        return real(*arguments, **options)

    launcher.launch_step = step


KILLS = {
    "step": patch_step,
    "write": patch_write,
    "sync": patch_sync,
    "rename": patch_rename,
    "delete": patch_delete,
}
FACTORS = {"nan": float("nan"), "inf": float("inf"), "large": 1_000.0}

if __name__ == "__main__":
    if FAULT and FAULT.get("rank") in (None, int(os.environ.get("RANK", "0"))):
        if FAULT["stage"] in KILLS:
            KILLS[FAULT["stage"]](Countdown())
        elif FAULT["stage"] in FACTORS:
            patch_loss(FACTORS[FAULT["stage"]])
        else:
            patch_slow()
    cli.end()
