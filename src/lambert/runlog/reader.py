"""A run folder as plain numbers: `journal.jsonl` and `recipe.toml` → Run.

The journal is append-only and may be truncated or damaged. Half a last line is skipped, a bad line in the middle is
counted and skipped. Where a step occurs twice (after a resume) its last record wins.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lambert.errors import UserError
from lambert.runlog import records
from lambert.runlog.records import Evaluation, Fill, Incident, Noise, Phase, Record, number_or_none, whole
from lambert.runlog.schema import EVALUATION_METRICS, INCIDENTS, JOURNAL_FILE, RECIPE_FILE, Event
from lambert.utils import formatting

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TrustRatios:
    """steps: int64 [records]; values: float64 [records, layers], NaN where a layer was not recorded."""

    steps: NDArray[np.int64]
    layers: tuple[str, ...]
    values: Floats


@dataclass(frozen=True)
class Run:
    """Everything that the run folder says. Columns in `series` (records.STEP_COLUMNS) are float64 [recorded steps]."""

    folder: Path
    name: str
    header: Record  # the last `run` event, {} when the journal has none
    started: float | None  # time of the first record, seconds since the epoch
    starts: int  # how often the run was started or resumed
    phases: tuple[Phase, ...]
    steps: NDArray[np.int64]
    series: Mapping[str, Floats]
    evaluations: tuple[Evaluation, ...]
    trust_ratios: TrustRatios
    fills: tuple[Fill, ...]  # in the order they were written; a sentence can occur at several steps
    checkpoints: tuple[Record, ...]
    end: Record | None  # None while running, or when the run was killed
    recipe: Record
    bad_lines: tuple[int, ...]  # line numbers, from 1
    notices: tuple[str, ...] = ()
    noise: tuple[Noise, ...] = ()
    incidents: tuple[Incident, ...] = ()
    outcome: Record | None = None  # actual and predicted time and memory, of a run that finished in one session

    @property
    def final(self) -> Evaluation | None:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    def last_noise(self, phase: int) -> Noise | None:
        """The noise scale at the end of a phase, or as far as that has come; None where it was not measured."""
        return next((noise for noise in reversed(self.noise) if noise.phase == phase), None)

    @property
    def last_fills(self) -> tuple[Fill, ...]:
        """The last predictions for each sentence."""
        return tuple({fill.text: fill for fill in self.fills}.values())

    @property
    def training_seconds(self) -> float:
        """The sum of the recorded steps' times."""
        return float(np.nansum(self.series["seconds"]))


@dataclass
class _Journal:
    """The records so far; dictionaries by step, so that later records win."""

    header: Record = field(default_factory=dict)
    started: float | None = None
    starts: int = 0
    phases: dict[int, Phase] = field(default_factory=dict)
    steps: dict[int, tuple[float, ...]] = field(default_factory=dict)
    evaluations: dict[int, Evaluation] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    trust_ratios: dict[int, dict[int, float]] = field(default_factory=dict)
    noise: dict[int, Noise] = field(default_factory=dict)
    fills: dict[tuple[str, int], Fill] = field(default_factory=dict)
    incidents: dict[tuple[str, int], Incident] = field(default_factory=dict)
    outcome: Record | None = None
    last_step: int = 0
    checkpoints: dict[int, Record] = field(default_factory=dict)
    end: Record | None = None

    def add(self, record: Record) -> None:
        """Takes one record in. Raises ValueError when a field it needs is missing or wrong."""
        if self.started is None:
            self.started = number_or_none(record.get("time"))
        match record["event"]:
            case Event.RUN:
                self.header, self.end, self.outcome = record, None, None
                self.starts += 1
                if number_or_none(record.get("resumed_from_step")):
                    step = whole(record, "resumed_from_step")
                    self.add_incident(Incident(step, "resumed", f"resumed from step {formatting.count(step)}"))
            case Event.PHASE:
                phase = records.phase_of(record)
                self.phases[phase.number] = phase
            case Event.STEP:
                self.last_step = whole(record, "step")
                self.steps[self.last_step] = records.step_values(record)
            case Event.TRUST_RATIOS:
                ratios = records.mapping(record.get("trust_ratios"))
                self.trust_ratios[whole(record, "step")] = {
                    self.layers.setdefault(str(layer), len(self.layers)): records.float_or_nan(ratio)
                    for layer, ratio in ratios.items()
                }
            case Event.EVALUATION:
                step = whole(record, "step")
                metrics = {name: records.float_or_nan(record.get(name)) for name in EVALUATION_METRICS}
                self.evaluations[step] = Evaluation(step=step, **metrics)
            case Event.NOISE:
                noise = records.noise_of(record)
                self.noise[noise.step] = noise
            case Event.FILL:
                fill = records.fill_of(record, self.last_step)
                self.fills[fill.text, fill.step] = fill
            case Event.CHECKPOINT:
                self.checkpoints[whole(record, "step")] = record
            case Event.END:
                self.end = record
            case Event.OUTCOME:
                self.outcome = record
            case event if event in INCIDENTS:
                self.add_incident(Incident(whole(record, "step"), event, records.incident_text(record)))

    def add_incident(self, incident: Incident) -> None:
        """The last of the same kind at the same step counts."""
        self.incidents[incident.kind, incident.step] = incident


def read_run(folder: Path) -> Run:
    """Reads a run folder.

    Raises:
        UserError: there is no such folder, no journal in it, no step in the journal, or another journal format.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"there is no run folder {folder}", remedy="Give the folder that `lambert pretrain --out` wrote"
        )
    journal, bad_lines = _read_journal(folder / JOURNAL_FILE)
    if not journal.steps:
        raise UserError(
            f"{folder / JOURNAL_FILE} records no step yet",
            remedy="Let the run finish its first step, then ask again",
        )
    recipe, notices = _read_recipe(folder / RECIPE_FILE)
    steps = sorted(journal.steps)
    table = np.array([journal.steps[step] for step in steps], dtype=np.float64)
    return Run(
        folder=folder,
        name=folder.name or folder.resolve().name,
        header=journal.header,
        started=journal.started,
        starts=journal.starts,
        phases=tuple(sorted(journal.phases.values(), key=lambda phase: phase.first_step)),
        steps=np.array(steps, dtype=np.int64),
        series={name: table[:, column] for column, name in enumerate(records.STEP_COLUMNS)},
        evaluations=tuple(journal.evaluations[step] for step in sorted(journal.evaluations)),
        trust_ratios=_trust_table(journal),
        fills=tuple(journal.fills.values()),
        checkpoints=tuple(journal.checkpoints[step] for step in sorted(journal.checkpoints)),
        end=journal.end,
        recipe=recipe,
        bad_lines=tuple(bad_lines),
        notices=tuple(notices),
        noise=tuple(journal.noise[step] for step in sorted(journal.noise)),
        incidents=tuple(sorted(journal.incidents.values(), key=lambda incident: incident.step)),
        outcome=journal.outcome,
    )


def _read_journal(path: Path) -> tuple[_Journal, list[int]]:
    journal = _Journal()
    bad_lines: list[int] = []
    try:
        with path.open("rb") as lines:
            for line_number, line in enumerate(iter(partial(lines.readline, records.MOST_LINE_BYTES), b""), start=1):
                if not line.strip():
                    continue
                record = records.parse_line(line)
                try:
                    if record is not None:
                        records.check_format(record, path)
                        if record["event"] == Event.RUN and bad_lines[-1:] == [line_number - 1]:
                            bad_lines.pop()  # half a line, left by a killed run and ended by the one that resumes
                        journal.add(record)
                    elif line.endswith(b"\n"):  # without it: the half line of a run just killed
                        bad_lines.append(line_number)
                except ValueError:
                    bad_lines.append(line_number)
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} holds no {JOURNAL_FILE}", remedy="Give the folder that `lambert pretrain --out` wrote"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", remedy="Check its permissions") from None
    return journal, bad_lines


def _read_recipe(path: Path) -> tuple[Record, list[str]]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), []
    except FileNotFoundError:
        return {}, [f"There is no {RECIPE_FILE} in the run folder, so the settings are missing here."]
    except (OSError, ValueError) as error:
        return {}, [f"{RECIPE_FILE} could not be read ({error}), so the settings are missing here."]


def _trust_table(journal: _Journal) -> TrustRatios:
    steps = sorted(journal.trust_ratios)
    values = np.full((len(steps), len(journal.layers)), np.nan)
    for row, step in enumerate(steps):
        for column, ratio in journal.trust_ratios[step].items():
            values[row, column] = ratio
    return TrustRatios(np.array(steps, dtype=np.int64), tuple(journal.layers), values)
