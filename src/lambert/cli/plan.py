"""`lambert plan --model NAME --batch-size B [B2] (--epochs E | --samples N)`"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lambert.cli import cluster_text
from lambert.cli.processes import process_count, start_processes
from lambert.cli.subcommand import Subcommand, say, say_lines, warn
from lambert.errors import UserError
from lambert.planning import plan_text
from lambert.training.config.arguments import RecipeArguments, check_probe_seconds, command_line, is_open
from lambert.training.distributed.env import is_first_process
from lambert.utils.io import unwritable

if TYPE_CHECKING:
    from lambert.corpus.store import Corpus
    from lambert.training.config.training_config import TrainingConfig


CLUSTER_OPTIONS = ("chips", "text_gigabytes", "try_batch_sizes", "price_per_chip_hour", "budget", "plot")


@dataclass(frozen=True, kw_only=True)
class Plan(RecipeArguments, Subcommand):
    """Print the plan of a run without training: steps, learning rates, warm-up, each with its formula and source."""

    only_prints: ClassVar[bool] = True

    batch_size: tuple[int | Literal["all"], ...] = ()  # type: ignore[assignment]
    """Sequences in a global batch: one number for all phases, or one for each. Not limited by memory. With --recipe
    paper, `all` prints a table of the paper's runs, and none is the run of 76 minutes: 65,536 and 32,768."""
    corpus: Path | None = None
    """Training corpus; needed for --epochs."""
    no_probe: bool = False
    """Do not predict the run's time, which measures real steps."""
    probe_seconds: float = 20.0
    """Seconds to measure the steps of each phase; at least three steps."""
    processes: int = 0
    """Measure the steps on this many ranks, as in `pretrain --processes`; 0 uses one for each GPU."""
    save_recipe: Path | None = None
    """Also write the recipe to this TOML file, to edit and pass to --recipe (docs/recipes.md)."""
    cluster: str | None = None
    """tpu-v3, dgx-a100, dgx2-v100, dgx-h100, dgx-h200, rtx-3090, rtx-4090 or a TOML file (docs/planning.md): also
    predict the time on that cluster, without measuring this machine."""
    chips: tuple[int, ...] = ()
    """With --cluster: one or more numbers of chips."""
    text_gigabytes: float | None = None
    """With --cluster, instead of --corpus: size of the text, for --epochs."""
    try_batch_sizes: tuple[int, ...] = ()
    """With --cluster: compare --batch-size with these batch sizes, each with its own recipe for all phases."""
    price_per_chip_hour: float | None = None
    """With --cluster: price of a chip for an hour, in any currency."""
    budget: float | None = None
    """With --cluster and a price: cost limit; picks the fastest plan within it."""
    hours: float | None = None
    """Hours to train: with a corpus and no length of the run, everything is proposed for so long (default: 1). With
    --cluster: time limit; picks the cheapest plan within it (and within --budget)."""
    plot: Path | None = None
    """With --cluster: draw the step time breakdown to this .svg or .png file."""
    dry_run: int | None = None
    """2 to 1,024 ranks: also simulate them in this process: shard the model, partition the batches, and count the
    collectives of a step, without measuring this machine."""

    noise_from: Path | None = None
    """Run with measured gradient noise: also print the cost of other batch sizes (docs/batch_size.md)."""

    def run(self) -> dict[str, Any]:
        """Results: `phases`, `parameters`, `memory_bytes`; `seconds` and `forecast` unless --no-probe, `cluster` with
        --cluster, and with alternatives or limits `choices`; `dry_run` with --dry-run; `batch_sizes` with --noise-from.
        With --batch-size all only `plans`.
        """
        if "all" in self.batch_size:
            return self._run_all()
        from lambert.planning.batch_size import advise_batch_sizes, read_noise

        check_probe_seconds(self.probe_seconds)
        measured = None if self.noise_from is None else read_noise(self.noise_from)
        is_elsewhere = self.dry_run is not None or self.cluster is not None
        count = 1 if self.no_probe or is_elsewhere else process_count(self.processes)
        if count > 1:
            return start_processes(self.as_command("plan"), count, json=self.json)
        if self.save_recipe is not None and is_first_process():
            self._save_recipe(self.save_recipe)
        results, config = self._plan()
        if measured is not None and "phases" in results:
            advice = advise_batch_sizes(config.phases, measured)
            model = config.model_name if self.init_from is None else None
            say_lines(plan_text.batch_size_lines(advice, measured, model=model))
            results["batch_sizes"] = [one.to_dict() for one in advice]
        return results

    def _run_all(self) -> dict[str, Any]:
        """One row for each of the paper's runs."""
        from lambert.api.resolution import log_recipe, resolve
        from lambert.corpus.store import Corpus
        from lambert.planning.plan import describe_plan
        from lambert.training.config.scaling_rules import PAPER_BATCH_SIZES, PAPER_MIXED_BATCH

        if self.recipe != "paper" or len(self.batch_size) > 1:
            raise UserError(
                "--batch-size all is not a number", remedy="Give --recipe paper and --batch-size all, alone"
            )
        for name in ("cluster", "dry_run", "noise_from", "save_recipe"):
            if getattr(self, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"{option} with --batch-size all",
                    remedy=f"Leave out {option}, or give --batch-size 512, for example",
                )
        corpus = None if self.corpus is None else Corpus.open(self.corpus)
        sizes = [*((size,) for size in PAPER_BATCH_SIZES), PAPER_MIXED_BATCH]
        plans = [describe_plan(resolve(replace(self, batch_size=size), corpus), corpus) for size in sizes]
        log_recipe(replace(self, batch_size=PAPER_MIXED_BATCH))
        say_lines(plan_text.table_lines(plans))
        return {"plans": [plan.to_dict() for plan in plans]}

    def _plan(self) -> tuple[dict[str, Any], TrainingConfig]:
        from lambert.corpus.store import Corpus

        if self.dry_run is not None and (self.cluster is not None or self.chips):
            raise UserError("--dry-run with --cluster or --chips", remedy="Give them one at a time")
        if self.cluster is not None:
            return self._run_on_cluster(self.cluster)
        if self.dry_run is None:
            for name in CLUSTER_OPTIONS:
                if getattr(self, name) not in (None, ()):
                    option = f"--{name.replace('_', '-')}"
                    raise UserError(f"{option} without --cluster", remedy="Name a cluster, such as --cluster dgx-a100")
        corpus = None if self.corpus is None else Corpus.open(self.corpus)
        return self._run_here(corpus) if self.dry_run is None else self._run_dry(corpus, self.dry_run)

    def _show(self, config: TrainingConfig, corpus: Corpus | None, *, is_here: bool = True) -> dict[str, Any]:
        from lambert.api.planning import log_limits
        from lambert.api.resolution import log_recipe
        from lambert.planning.plan import describe_plan

        log_recipe(self)
        log_limits(self, config, corpus)
        plan = describe_plan(config, corpus)
        say_lines(plan_text.plan_lines(plan, is_here=is_here))
        return plan.to_dict()

    def _run_here(self, corpus: Corpus | None) -> tuple[dict[str, Any], TrainingConfig]:
        from lambert.api.planning import plan

        found = plan(corpus, arguments=self, probe_seconds=None if self.no_probe else self.probe_seconds, progress=True)
        if corpus is not None and is_open(self) and is_first_process():
            own = {field.name for field in fields(Plan)} - {field.name for field in fields(RecipeArguments)}
            given = replace(self, **{field.name: field.default for field in fields(Plan) if field.name in own})  # type: ignore[arg-type]
            command = command_line("pretrain", given, corpus=corpus.path, out=Path("runs") / corpus.path.name)
            say(f"Next: {command}")
        return found.to_dict(), found.config

    def _save_recipe(self, path: Path) -> None:
        from lambert.training.config.recipe_io import recipe_as_toml
        from lambert.training.config.resolve import merged_recipe, with_recipe

        request, recipe = with_recipe(self)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(recipe_as_toml(merged_recipe(request, recipe)))
        except OSError as error:
            raise unwritable(error, path, remedy="Choose a new file in a writable folder") from None
        say(f"recipe    written to {path}")

    def _run_on_cluster(self, name: str) -> tuple[dict[str, Any], TrainingConfig]:
        from lambert.api.resolution import resolve
        from lambert.corpus.store import Corpus
        from lambert.planner.forecast import forecast_on_cluster
        from lambert.planner.selection import ClusterRequest, compare_plans
        from lambert.planning.plan_text import MIN_USEFUL_STEPS
        from lambert.report.picture import check_picture

        chips = tuple(dict.fromkeys(self.chips))
        request = ClusterRequest(name, chips, self.price_per_chip_hour, self.budget, self.hours)
        cluster = request.open()
        if self.plot is not None:
            check_picture(self.plot)
        if wrong := [size for size in self.try_batch_sizes if size < 1]:
            raise UserError(f"--try-batch-sizes {wrong[0]}", remedy="Give whole numbers from 1 on")
        corpus = None if self.corpus is None else Corpus.open(self.corpus)
        # The best precision here says nothing about the cluster; all measured clusters computed in 16 bits.
        there = replace(self, precision="bfloat16-autocast") if self.precision == "auto" else self
        if self.text_gigabytes is not None:
            there = there._with_samples_of_text(self.text_gigabytes)
        config = resolve(there, corpus)
        results = self._show(config, corpus, is_here=False)
        plan = forecast_on_cluster(cluster, config, chips)
        say_lines(cluster_text.cluster_lines(plan))
        results["cluster"] = plan.to_dict()
        if self.plot is not None:
            cluster_text.draw_steps(self.plot, plan, config.model_name)
            say(f"picture   {self.plot}")
        if self.try_batch_sizes or self.budget is not None or self.hours is not None:
            least = 0 if config.initial_weights else MIN_USEFUL_STEPS
            plans = [config, *there._alternatives(corpus)]
            found = compare_plans(cluster, plans, request, min_steps=least)
            say_lines(cluster_text.comparison_lines(found, request, samples=config.samples, min_steps=least))
            results["choices"] = found.to_dict()
        return results, config

    def _with_samples_of_text(self, gigabytes: float) -> Plan:
        from lambert.api.resolution import resolve
        from lambert.planner.corpus_size import samples_of_text
        from lambert.training.config.scaling_rules import PAPER_SAMPLES

        if self.corpus is not None or self.samples is not None or self.epochs is None:
            given = [name for name in ("corpus", "samples") if getattr(self, name) is not None]
            without = f"Leave out {' and '.join(f'--{name}' for name in given)}; give" if given else "Give"
            raise UserError(
                "--text-gigabytes needs --epochs, and neither --corpus nor --samples",
                remedy=f"{without} the number of epochs, such as --epochs 3",
            )
        any_length = resolve(replace(self, epochs=None, samples=PAPER_SAMPLES), None)
        phases = [(phase.sequence_length, phase.samples) for phase in any_length.phases]
        samples = samples_of_text(gigabytes * 1e9, self.epochs, phases)
        say(cluster_text.text_line(gigabytes, self.epochs, samples))
        return replace(self, epochs=None, samples=samples)

    def _alternatives(self, corpus: Corpus | None) -> list[TrainingConfig]:
        """The same run at the batch sizes to try; prints and skips those without a valid recipe."""
        from lambert.api.resolution import resolve

        plans = []
        for batch_size in sorted({*self.try_batch_sizes} - {*self.batch_size}):
            try:
                plans.append(resolve(replace(self, batch_size=(batch_size,)), corpus))
            except UserError as error:
                say(f"left out  batch {batch_size:,}: {error}")
        return plans

    def _run_dry(self, corpus: Corpus | None, ranks: int) -> tuple[dict[str, Any], TrainingConfig]:
        from lambert.api.resolution import resolve
        from lambert.planner.rank_simulation import simulate_ranks
        from lambert.planning.hardware import inspect_hardware

        config = resolve(self, corpus)
        results = self._show(config, corpus)
        memory = inspect_hardware().memory_available_bytes
        simulation = simulate_ranks(config, corpus, ranks, memory_bytes=memory)
        say_lines(cluster_text.rank_simulation_lines(simulation, has_corpus=corpus is not None))
        for problem in simulation.problems:
            warn(f"{problem}; this is a bug in lambert, please report it")
        code = {"exit_code": 1} if simulation.problems else {}
        return {**results, "dry_run": simulation.to_dict(), **code}, config
