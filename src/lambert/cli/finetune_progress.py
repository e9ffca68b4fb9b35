"""Progress of a fine-tuning on standard error: a bar on a terminal, a line every 20 seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lambert.utils import formatting

if TYPE_CHECKING:
    from lambert.finetune.settings import FineTuneProgress

_SECONDS_BETWEEN_LINES = 20.0


@contextmanager
def fine_tune_progress(*, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[FineTuneProgress], None]]:
    """A callback that shows the progress of training and evaluation, and the time left.

    Args:
        clock: seconds from any origin, for tests.
    """
    if not sys.stderr.isatty():
        yield _plain_lines(clock)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"))
    # Printed lines go above the bar where standard output is a terminal too; a pipe stays a pipe.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("reading", total=None, facts="")

        def show(progress: FineTuneProgress) -> None:
            facts = ", ".join(_facts(progress))
            bar.update(task, description=_title(progress), total=progress.total, completed=progress.done, facts=facts)

        yield show


def _plain_lines(clock: Callable[[], float]) -> Callable[[FineTuneProgress], None]:
    last = clock()

    def show(progress: FineTuneProgress) -> None:
        nonlocal last
        if clock() - last < _SECONDS_BETWEEN_LINES and progress.done < progress.total:
            return
        last = clock()
        print(f"{_title(progress)}: {', '.join(_facts(progress))}", file=sys.stderr, flush=True)

    return show


def _title(progress: FineTuneProgress) -> str:
    return f"{progress.run or f'seed {progress.seed}'}, {progress.stage}"


def _facts(progress: FineTuneProgress) -> list[str]:
    unit = "steps" if progress.stage == "training" else "sequences"
    facts = [f"{progress.done:,} of {progress.total:,} {unit}"]
    if progress.loss is not None:
        facts.append(f"loss {progress.loss:.3f}")
    if 0 < progress.done < progress.total:
        left = progress.seconds / progress.done * (progress.total - progress.done)
        facts.append(f"{formatting.duration(left)} left")
    return facts
