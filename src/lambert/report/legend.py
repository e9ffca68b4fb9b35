"""Names and colours of runs: by run, by optimizer or by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lambert.report.facts import inline
from lambert.report.spec import SERIES
from lambert.runlog.reader import Run
from lambert.utils import formatting

_DASHES = ([1, 0], [6, 3], [2, 2])  # solid first; then the colours come round again


@dataclass(frozen=True)
class Legend:
    """What each run is called and may be coloured by."""

    names: tuple[str, ...]
    optimizers: tuple[str, ...]
    batches: tuple[str, ...]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Legend:
        """Names are those of the folders; where two are the same, their paths."""
        names = [run.name for run in runs]
        shown = [run.name if names.count(run.name) == 1 else str(run.folder) for run in runs]
        unique = [name if shown.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(shown, start=1)]
        return cls(tuple(unique), tuple(map(optimizer_words, runs)), tuple(map(batch_words, runs)))

    @property
    def choices(self) -> dict[str, str]:
        """What tells the runs apart in few enough colours."""
        offered = {"run": "run"}
        for name, values in (("optimizer", self.optimizers), ("batch", self.batches)):
            if 2 <= len(set(values)) <= len(SERIES) * len(_DASHES) and len(set(values)) < len(self.names):
                offered[name] = name
        return offered

    @property
    def chosen(self) -> str:
        """Runs have a colour each as long as these suffice."""
        return "run" if len(self.names) <= len(SERIES) else ([*self.choices, "run"])[1]

    def rows(self) -> list[dict[str, Any]]:
        """Of every run its place, name, optimizer and batch."""
        together = zip(self.names, self.optimizers, self.batches, strict=True)
        return [
            {"run": place, "name": name, "optimizer": optimizer, "batch": batch}
            for place, (name, optimizer, batch) in enumerate(together)
        ]

    def colours(self) -> dict[str, dict[str, Any]]:
        """For every choice the field, its values with a colour and a dash each, and the colour of each run."""
        found = {}
        for choice, field in (("run", "name"), ("optimizer", "optimizer"), ("batch", "batch")):
            if choice in self.choices:
                values = [row[field] for row in self.rows()]
                domain = list(dict.fromkeys(values))
                place = {value: number for number, value in enumerate(domain)}
                colours = [SERIES[number % len(SERIES)] for number in range(len(domain))]
                found[choice] = {
                    "field": field, "domain": domain, "range": colours,
                    "dots": colours if len(self.names) > 1 else [SERIES[1]],
                    "dashes": [_DASHES[number // len(SERIES) % len(_DASHES)] for number in range(len(domain))],
                    "of_run": [colours[place[value]] for value in values],
                }  # fmt: skip
        return found


def optimizer_words(run: Run) -> str:
    """The optimizer's name, without its settings."""
    optimizer = run.header.get("optimizer")
    return inline(optimizer.get("name") if isinstance(optimizer, dict) else optimizer)


def batch_words(run: Run) -> str:
    """The batch sizes of the phases, one where they are the same."""
    return ", ".join(dict.fromkeys(formatting.count(phase.batch_size) for phase in run.phases)) or formatting.MISSING
