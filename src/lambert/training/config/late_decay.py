"""The decay of a constant-rate run, as a run of its own: the steps done so far and one more phase."""

from __future__ import annotations

import math
from dataclasses import replace

from lambert.errors import UserError
from lambert.training.config.phase import Phase, phases_of
from lambert.training.config.phase_config import DerivedValue, PhaseConfig
from lambert.training.config.phase_recipe import PhaseRecipe
from lambert.training.config.training_config import TrainingConfig


def with_late_decay(
    config: TrainingConfig,
    step: int,
    *,
    decay_ratio: float,
    batch_size: int | None = None,
    sequence_length: int | None = None,
) -> TrainingConfig:
    """The run that trains as `config` says to `step`, and then decays on a 1 − √t curve (Hägele et al. 2024).

    Its steps up to `step` are those of `config`, in every bit; the decay is a phase that continues their schedule.

    Args:
        step: one with the peak learning rate, counted from 1 through all phases.
        decay_ratio: samples of the decay as a fraction of all samples.
        batch_size, sequence_length: of the decay; None takes those of the phase of `step`.

    Raises:
        UserError: the learning rate of `step` is not the peak, the decay has no step, or `config` has a mask schedule.
    """
    if config.examples.mlm_probability_end is not None:
        raise UserError(
            "the masked fraction of this run changes over all its steps, so its decay cannot begin early",
            remedy="Choose a run without `mlm_probability_end`",
        )
    phases = phases_of(config)
    index = next((at for at, phase in enumerate(phases) if phase.first_step <= step <= phase.last_step), None)
    if index is None:
        raise UserError(f"step {step:,} of a run of {config.total_steps:,}", remedy="Give a checkpoint of the run")
    last, done = phases[index], step - phases[index].schedule_first_step + 1
    rate, peak = last.learning_rate(step), last.schedule.peak
    if not math.isclose(rate, peak) or done < last.schedule.warmup_steps:
        raise UserError(
            f"step {step:,} has a learning rate of {rate:.3g}, which is not the run's peak of {peak:.3g}",
            remedy=_where_the_peak_is(last),
        )
    kept = [phase.config for phase in phases[: index + 1]]
    kept[-1] = replace(last.config, steps=_steps(step - last.first_step + 1, "steps before the decay"))
    began = next(at for at, phase in enumerate(phases) if phase.first_step == last.schedule_first_step)
    kept[began] = replace(
        kept[began],
        stable_steps=done - last.schedule.warmup_steps,
        decay="1-sqrt",
        decay_power=1.0,
        decays_from_start=False,
        min_lr_ratio=0.0,
        cooldown_steps=0,
    )
    return _with_phase(config, kept, _decay(kept, decay_ratio, batch_size, sequence_length))


def _where_the_peak_is(phase: Phase) -> str:
    """What to do where the rate is not the peak of the phase's schedule."""
    schedule, began = phase.schedule, phase.schedule_first_step
    held = [step for step in range(1, schedule.total_steps + 1) if math.isclose(schedule.rate(step), schedule.peak)]
    if len(held) > 1:
        return f"Choose a checkpoint of steps {held[0] + began - 1:,} to {held[-1] + began - 1:,}, which have it"
    return "Choose a run that was trained with `lr_scheduler_type` constant_with_warmup"


def _decay(
    kept: list[PhaseConfig], decay_ratio: float, batch_size: int | None, sequence_length: int | None
) -> PhaseConfig:
    done = sum(phase.samples for phase in kept)
    samples = decay_ratio / (1 - decay_ratio) * done
    size = kept[-1].batch_size if batch_size is None else batch_size
    length = kept[-1].sequence_length if sequence_length is None else sequence_length
    PhaseRecipe(length, size)  # whose checks these numbers have to pass
    steps = round(samples / size)
    if steps < 1:
        raise UserError(
            f"a decay of {samples:.3g} samples is less than a step of {size:,}", remedy="Give a larger `decay_ratio`"
        )
    return replace(
        kept[-1],
        sequence_length=length,
        batch_size=size,
        steps=_steps(steps, f"{decay_ratio:g} of all samples / batch"),
        warmup_steps=DerivedValue(0, "continues the schedule of the phase before", "given"),
        stable_steps=0,
        continues=True,
    )


def _steps(count: int, formula: str) -> DerivedValue:
    return DerivedValue(count, formula, "given")


def _with_phase(config: TrainingConfig, kept: list[PhaseConfig], decay: PhaseConfig) -> TrainingConfig:
    """`config` with these phases; the micro-batches of the decay have as many tokens as those before it."""
    sizes = config.micro_batch_sizes[: len(kept)]
    tokens = sizes[-1] * kept[-1].sequence_length
    phases = (*kept, decay)
    return replace(
        config,
        phases=phases,
        samples=sum(phase.samples for phase in phases),
        micro_batch_sizes=(*sizes, min(decay.batch_size, max(1, tokens // decay.sequence_length))),
    )
