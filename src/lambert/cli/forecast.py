"""What a run is expected to take on this machine, and at its end what it took."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lambert.cli.subcommand import say

if TYPE_CHECKING:
    from lambert.corpus.store import Corpus
    from lambert.planning.probe import Forecast
    from lambert.training.config.trainer_options import Housekeeping
    from lambert.training.config.training_config import RunSettings
    from lambert.training.distributed.process_group import Processes

FORECAST_ERROR = "within 11 % in the runs of docs/planning.md, on a quiet machine"
MEMORY_ERROR = "on a CPU the heap of longer runs grew to 1.3 to 1.8 times that"


def show_forecast(
    settings: RunSettings,
    corpus: Corpus | None,
    processes: Processes,
    *,
    probe_seconds: float,
    housekeeping: Housekeeping | None = None,
) -> Forecast:
    """Take steps of each phase for about so many seconds, and say what follows for the run."""
    from lambert.planning.probe import measure_run

    if processes.is_first:
        text = "" if corpus is not None else " on random words, since there is no --corpus"
        say(f"time      taking steps of each phase{text}, {len(settings.phases)} × up to {probe_seconds:.0f} seconds …")
    forecast = measure_run(
        settings, corpus, processes=processes, housekeeping=housekeeping, budget_seconds=probe_seconds
    )
    if processes.is_first:
        parts = " + ".join(duration(phase.seconds) for phase in forecast.phases)
        say(f"time      about {duration(forecast.seconds)} on this machine ({parts}; {FORECAST_ERROR})")
        if forecast.memory_bytes:
            each = " in each process" if processes.count > 1 else ""
            say(f"memory    about {forecast.memory_bytes / 1e9:.2f} GB{each} on those steps; {MEMORY_ERROR}")
    return forecast


def note_outcome(run: Path, forecast: Forecast | None, *, seconds: float, memory_bytes: int) -> None:
    """Write what a run took into its journal, beside what was predicted, and say how far that was off."""
    from lambert.runlog.writer import Journal
    from lambert.training.checkpoint.run_dir import JOURNAL_FILE

    predicted = None if forecast is None else forecast.facts()
    with Journal(run / JOURNAL_FILE) as journal:
        journal.write("outcome", {"seconds": seconds, "memory_bytes": memory_bytes, "predicted": predicted})
    if forecast is None:
        return
    told = f"time      {duration(seconds)}, predicted {duration(forecast.seconds)} ({_off(forecast.seconds, seconds)})"
    if memory_bytes and forecast.memory_bytes:
        off = _off(forecast.memory_bytes, memory_bytes)
        told += f"; memory {memory_bytes / 1e9:.2f} GB, predicted {forecast.memory_bytes / 1e9:.2f} ({off})"
    say(told)


def _off(predicted: float, actual: float) -> str:
    return f"{100 * (predicted / actual - 1):+.1f} %" if actual else "of nothing"


def duration(seconds: float) -> str:
    """For people."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5_400:
        return f"{seconds / 60:.1f} minutes"
    if seconds < 48 * 3_600:
        return f"{seconds / 3_600:.1f} hours"
    return f"{seconds / 86_400:,.1f} days"
