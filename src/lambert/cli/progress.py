"""Progress of `lambert prepare`: a bar on a terminal, lines at intervals elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from lambert.corpus.summary import BuildProgress

_SECONDS_BETWEEN_LINES = 30.0
_STAGES = {"vocabulary": "learning the vocabulary", "tokens": "writing tokens"}


@contextmanager
def build_progress() -> Iterator[Callable[[BuildProgress], None]]:
    """A callback for `build_corpus` that shows how far it is."""
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None, facts="")

        def show(progress: BuildProgress) -> None:
            bar.update(
                task,
                description=_STAGES[progress.stage],
                total=progress.total_bytes,
                completed=progress.done_bytes,
                facts=f"{progress.documents:,} documents, {progress.tokens / 1e6:,.1f} M tokens",
            )

        yield show


def _plain_lines() -> Callable[[BuildProgress], None]:
    last = time.monotonic()

    def show(progress: BuildProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            percent = f"{100 * progress.done_bytes / progress.total_bytes:.0f} %, " if progress.total_bytes else ""
            stage = _STAGES[progress.stage]
            print(
                f"{stage}: {percent}{progress.documents:,} documents, {progress.tokens:,} tokens",
                file=sys.stderr,
            )

    return show
