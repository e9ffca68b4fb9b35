"""The plan of a run, for people and as JSON: what `plan` prints, and `pretrain` before it begins."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lambert.cli.memory import memory_of
from lambert.cli.subcommand import say

if TYPE_CHECKING:
    from lambert.corpus.store import Corpus
    from lambert.training.config.phase_config import Number, Phase
    from lambert.training.config.training_config import RunSettings

FEW_STEPS = 400
"""About where tiny and mini had left the plateau of word frequencies in our trials (docs/recipes.md)."""


def show_plan(settings: RunSettings, corpus: Corpus | None, *, is_here: bool = True) -> dict[str, Any]:
    """Print the plan and return it as JSON; what belongs to a machine is left unsaid where it is not this one."""
    from lambert.model.bert import ACTIVATION_CHECKPOINTING
    from lambert.training.config.resolve import examples_per_pass, parameter_count

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
        f"{model.vocabulary_size:,}, {settings.optimizer}, {settings.precision.value}"
        + (f", about {memory / 1e9:.1f} GB" if is_here else "")
    )
    if is_here:
        say(
            f"          with --activation-checkpointing selective {memories['selective'] / 1e9:.1f} GB, for "
            f"some 5 % more time, or full {memories['full'] / 1e9:.1f} GB, for some 20 %"
        )
    phases = []
    for index, phase in enumerate(settings.phases):
        passes = None if per_pass is None else phase.samples / per_pass[index]
        _say_phase(index + 1, phase, settings.micro_batch_sizes[index] if is_here else None, passes)
        phases.append(_phase_as_json(phase, settings.micro_batch_sizes[index], passes))
    steps = sum(phase.step_count for phase in settings.phases)
    if steps < FEW_STEPS and not settings.initial_weights:
        say(
            f"note      {steps} steps from scratch hardly get beyond word frequencies: take more --epochs, a smaller "
            "batch, shorter --sequence-lengths or a smaller --model, or continue a published model with --init-from"
        )
    results: dict[str, Any] = {
        "model": settings.model_name,
        "phases": phases,
        "parameters": parameters,
        "memory_bytes": memory,
    }
    results["memory_bytes_with_activation_checkpointing"] = memories
    return results


def _say_phase(number: int, phase: Phase, micro_batch: int | None, passes: float | None) -> None:
    say(f"phase {number}: sequences of {phase.sequence_length}, batch {phase.batch_size:,}")
    over = "" if passes is None else f", {passes:.2f} passes over the corpus"
    say(f"  samples        {phase.samples:>14,}  steps · batch{over}")
    say(f"  token slots    {phase.tokens:>14,}  samples · length")
    _say_number("steps", phase.steps)
    _say_number("peak rate", phase.peak_learning_rate)
    _say_number("warm-up steps", phase.warmup_steps)
    if not phase.continues:
        _say_shape(phase)
    if micro_batch is None:
        return
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
