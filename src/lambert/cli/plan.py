"""`lambert plan --model NAME --batch-size B [B2] (--epochs E | --samples N)`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.memory import memory_of
from lambert.cli.processes import process_count, start_processes
from lambert.cli.recipe import RecipeOptions, check_probe_seconds
from lambert.cli.verb import say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.corpus.store import Corpus
    from lambert.training.phases import Number, Phase
    from lambert.training.settings import RunSettings


FEW_STEPS = 400
"""About where tiny and mini had left the plateau of word frequencies in our trials (docs/recipes.md)."""


@dataclass(frozen=True, kw_only=True)
class Plan(RecipeOptions):
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
    """tpu-v3, dgx-a100 or a TOML file (docs/planning.md): also predict the time there; this machine is not probed."""
    chips: tuple[int, ...] = ()
    """With --cluster: one or more numbers of chips."""
    dry_run: int | None = None
    """2 to 1,024 ranks: also cut model and samples over so many in this one process, and count the collectives of a
    step; this machine is not probed."""

    def run(self) -> dict[str, Any]:
        """Results: `phases`, `parameters`, `memory_bytes`; `seconds` unless --no-probe, `cluster` with --cluster,
        `dry_run` with --dry-run.
        """
        from lambert.corpus.store import Corpus

        if self.save_recipe is not None:
            self._save_recipe(self.save_recipe)
        if self.dry_run is not None:
            return self._run_dry(self.dry_run)
        if self.cluster is not None:
            return self._run_on_cluster(self.cluster)
        if self.chips:
            raise UserError("--chips without --cluster", remedy="Name a cluster, such as --cluster tpu-v3")

        check_probe_seconds(self.probe_seconds)
        count = 1 if self.no_probe else process_count(self.processes)
        if count > 1:
            return start_processes(self.as_command("plan"), count, json=self.json)
        corpus = None if self.corpus is None else Corpus.open(self.corpus)
        return self._run_here(corpus)

    def _run_here(self, corpus: Corpus | None) -> dict[str, Any]:
        from lambert.cli.forecast import show_forecast
        from lambert.training.parallel import join_processes, leave_processes
        from lambert.training.setup import check_processes

        settings, processes = self.settings(corpus), join_processes()
        if not self.no_probe and self.micro_batch_size is None:
            settings = with_fastest_micro_batches(settings)
        check_processes(settings, processes.count)
        results: dict[str, Any] = {}
        if processes.is_first:
            self.say_recipe()
            self.say_limits(settings)
            results = show_plan(settings, corpus)
        if not self.no_probe:
            forecast = show_forecast(settings, corpus, processes, probe_seconds=self.probe_seconds)
            results |= {"seconds": forecast.seconds, "forecast": forecast.facts()}
        leave_processes(processes)
        return results

    def _save_recipe(self, path: Path) -> None:
        from lambert.training.recipe_file import recipe_as_toml
        from lambert.training.request import with_recipe

        request, recipe = with_recipe(self.request())
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(recipe_as_toml(request.merged(recipe)))
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror or error}", remedy="Name a new file in a folder of yours"
            ) from None
        say(f"recipe    written to {path}")

    def _run_on_cluster(self, name: str) -> dict[str, Any]:
        from lambert.cli.cluster import show_cluster
        from lambert.corpus.store import Corpus

        corpus = None if self.corpus is None else Corpus.open(self.corpus)
        settings = self.settings(corpus)
        self.say_recipe()
        self.say_limits(settings)
        return {**show_plan(settings, corpus), "cluster": show_cluster(settings, name, self.chips)}

    def _run_dry(self, ranks: int) -> dict[str, Any]:
        from lambert.cli.dry_run import show_dry_run
        from lambert.corpus.store import Corpus

        if self.cluster is not None or self.chips:
            raise UserError("--dry-run with --cluster or --chips", remedy="Give them one at a time")
        corpus = None if self.corpus is None else Corpus.open(self.corpus)
        settings = self.settings(corpus)
        self.say_recipe()
        self.say_limits(settings)
        return {**show_plan(settings, corpus), **show_dry_run(settings, corpus, ranks)}


TRIAL_SECONDS = 6.0
"""How long micro-batch sizes of a phase are tried."""
MEMORY_SHARE = 0.6
"""Part of the free memory that a micro-batch may be expected to need."""


def with_fastest_micro_batches(settings: RunSettings) -> RunSettings:
    """The same with the micro-batch sizes that are fastest on this machine, which it tells."""
    from dataclasses import replace

    from lambert.planning.hardware import inspect_hardware
    from lambert.planning.trials import fastest, try_micro_batches
    from lambert.training.environment import local_process_count
    from lambert.training.parallel import join_processes

    processes, memory = join_processes(), inspect_hardware().memory_available_bytes
    if memory is not None and processes.device.type == "cpu":
        memory //= local_process_count()
    sizes = []
    for index, phase in enumerate(settings.phases):
        largest = phase.batch_size // processes.count
        while memory is not None and largest > 1 and memory_of(settings, index, largest) > MEMORY_SHARE * memory:
            largest //= 2
        trials = try_micro_batches(settings, index, processes.device, largest=largest, budget_seconds=TRIAL_SECONDS)
        own = fastest(trials, default=min(largest, settings.micro_batch_sizes[index]))
        chosen = processes.sum_integers([own if processes.is_first else 0])[0]  # the first one's, for all
        sizes.append(chosen)
        if trials and processes.is_first:
            rates = ", ".join(f"{trial.size}: {trial.sequences_per_second:,.0f}/s" for trial in trials)
            say(f"micro-batches of {chosen} × {phase.sequence_length} tokens, the fastest of those tried ({rates})")
    return replace(settings, micro_batch_sizes=tuple(sizes))


def show_plan(settings: RunSettings, corpus: Corpus | None) -> dict[str, Any]:
    """Print the plan and return it as JSON."""
    from lambert.model.bert import ACTIVATION_CHECKPOINTING
    from lambert.training.setup import examples_per_pass, parameter_count

    lengths = tuple(phase.sequence_length for phase in settings.phases)
    seed, kind = settings.seed, settings.examples
    per_pass = None if corpus is None else examples_per_pass(corpus, lengths, seed=seed, kind=kind)
    parameters = parameter_count(settings.model)
    model = settings.model
    memories = {
        kind: max(memory_of(settings, index, size, kind) for index, size in enumerate(settings.micro_batch_sizes))
        for kind in ACTIVATION_CHECKPOINTING
    }
    memory = memories["none"]
    say(
        f"{settings.model_name}: {model.layers} layers × {model.hidden_size}, {parameters:,} parameters, vocabulary "
        f"{model.vocabulary_size:,}, {settings.optimizer}, {settings.precision.value}, about {memory / 1e9:.1f} GB"
    )
    say(
        f"          with --activation-checkpointing selective {memories['selective'] / 1e9:.1f} GB, for "
        f"some 5 % more time, or full {memories['full'] / 1e9:.1f} GB, for some 20 %"
    )
    phases = []
    for index, phase in enumerate(settings.phases):
        passes = None if per_pass is None else phase.samples / per_pass[index]
        _say_phase(index + 1, phase, settings.micro_batch_sizes[index], passes)
        phases.append(_phase_as_json(phase, settings.micro_batch_sizes[index], passes))
    steps = sum(phase.step_count for phase in settings.phases)
    if steps < FEW_STEPS and not settings.initial_weights:
        say(
            f"note      {steps} steps from scratch hardly get beyond word frequencies: take more --epochs, a smaller "
            "batch, shorter --sequence-lengths or a smaller --model, or continue a published model with --init-from"
        )
    results: dict[str, Any] = {"phases": phases, "parameters": parameters, "memory_bytes": memory}
    results["memory_bytes_with_activation_checkpointing"] = memories
    return results


def _say_phase(number: int, phase: Phase, micro_batch: int, passes: float | None) -> None:
    say(f"phase {number}: sequences of {phase.sequence_length}, batch {phase.batch_size:,}")
    over = "" if passes is None else f", {passes:.2f} passes over the corpus"
    say(f"  samples        {phase.samples:>14,}  steps · batch{over}")
    say(f"  token slots    {phase.tokens:>14,}  samples · length")
    _say_number("steps", phase.steps)
    _say_number("peak rate", phase.peak_learning_rate)
    _say_number("warm-up steps", phase.warmup_steps)
    if not phase.continues:
        _say_shape(phase)
    count = -(-phase.batch_size // micro_batch)
    say(f"  accumulation   {count:>14,}  micro-batches of {micro_batch}: batch / micro-batch, rounded up")


def _say_shape(phase: Phase) -> None:
    """What the rate does after the warm-up, where that is not a line to zero."""
    told = []
    if phase.constant_steps:
        told.append(f"{phase.constant_steps:,} steps at the peak")
    if phase.decay_power != 1:
        told.append(f"decay of power {phase.decay_power:g}")
    if phase.decays_from_start:
        told.append("counted from the first step, so that the rate drops at once after the warm-up")
    if phase.final_share:
        told.append(f"down to {phase.final_share:g} of the peak")
    if told:
        say(f"  {'then':14} {'':>14}  {', '.join(told)}")


def _say_number(name: str, number: Number) -> None:
    value = f"{number.value:,}" if isinstance(number.value, int) else f"{number.value:.3g}"
    say(f"  {name:14} {value:>14}  {number.formula}  [{number.provenance}]")


def _phase_as_json(phase: Phase, micro_batch: int, passes: float | None) -> dict[str, Any]:
    return {
        "sequence_length": phase.sequence_length,
        "batch_size": phase.batch_size,
        "samples": phase.samples,
        "tokens": phase.tokens,
        "passes": passes,
        "steps": phase.steps.value,
        "peak_learning_rate": phase.peak_learning_rate.value,
        "warmup_steps": phase.warmup_steps.value,
        "micro_batch_size": micro_batch,
        "sources": {
            "steps": asdict(phase.steps),
            "peak_learning_rate": asdict(phase.peak_learning_rate),
            "warmup_steps": asdict(phase.warmup_steps),
        },
    }
