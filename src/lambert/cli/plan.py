"""`lambert plan --model NAME --batch-size B [B2] (--epochs E | --samples N)`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.cli.memory import memory_of
from lambert.cli.verb import Verb, say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.corpus.store import Corpus
    from lambert.training.recipe import Number, Phase
    from lambert.training.settings import RunSettings


FEW_STEPS = 400
"""About where tiny and mini had left the plateau of word frequencies in our trials (docs/recipes.md)."""


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(Verb):
    """The options that `plan` and `pretrain` share."""

    batch_size: tuple[int, ...]
    """Sequences in a global batch: one number for both phases, or one for each. Memory does not limit it."""
    model: str = "base"
    """Layers × hidden size: tiny 2×128, mini 4×256, small 4×512, medium 8×512, base 12×768, large 24×1024, or by hand
    LAYERSxHIDDEN such as 6x384."""
    epochs: float | None = None
    """Passes over the corpus, both phases together. Give this or --samples."""
    samples: int | None = None
    """Sequences to train on, both phases together."""
    sequence_lengths: tuple[int, int] = (128, 512)
    """Tokens in a sequence, in the first phase (9/10 of the samples) and in the second."""
    optimizer: str = "lamb"
    """lamb, adamw, lars or lans."""
    recipe: str = "sqrt"
    """sqrt: everything from the batch size; paper: the same with the published step counts of the 64K/32K run."""
    learning_rate: float | None = None
    """Peak learning rate of both phases; from the batch size otherwise."""
    warmup_share: float | None = None
    """Share of each phase's steps that warm up, 0 to 1; from the batch size otherwise."""
    dropout: float = 0.1
    """Probability of dropping a hidden unit or an attention weight."""
    pairs: str = "nsp"
    """nsp: does B follow A (BERT); sop: are A and B in order (ALBERT); none: one segment, windows of documents."""
    masking: str = "pieces"
    """What is hidden as one: word pieces (BERT), whole words, or spans of words (SpanBERT)."""
    mask_share: float = 0.15
    """Share of the tokens that are hidden."""
    pack: bool = False
    """Put several short examples into one row; for text of short documents."""
    seed: int = 0
    """Start of every random draw."""
    micro_batch_size: int | None = None
    """Sequences that go through the model at once in the first phase, and proportionally fewer in the second;
    the fastest that fits is found by trying otherwise, and remembered."""
    precision: str = "auto"
    """auto, float32, bfloat16-autocast or bfloat16-master; auto takes bfloat16 only where the hardware gains, on a CPU
    bfloat16-master. bfloat16 on a GPU is untested on GPU."""
    init_from: Path | None = None
    """Run or Hugging Face BERT folder whose weights are continued; --model is then not looked at."""

    @property
    def weights_folder(self) -> Path | None:
        """The Hugging Face folder that --init-from means."""
        from lambert.model.huggingface import model_folder

        return None if self.init_from is None else model_folder(self.init_from)

    def settings(self, corpus: Corpus | None) -> RunSettings:
        """Everything resolved."""
        from lambert.batches.kinds import ExampleKind
        from lambert.planning.hardware import inspect_hardware
        from lambert.training.precision import resolve_precision
        from lambert.training.setup import Request, resolve_settings

        hardware = inspect_hardware()
        precision = resolve_precision(
            self.precision, bfloat16_gains=hardware.bfloat16_gains, on_cpu=hardware.device == "cpu"
        )
        request = Request(
            model=self.model,
            batch_sizes=self.batch_size,
            epochs=self.epochs,
            samples=self.samples,
            sequence_lengths=self.sequence_lengths,
            optimizer=self.optimizer,
            recipe=self.recipe,
            learning_rate=self.learning_rate,
            warmup_share=self.warmup_share,
            dropout=self.dropout,
            examples=ExampleKind(self.pairs, self.masking, self.mask_share),
            packs=self.pack,
            seed=self.seed,
            micro_batch_size=self.micro_batch_size,
            init_from=self.weights_folder,
        )
        return resolve_settings(request, corpus, precision=precision)


@dataclass(frozen=True, kw_only=True)
class Plan(RecipeOptions):
    """Print what a run would do before anything runs: steps, rates, warm-up, each with its formula and source."""

    corpus: Path | None = None
    """Corpus that would be trained on; needed for --epochs."""
    no_probe: bool = False
    """Leave out the prediction of the run's time, which takes real steps."""
    probe_seconds: float = 10.0
    """How long each phase's steps are timed, seconds; three steps at least."""
    cluster: str | None = None
    """tpu-v3, dgx-a100 or a TOML file (docs/planning.md): also predict the time there; this machine is not probed."""
    chips: tuple[int, ...] = ()
    """With --cluster: one or more numbers of chips."""

    noise_from: Path | None = None
    """Run whose gradient noise was measured: also print what other batch sizes would cost (docs/batch_size.md)."""

    def run(self) -> dict[str, Any]:
        """Results: `phases`, `parameters`, `memory_bytes`; `seconds` unless --no-probe, `cluster` with --cluster,
        `batch_sizes` with --noise-from.
        """
        from lambert.cli.batch import measured_noise, show_batch_sizes

        measured = None if self.noise_from is None else measured_noise(self.noise_from)
        results = self._plan()
        if measured is not None:
            model = self.model if self.init_from is None else None
            results["batch_sizes"] = show_batch_sizes(results["phases"], measured, model=model)
        return results

    def _plan(self) -> dict[str, Any]:
        from lambert.corpus.store import Corpus

        if self.cluster is not None:
            return self._run_on_cluster(self.cluster)
        if self.chips:
            raise UserError("--chips without --cluster", remedy="Name a cluster, such as --cluster tpu-v3")

        if not 0 <= self.probe_seconds <= 3_600:
            raise UserError(f"a probe of {self.probe_seconds} seconds", remedy="Give 0 to 3,600, or --no-probe")
        corpus = None if self.corpus is None else Corpus.open(self.corpus)
        settings = self.settings(corpus)
        if not self.no_probe and self.micro_batch_size is None:
            settings = with_fastest_micro_batches(settings)
        return show_plan(settings, corpus, probe_seconds=None if self.no_probe else self.probe_seconds)

    def _run_on_cluster(self, name: str) -> dict[str, Any]:
        from lambert.cli.cluster import show_cluster
        from lambert.corpus.store import Corpus

        corpus = None if self.corpus is None else Corpus.open(self.corpus)
        settings = self.settings(corpus)
        return {**show_plan(settings, corpus), "cluster": show_cluster(settings, name, self.chips)}


TRIAL_SECONDS = 6.0
"""How long micro-batch sizes of a phase are tried."""
MEMORY_SHARE = 0.6
"""Part of the free memory that a micro-batch may be expected to need."""


def with_fastest_micro_batches(settings: RunSettings) -> RunSettings:
    """The same with the micro-batch sizes that are fastest on this machine, which it tells."""
    from dataclasses import replace

    from lambert.planning.hardware import inspect_hardware
    from lambert.planning.probe import fastest, try_micro_batches
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
    return replace(settings, micro_batch_sizes=(sizes[0], sizes[1]))


def show_plan(settings: RunSettings, corpus: Corpus | None, *, probe_seconds: float | None = None) -> dict[str, Any]:
    """Print the plan and return it as JSON; `probe_seconds` None leaves the time out."""
    from lambert.model.bert import ACTIVATION_CHECKPOINTING
    from lambert.training.parallel import join_processes
    from lambert.training.setup import examples_per_pass, parameter_count

    lengths = (settings.phases[0].sequence_length, settings.phases[1].sequence_length)
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
    if probe_seconds is not None:
        from lambert.planning.probe import measure_step

        device = join_processes().device
        say(f"time      taking a few steps of each phase, about {2 * probe_seconds:.0f} seconds …")
        seconds = 0.0
        for index, phase in enumerate(settings.phases):
            cost = measure_step(settings, index, device, budget_seconds=probe_seconds)
            seconds += phase.step_count * cost.step_seconds(-(-phase.batch_size // settings.micro_batch_sizes[index]))
        say(f"time      about {_duration(seconds)} on this machine (from a probe of a few steps, evaluation left out)")
        results["seconds"] = seconds
    return results


def _say_phase(number: int, phase: Phase, micro_batch: int, passes: float | None) -> None:
    say(f"phase {number}: sequences of {phase.sequence_length}, batch {phase.batch_size:,}")
    over = "" if passes is None else f", {passes:.2f} passes over the corpus"
    say(f"  samples        {phase.samples:>14,}  steps · batch{over}")
    say(f"  token slots    {phase.tokens:>14,}  samples · length")
    _say_number("steps", phase.steps)
    _say_number("peak rate", phase.peak_learning_rate)
    _say_number("warm-up steps", phase.warmup_steps)
    count = -(-phase.batch_size // micro_batch)
    say(f"  accumulation   {count:>14,}  micro-batches of {micro_batch}: batch / micro-batch, rounded up")


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


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 48 * 3_600:
        return f"{seconds / 3_600:.1f} hours"
    return f"{seconds / 86_400:,.1f} days"
