"""`lambert sweep FILE.toml --out OUT`"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lambert.cli.plan import Plan
from lambert.cli.pretrain import Pretrain
from lambert.cli.squad import Squad
from lambert.cli.subcommand import Subcommand, say
from lambert.cli.sweep_trackers import TRACKERS, check_trackers, group_variables, with_trackers
from lambert.errors import UserError
from lambert.planning.plan_text import duration
from lambert.utils.io import unwritable
from lambert.utils.stop_signals import stop_signals

if TYPE_CHECKING:
    from lambert.experiments.grid import Sweep, Trial
    from lambert.experiments.runner import Ended
    from lambert.experiments.table import Configuration, Mean, Result, Tuned

OWN_OPTIONS = (
    "json", "out", "fresh", "threads", "processes", "restarts", "batch_size", "optimizer", "recipe", "seed",
    "learning_rate_multiplier", "learning_rate", "probe_seconds",
)  # fmt: skip
"""Options of `pretrain` that the sweep sets itself."""
OWN_SQUAD_OPTIONS = ("json", "out", "model", "score")


@dataclass(frozen=True, kw_only=True)
class SweepRuns(Subcommand):
    """Run a grid of batch sizes, optimizers, learning rates and seeds over the same samples, and compare them."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """TOML file: the shared options and the grid of those that vary (docs/sweep.md)."""
    out: Path
    """Folder of the sweep; the same command resumes it and repeats no finished run."""
    jobs: int = 0
    """Runs at a time; 0 uses all cores (a GPU holds many small runs: set the number)."""
    threads: int = 1
    """Threads of each run."""
    budget_hours: float | None = None
    """Start no run that is expected to end later than this; overrides the file's budget."""
    dry_run: bool = False
    """Only print the runs and the estimated time."""
    tensorboard: Path | None = None
    """TensorBoard's folder; the sweep has a subfolder there, and each run one in that (docs/tracking.md)."""
    wandb: str | None = None
    """W&B project; the runs are a group of the name of --out."""
    wandb_mode: str | None = None
    """online, offline or disabled. The default is WANDB_MODE, else offline, which needs no account."""
    mlflow: str | None = None
    """Folder or tracking URI of MLflow; the runs are an experiment of the name of --out."""

    def run(self) -> dict[str, Any]:
        """Results: `trials`, `configurations`, `tuned`, `left` (names of what was not run), `core_hours`, `report`."""
        with stop_on_signals():
            return self._run()

    def _run(self) -> dict[str, Any]:
        from lambert.experiments.expect import expected_seconds
        from lambert.experiments.runner import Runner

        sweep, jobs = self._sweep(), self._jobs()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(error, self.out, remedy="Choose another --out") from None
        say("time      measuring a few steps at each new batch size …")
        expected = expected_seconds(
            sweep, self.out, jobs=jobs, threads=self.threads,
            plan_options=[field.name for field in dataclasses.fields(Plan)],
        )  # fmt: skip
        budget = self.budget_hours if self.budget_hours is not None else sweep.budget_hours
        runner = Runner(
            sweep, self.out, jobs, self.threads, expected, None if budget is None else 3_600 * budget, say_ended,
            group_variables(self.out),
        )  # fmt: skip
        before, waiting = runner.state()
        say_total([runner.estimated_seconds(trial) for trial in waiting], len(before), jobs, budget)
        if self.dry_run:
            nothing: dict[str, Any] = {"trials": [], "configurations": [], "tuned": []}
            return {**nothing, "left": [trial.name for trial in waiting], "core_hours": 0.0}
        ended, left = runner.run()
        if not ended:
            shortest = min(runner.estimated_seconds(trial) for trial in left)
            raise UserError(
                f"a budget of {budget:g} hours is too short for any of {len(left)} runs; the shortest takes about "
                f"{duration(shortest)}",
                remedy="Give more --budget-hours, fewer samples or a smaller model",
            )
        return self._finish(runner.folder, ended, left)

    def _sweep(self) -> Sweep:
        from lambert.experiments.grid import read_sweep

        if self.budget_hours is not None and not 0 < self.budget_hours < math.inf:
            raise UserError(f"a budget of {self.budget_hours} hours", remedy="Give hours above 0")
        sweep = read_sweep(
            self.file,
            run_options=[field.name for field in dataclasses.fields(Pretrain) if field.name not in OWN_OPTIONS],
            squad_options=[field.name for field in dataclasses.fields(Squad) if field.name not in OWN_SQUAD_OPTIONS],
        )
        sweep = with_trackers(sweep, {name: getattr(self, name) for name in TRACKERS}, self.out)
        check_trials(sweep, self.file, self.out, self.threads)
        check_trackers(sweep, self.out, starts=not self.dry_run)
        return sweep

    def _jobs(self) -> int:
        for name, value, least in (("jobs", self.jobs, 0), ("threads", self.threads, 1)):
            if not least <= value <= 1_024:
                raise UserError(f"{value} {name}", remedy=f"Give a whole number from {least} to 1,024")
        return self.jobs or max(1, (os.cpu_count() or 1) // self.threads)

    def _finish(self, folder: Callable[[Trial], Path], ended: Sequence[Ended], left: Sequence[Trial]) -> dict[str, Any]:
        from lambert.experiments.table import configurations_of, result_of, tuned_rates, write_table
        from lambert.report import write_report
        from lambert.report.picture import can_draw, write_picture
        from lambert.report.pictures import sweep_picture

        results: list[Result] = []
        for one in ended:
            try:
                results.append(result_of(one.trial, folder(one.trial), one.status))
            except UserError as error:
                say(f"left out  {one.trial.name}: {one.problem or error}")
        if not results:
            raise UserError("no trial completed a step", remedy=f"Look at the logs in {self.out / 'trials'}")
        configurations = configurations_of(results)
        tuned = tuned_rates(results, configurations)
        facts = write_table(self.out / "table.json", results, configurations, tuned)
        show_table(configurations, tuned)
        hours = sum(result.seconds for result in results) * self.threads / 3_600
        say(f"{len(results)} runs, {hours:.2f} core-hours of training")
        for trial in left:
            say(f"not run   {trial.name}: it would end after the budget of hours")
        failed = [one for one in ended if one.status == "failed"]
        for one in failed:
            say(f"failed    {one.trial.name}: {one.problem}")
        picture: Path | str = "none, for want of vl-convert (pip install 'lambert-bert[pictures]')"
        if can_draw():
            picture = write_picture(sweep_picture(facts), self.out / "loss_by_batch.svg")
        report = write_report([folder(result.trial) for result in results], self.out / "report.html")
        say(f"Table: {self.out / 'table.json'}, picture: {picture}, report: {report}")
        return {
            **facts,
            "left": [trial.name for trial in left],
            "core_hours": hours,
            "report": str(report),
            "exit_code": 1 if failed else 0,
        }


def check_trials(sweep: Sweep, file: Path, out: Path, threads: int) -> None:
    """Refuse values that the commands of a trial would refuse, before anything runs.

    Raises:
        UserError: naming the trial.
    """
    from lambert.cli.main import parse
    from lambert.experiments.runner import trial_commands

    for trial in sweep.trials:
        try:
            for words in trial_commands(sweep, trial, out / trial.name, threads):
                subcommand, _ = parse(words)
                if isinstance(subcommand, Squad):
                    subcommand.check()
        except UserError as error:
            raise UserError(f"sweep {file}, {trial.name}: {error.what}", remedy=error.remedy) from None


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """SIGTERM, SIGHUP, SIGQUIT and SIGUSR1 act like Ctrl-C, which works even if a background shell ignores it."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_total(each: Sequence[float], done: int, jobs: int, budget_hours: float | None) -> None:
    """Print the estimated time of the remaining runs.

    Args:
        each: estimated seconds of each remaining run.
        done: runs that ended in earlier sessions.
    """
    before = f"{done} already done; " * bool(done)
    limit = "" if budget_hours is None else f"; budget {budget_hours:g} hours"
    length = duration(max(sum(each) / jobs, *each, 0.0))
    say(f"sweep     {before}{len(each)} runs, {jobs} at a time: about {length}{limit}")


def say_ended(ended: Ended, left: int) -> None:
    """Print one line for a trial that has ended."""
    say(f"{ended.status:9} {ended.trial.name}, {left} to go{': ' * bool(ended.problem)}{ended.problem}")


def show_table(configurations: Sequence[Configuration], tuned: Sequence[Tuned]) -> None:
    """Print means over seeds with 95 % intervals. Best rates are marked, then compared with the rule's."""
    rows = [_row(config) for config in configurations]
    columns = [name for name in rows[0] if any(row[name] != "-" for row in rows)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    say("  ".join(f"{name:>{widths[name]}}" for name in columns))
    for row, config in zip(rows, configurations, strict=True):
        marks = _marks(config, tuned)
        line = "  ".join(f"{row[name]:>{widths[name]}}" for name in columns)
        say(f"{line}{'  ' * bool(marks)}{', '.join(marks)}")
    for one in tuned:
        recipe = "" if Path(one.recipe).stem in ("sqrt", one.batch) else f", {one.recipe}"
        name = f"{one.optimizer}, batch {one.batch}{recipe}"
        edge = ", the edge of those tried" if one.is_edge else ""
        ratio = f": the rule's loss is {_interval(one.rule_over_best, 3)} times its" if one.rule_over_best.seeds else ""
        say(f"best rate {name}: {one.multiplier:g} times the rule's{edge}{ratio}")


def _row(config: Configuration) -> dict[str, str]:
    return {
        "optimizer": config.optimizer,
        "batch": config.batch,
        "steps": f"{config.steps:,}",
        "peak": f"{config.peak_learning_rate:.3g}",
        "times": f"{config.multiplier:g}",
        "held-out loss": _interval(config.loss, 3),
        "accuracy": _interval(config.accuracy, 4),
        "F1": _interval(config.f1, 2),
        "noise scale": f"{config.noise_scale.mean:,.0f}" if config.noise_scale.seeds else "-",
        "minutes": f"{config.seconds.mean / 60:.1f}" if config.seconds.seeds else "-",
    }


def _marks(config: Configuration, tuned: Sequence[Tuned]) -> list[str]:
    marks = [f"{count} {word}" for word in ("diverged", "failed", "stuck") if (count := getattr(config, word))]
    own = (config.optimizer, config.batch, config.recipe, config.multiplier)
    is_best = own in [(one.optimizer, one.batch, one.recipe, one.multiplier) for one in tuned]
    return [*marks, "best rate"] if is_best else marks


def _interval(mean: Mean, digits: int) -> str:
    if not mean.seeds:
        return "-"
    half = f" ± {mean.half_interval:.{digits}f}" if mean.seeds > 1 else ""
    return f"{mean.mean:.{digits}f}{half}"
