"""The live display of a run: follows its journal in a thread.

On a terminal it redraws a panel in place; elsewhere it prints lines, each readable on its own. The panel never hides
the cursor, so a killed process cannot leave a terminal without one.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lambert.runlog.records import Record, incident_text, number_or_none, phase_of
from lambert.runlog.schema import INCIDENTS, Event
from lambert.runlog.tail import JournalTail, LiveState
from lambert.utils import formatting

_POLL_SECONDS = 0.2
_PLAIN_EVERY_SECONDS = 10.0
_JOIN_SECONDS = 5.0


class LiveDisplay:
    """`with LiveDisplay(run / "journal.jsonl"): train()` shows the run while it trains.

    An error in the display never stops the training: the display ends and `fault` holds the error.

    Args:
        journal: the file to follow; it need not exist yet. What it holds already is read, not printed.
        stream: where to write; standard output when None.
        plain_every_seconds: without a terminal, the time between two lines about steps.
        poll_seconds: the time between two reads of the file.
        clock: seconds from any origin, for tests.
    """

    def __init__(
        self,
        journal: Path,
        *,
        stream: IO[str] | None = None,
        plain_every_seconds: float = _PLAIN_EVERY_SECONDS,
        poll_seconds: float = _POLL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fault: Exception | None = None
        self.state = LiveState()
        self._tail = JournalTail(Path(journal))
        self._console = Console(file=stream or sys.stdout, highlight=False)
        self._poll_seconds = poll_seconds
        self._plain = PlainLines(self._console.file, plain_every_seconds, clock)
        self._live: Live | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="live-display", daemon=True)

    def __enter__(self) -> LiveDisplay:
        for record in self._tail.read():
            self.state.update(record)
        self.state.end = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = _live(self._console, self.state)
            self._live.start(refresh=True)
            self._console.show_cursor(True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stop.set()
            self._thread.join(_JOIN_SECONDS)
        finally:
            try:
                self._leave_panel()
            except OSError as fault:  # the terminal is closed
                self.fault = fault

    def _leave_panel(self) -> None:
        if self._live is not None:
            _flush_proxies()
            self._live.update(panel(self.state))
            self._live.stop()
            self._console.show_cursor(True)

    def _follow(self) -> None:
        try:
            while not self._stop.wait(self._poll_seconds):
                self._show_new()
            self._show_new()  # what was written just before the end
            self._plain.finish(self.state)
        except Exception as fault:  # a display must never stop the training
            self.fault = fault

    def _show_new(self) -> None:
        for record in self._tail.read():
            self.state.update(record)
            if self._live is None:
                self._plain.show(record, self.state)
        if self._live is not None:
            self._live.update(_above_a_line(self.state), refresh=True)


class PlainLines:
    """The run as lines of text: steps at intervals, everything else when it happens."""

    def __init__(self, stream: IO[str], every_seconds: float, clock: Callable[[], float]) -> None:
        self._stream, self._every_seconds, self._clock = stream, every_seconds, clock
        self._last_time: float | None = None
        self._shown: Record | None = None

    def show(self, record: Record, state: LiveState) -> None:
        """Prints a line about this record, unless it is a step and the last such line is recent."""
        if record["event"] == Event.STEP:
            now = self._clock()
            if self._last_time is not None and now - self._last_time < self._every_seconds:
                return
            self._last_time, self._shown = now, record
        elif record["event"] == Event.END:
            self.finish(state)
        text = plain_line(record, state)
        if text is not None:
            print(text, file=self._stream, flush=True)

    def finish(self, state: LiveState) -> None:
        """Prints the last step, unless it has been printed."""
        if self._shown is not None and state.step is not None and state.step is not self._shown:
            self._shown = state.step
            print(plain_line(state.step, state), file=self._stream, flush=True)


def plain_line(record: Record, state: LiveState) -> str | None:
    """One record as a line that can be read on its own; None for records that get no line."""

    def value(name: str) -> float | None:
        return number_or_none(record.get(name))

    match record["event"]:
        case Event.PHASE:
            return _phase_line(record)
        case Event.STEP:
            return ", ".join(
                f"{name} {text}" for name, text in _step_metrics(record, state) if text != formatting.MISSING
            )
        case Event.EVALUATION:
            return f"{_evaluation_time(record)}: {_evaluation_text(record)}"
        case Event.CHECKPOINT:
            cost = f"{formatting.size(value('bytes'))} in {formatting.duration(value('seconds'))}"
            return f"checkpoint at step {formatting.count(value('step'))}: {record.get('path')} ({cost})"
        case event if event in INCIDENTS:
            return incident_text(record)
        case Event.END:
            return f"{_end_text(record)} after {formatting.duration(value('seconds'))}"
    return None


def panel(state: LiveState) -> Panel:
    """The run as a panel for a terminal of any width."""
    if state.step is None:
        known = "" if state.evaluation is None else f"{plain_line(state.evaluation, state)}\n"
        waiting = Text.assemble(known, ("waiting for the first step …", "dim"))
        return Panel(waiting, title="lambert", title_align="left")
    total, step = state.total_steps, state.number("step") or 0
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for name, text in _step_metrics(state.step, state):
        grid.add_row(name, Text(text))
        if name == "step" and total:
            grid.add_row("", ProgressBar(total=total, completed=min(step, total)))
    if state.evaluation is not None:
        at = formatting.count(number_or_none(state.evaluation.get("step")))
        grid.add_row("held-out", Text(f"step {at}: {_evaluation_text(state.evaluation)}"))
    if state.checkpoint is not None:
        at = formatting.count(number_or_none(state.checkpoint.get("step")))
        grid.add_row("checkpoint", Text(f"step {at}: {state.checkpoint.get('path')}"))
    if state.end is not None:
        grid.add_row("end", Text(_end_text(state.end)))
    return Panel(grid, title="lambert", title_align="left", border_style="blue")


def _step_metrics(record: Record, state: LiveState) -> list[tuple[str, str]]:
    """Name and text of the metrics of a step, in reading order; the same for panel and line."""

    def value(name: str) -> float | None:
        return number_or_none(record.get(name))

    def at_mask(kind: str) -> float | None:
        """At [MASK] tokens alone, as in evaluations; of all masked tokens in journals without it."""
        found = value(f"mask_token_{kind}")
        return value(f"mlm_{kind}") if found is None else found

    step, total = value("step"), state.total_steps
    position = formatting.count(step)
    if total and step is not None:
        position = f"{position} of {formatting.count(total)} ({min(step / total, 1):.0%})".replace("%", " %")
    speed = f"{formatting.number(value('sequences_per_second'))} sequences/s"
    if value("tokens_per_second") is not None:
        speed += f", {formatting.count(value('tokens_per_second'))} tokens/s"
    number = value("phase")
    phase = state.phases.get(int(number)) if number is not None else None
    about = f" (length {phase.sequence_length}, batch {formatting.count(phase.batch_size)})" if phase else ""
    return [
        ("phase", formatting.count(number) + about),
        ("step", position),
        ("MLM loss", formatting.loss(at_mask("loss"))),
        ("MLM accuracy", formatting.percent(at_mask("accuracy"))),
        ("learning rate", formatting.number(value("learning_rate"))),
        ("speed", speed),
        ("time left", formatting.duration(value("eta_seconds"))),
    ]


def _phase_line(record: Record) -> str | None:
    try:
        phase = phase_of(record)
    except ValueError:
        return None
    peak, warmup = formatting.number(phase.peak_learning_rate), formatting.count(phase.warmup_steps)
    rate = f"peak learning rate {peak} after {warmup} warm-up steps"
    if record.get("continues") is True:
        rate = "learning rate on the schedule of the previous phase"
    return (
        f"phase {phase.number}: steps {formatting.count(phase.first_step)} to {formatting.count(phase.last_step)},"
        f" sequence length {phase.sequence_length}, batch {formatting.count(phase.batch_size)}, {rate}"
    )


def _evaluation_time(record: Record) -> str:
    step = number_or_none(record.get("step"))
    return "before training" if step == 0 else f"held-out at step {formatting.count(step)}"


def _evaluation_text(record: Record) -> str:
    def value(name: str) -> float | None:
        return number_or_none(record.get(name))

    loss, baseline = value("mlm_loss"), value("unigram_loss")
    return (
        f"MLM loss {formatting.loss(loss)}, perplexity {formatting.perplexity(loss)}"
        f" (unigram baseline {formatting.loss(baseline)}, {formatting.perplexity(baseline)}),"
        f" MLM accuracy {formatting.percent(value('mlm_accuracy'))}"
        f" (most frequent token {formatting.percent(value('unigram_accuracy'))})"
    )


def _end_text(record: Record) -> str:
    return f"{record.get('reason') or 'ended'} at step {formatting.count(number_or_none(record.get('step')))}"


def _live(console: Console, state: LiveState) -> Live:
    """A panel that redirects printed text only where it goes to a terminal: a pipe stays a pipe."""
    return Live(
        _above_a_line(state), console=console, auto_refresh=False, transient=False, vertical_overflow="crop",
        redirect_stdout=sys.stdout.isatty(), redirect_stderr=sys.stderr.isatty(),
    )  # fmt: skip


def _above_a_line(state: LiveState) -> Group:
    """The panel above an empty line, where the cursor waits and the terminal echoes ^C.

    At the end of a full row the echo would wrap, and the next panel would be drawn a row too low.
    """
    return Group(panel(state), Text())


def _flush_proxies() -> None:
    """Passes on text without a line end, which waits in rich's proxy of the stream."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
