"""`lambert plan --model NAME --batch-size B [B2] (--epochs E | --samples N)`"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.micro_batches import with_fastest_micro_batches
from lambert.cli.processes import process_count, start_processes
from lambert.cli.show_plan import FEW_STEPS, show_plan
from lambert.cli.subcommand import Subcommand, say
from lambert.errors import UserError
from lambert.training.config.arguments import RecipeArguments, check_probe_seconds
from lambert.training.distributed.env import is_first_process

if TYPE_CHECKING:
    from lambert.corpus.store import Corpus
    from lambert.training.config.training_config import TrainingConfig


CLUSTER_OPTIONS = ("chips", "text_gigabytes", "try_batch_sizes", "price_per_chip_hour", "budget", "hours", "plot")


@dataclass(frozen=True, kw_only=True)
class Plan(RecipeArguments, Subcommand):
    """Print what a run would do before anything runs: steps, rates, warm-up, each with its formula and source."""

    corpus: Path | None = None
    """Corpus that would be trained on; needed for --epochs."""
    no_probe: bool = False
    """Leave out the prediction of the run's time, which takes real steps."""
    probe_seconds: float = 20.0
    """How long each phase's steps are timed, seconds; three steps at least."""
    processes: int = 0
    """Time the steps on so many processes of this machine, as `pretrain --processes` runs; 0 takes one for each GPU."""
    save_recipe: Path | None = None
    """Also write the recipe to this TOML file, to be changed and given as --recipe (docs/recipes.md)."""
    cluster: str | None = None
    """tpu-v3, dgx-a100, dgx2-v100, dgx-h100, dgx-h200, rtx-3090, rtx-4090 or a TOML file (docs/planning.md): also
    predict the time there; this machine is not probed."""
    chips: tuple[int, ...] = ()
    """With --cluster: one or more numbers of chips."""
    text_gigabytes: float | None = None
    """With --cluster, in place of --corpus: how much text there will be, for --epochs."""
    try_batch_sizes: tuple[int, ...] = ()
    """With --cluster: compare --batch-size with these, each for all phases and with a recipe of its own."""
    price_per_chip_hour: float | None = None
    """With --cluster: what a chip costs an hour, in any currency."""
    budget: float | None = None
    """With --cluster and a price: the most that the run may cost; picks the fastest plan within it."""
    hours: float | None = None
    """With --cluster: the longest that the run may take; picks the cheapest plan within it (and within --budget)."""
    plot: Path | None = None
    """With --cluster: draw where a step's time goes into this .svg or .png file."""
    dry_run: int | None = None
    """2 to 1,024 ranks: also cut model and samples over so many in this one process, and count the collectives of a
    step; this machine is not probed."""

    noise_from: Path | None = None
    """Run whose gradient noise was measured: also print what other batch sizes would cost (docs/batch_size.md)."""

    def run(self) -> dict[str, Any]:
        """Results: `phases`, `parameters`, `memory_bytes`; `seconds` and `forecast` unless --no-probe, `cluster` with
        --cluster, and with alternatives or limits `choices`; `dry_run` with --dry-run; `batch_sizes` with --noise-from.
        """
        from lambert.cli.batch import measured_noise, show_batch_sizes

        check_probe_seconds(self.probe_seconds)
        measured = None if self.noise_from is None else measured_noise(self.noise_from)
        is_elsewhere = self.dry_run is not None or self.cluster is not None
        count = 1 if self.no_probe or is_elsewhere else process_count(self.processes)
        if count > 1:
            return start_processes(self.as_command("plan"), count, json=self.json)
        if self.save_recipe is not None and is_first_process():
            self._save_recipe(self.save_recipe)
        results = self._plan()
        if measured is not None and "phases" in results:
            model = results["model"] if self.init_from is None else None
            results["batch_sizes"] = show_batch_sizes(results["phases"], measured, model=model)
        return results

    def _plan(self) -> dict[str, Any]:
        from lambert.corpus.store import Corpus

        if self.dry_run is not None:
            return self._run_dry(self.dry_run)
        if self.cluster is not None:
            return self._run_on_cluster(self.cluster)
        for name in CLUSTER_OPTIONS:
            if getattr(self, name) not in (None, ()):
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} without --cluster", remedy="Name a cluster, such as --cluster dgx-a100")
        corpus = None if self.corpus is None else Corpus.open(self.corpus)
        return self._run_here(corpus)

    def _run_here(self, corpus: Corpus | None) -> dict[str, Any]:
        from lambert.api.training import log_recipe, resolve
        from lambert.cli.forecast import show_forecast
        from lambert.training.config.resolve import check_world_size
        from lambert.training.distributed.process_group import destroy_process_group, init_process_group
        from lambert.training.malloc import apply_allocator_settings

        apply_allocator_settings()  # as a run does
        settings, processes = resolve(self, corpus), init_process_group()
        if not self.no_probe and self.micro_batch_size is None:
            settings = with_fastest_micro_batches(settings)
        check_world_size(settings, processes.world_size)
        results: dict[str, Any] = {}
        if processes.is_main_process:
            log_recipe(self)
            _say_limits(self, settings)
            results = show_plan(settings, corpus)
        if not self.no_probe:
            forecast = show_forecast(settings, corpus, processes, probe_seconds=self.probe_seconds)
            results |= {"seconds": forecast.seconds, "forecast": forecast.facts()}
        destroy_process_group(processes)
        return results

    def _save_recipe(self, path: Path) -> None:
        from lambert.training.config.recipe_io import recipe_as_toml
        from lambert.training.config.resolve import merged_recipe, with_recipe

        request, recipe = with_recipe(self)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(recipe_as_toml(merged_recipe(request, recipe)))
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror or error}", remedy="Name a new file in a folder of yours"
            ) from None
        say(f"recipe    written to {path}")

    def _run_on_cluster(self, name: str) -> dict[str, Any]:
        from lambert.api.training import log_recipe, resolve
        from lambert.cli.choices import show_choices
        from lambert.cli.cluster import ClusterRequest, open_cluster, show_cluster
        from lambert.corpus.store import Corpus

        request = ClusterRequest(
            name, tuple(dict.fromkeys(self.chips)), self.price_per_chip_hour, self.budget, self.hours, self.plot
        )
        cluster = open_cluster(request)
        if wrong := [size for size in self.try_batch_sizes if size < 1]:
            raise UserError(f"--try-batch-sizes {wrong[0]}", remedy="Give whole numbers from 1 on")
        corpus = None if self.corpus is None else Corpus.open(self.corpus)
        # This machine's best format says nothing of the cluster's; all that were measured computed in 16 bits.
        there = replace(self, precision="bfloat16-autocast") if self.precision == "auto" else self
        if self.text_gigabytes is not None:
            there = there._with_samples_of_text(self.text_gigabytes)
        settings = resolve(there, corpus)
        log_recipe(self)
        _say_limits(self, settings)
        results = {**show_plan(settings, corpus, is_here=False), "cluster": show_cluster(cluster, request, settings)}
        if self.try_batch_sizes or self.budget is not None or self.hours is not None:
            plans = [settings, *there._alternatives(corpus)]
            least = 0 if settings.initial_weights else FEW_STEPS
            results["choices"] = show_choices(cluster, request, plans, least_steps=least)
        return results

    def _with_samples_of_text(self, gigabytes: float) -> Plan:
        from lambert.api.training import resolve
        from lambert.cli.cluster import samples_of_text
        from lambert.training.config.scaling_rules import PAPER_SAMPLES

        if self.corpus is not None or self.samples is not None or self.epochs is None:
            raise UserError(
                "--text-gigabytes needs --epochs, and neither --corpus nor --samples",
                remedy="Give how often the text is to be seen, such as --epochs 3",
            )
        any_length = resolve(replace(self, epochs=None, samples=PAPER_SAMPLES), None)
        return replace(self, epochs=None, samples=samples_of_text(gigabytes, self.epochs, any_length))

    def _alternatives(self, corpus: Corpus | None) -> list[TrainingConfig]:
        """The same run at the batch sizes to try; what no recipe can be made for is said and left out."""
        from lambert.api.training import resolve

        plans = []
        for batch_size in sorted({*self.try_batch_sizes} - {*self.batch_size}):
            try:
                plans.append(resolve(replace(self, batch_size=(batch_size,)), corpus))
            except UserError as error:
                say(f"left out  batch {batch_size:,}: {error}")
        return plans

    def _run_dry(self, ranks: int) -> dict[str, Any]:
        from lambert.api.training import log_recipe, resolve
        from lambert.cli.dry_run import show_dry_run
        from lambert.corpus.store import Corpus

        if self.cluster is not None or self.chips:
            raise UserError("--dry-run with --cluster or --chips", remedy="Give them one at a time")
        corpus = None if self.corpus is None else Corpus.open(self.corpus)
        settings = resolve(self, corpus)
        log_recipe(self)
        _say_limits(self, settings)
        return {**show_plan(settings, corpus), **show_dry_run(settings, corpus, ranks)}


def _say_limits(arguments: RecipeArguments, settings: TrainingConfig) -> None:
    """How far a run by the square-root rule is from those that the rule was published for."""
    from lambert.training.config.recipe_io import BY_RULE
    from lambert.training.config.scaling_rules import beyond_the_published

    if arguments.recipe in BY_RULE and arguments.init_from is None:
        for note in beyond_the_published(settings.phases, settings.model.hidden_size):
            say(f"note      {note}")
