"""Plans, forecasts and batch-size advice as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import inf, isnan
from typing import TYPE_CHECKING, Any

from lambert.corpus.judgement import shares

if TYPE_CHECKING:
    from lambert.model.huggingface import LoadReport
    from lambert.planning.batch_size import BatchSizeAdvice, Scale
    from lambert.planning.micro_batches import MicroBatchTrial
    from lambert.planning.plan import PhasePlan, Plan
    from lambert.planning.probe import RunForecast
    from lambert.planning.proposal import Proposal
    from lambert.runlog.reader import Run
    from lambert.training.config.phase_config import DerivedValue, PhaseConfig
    from lambert.training.config.training_config import TrainingConfig

MIN_USEFUL_STEPS, TOKENS_PER_ENTRY = 400, 400
"""What a run from scratch must have to be plainly better than the unigram baseline: steps (docs/recipes.md), and tokens
for each vocabulary entry (docs/first_hour.md)."""
FORECAST_ERROR = "within 11 % in the runs of docs/planning.md, on an idle machine"
MEMORY_ERROR = "in its first steps; on a CPU longer runs grew to 1.0 to 1.5 times that"
MOST_UNUSED = 8
"""Names that are listed."""


def plan_lines(plan: Plan, *, is_here: bool = True) -> list[str]:
    """The plan; memory and micro-batches are left out unless it is for this machine."""
    config, memory = plan.config, {kind: size(count) for kind, count in plan.memory_bytes.items()}
    model = config.model
    lines = [
        f"{config.model_name}: {model.layers} layers, hidden size {model.hidden_size}, {plan.parameters:,} parameters, "
        f"vocabulary {model.vocabulary_size:,}, {config.optimizer}, {config.precision.value}"
        + (f", AdamW beside it at {config.adamw_lr_ratio:.3g} of its rate" if config.adamw_lr_ratio != 1 else "")
        + ("" if model.attention_dropout is None else f", attention dropout {model.attention_dropout:g}")
        + (f", about {memory['none']}" if is_here else "")
    ]
    if is_here:
        lines.append(
            f"          with `activation_checkpointing` selective {memory['selective']}, for some 5 % more time, or "
            f"full {memory['full']}, for some 20 %"
        )
    for number, phase in enumerate(plan.phases, start=1):
        lines += _phase_lines(number, phase, is_here=is_here)
    start, end = config.examples.mlm_probability, config.examples.mlm_probability_end
    if end is not None:
        lines.append(
            f"masked    {start:g} of the tokens at first, {end:g} at the end, on a line over the steps of the run"
        )
    if plan.counts:
        lines.append(f"corpus    {shares(plan.counts)}")
    lines += [f"note      {finding}" for finding in plan.findings]
    if plan.is_short:
        lines.append(
            f"note      {config.total_steps:,} steps over {config.tokens:,} tokens from scratch rarely beat the "
            f"unigram baseline ({MIN_USEFUL_STEPS} steps and {TOKENS_PER_ENTRY} tokens for each vocabulary entry do): "
            "take more `epochs`, a smaller batch or `vocab_size`, or continue a published model with `init_from`"
        )
    return lines


def table_lines(plans: Sequence[Plan]) -> list[str]:
    """A row for each plan of one model: batch sizes, steps, peak learning rates and warm-up steps by phase."""
    first = plans[0].config
    lengths = "/".join(str(phase.sequence_length) for phase in first.phases)
    titles = ("batch", "samples", "steps", "by phase", "peak rate", "warm-up steps", "sources")
    rows = [titles]
    for plan in plans:
        phases = plan.config.phases
        numbers = [number for phase in phases for number in (phase.steps, phase.peak_learning_rate, phase.warmup_steps)]
        rows.append((
            "/".join(dict.fromkeys(f"{phase.batch_size:,}" for phase in phases)),
            f"{plan.config.samples:,}",
            f"{plan.config.total_steps:,}",
            " + ".join(f"{phase.step_count:,}" for phase in phases),
            "/".join(dict.fromkeys(f"{phase.peak_learning_rate.value:.3g}" for phase in phases)),
            " + ".join(f"{phase.warmup_steps.value:,}" for phase in phases),
            ", ".join(dict.fromkeys(number.provenance for number in numbers)),
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    model = f"{first.model_name}: {plans[0].parameters:,} parameters, {first.optimizer}, phases of length {lengths}"
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [model, *table, "formulas  `lambert plan` with one of these batch sizes prints them"]


def _phase_lines(number: int, plan: PhasePlan, *, is_here: bool) -> list[str]:
    phase, micro_batch = plan.config, plan.micro_batch_size
    over = "" if plan.epochs is None else f", {plan.epochs:.2f} epochs of the corpus"
    lines = [
        f"phase {number}: sequences of {phase.sequence_length}, batch {phase.batch_size:,}",
        f"  samples        {phase.samples:>14,}  steps · batch{over}",
        f"  tokens         {phase.tokens:>14,}  samples · length, padding included",
        _derived_line("steps", phase.steps),
        _derived_line("peak rate", phase.peak_learning_rate),
        _derived_line("warm-up steps", phase.warmup_steps),
    ]
    if shape := _schedule_shape(phase):
        lines.append(f"  {'then':14} {'':>14}  {shape}")
    if phase.global_rope_theta is not None:
        lines.append(f"  {'rope theta':14} {phase.global_rope_theta:>14,.0f}  of global layers")
    if is_here:
        count = -(-phase.batch_size // micro_batch)
        lines.append(f"  accumulation   {count:>14,}  micro-batches of {micro_batch}: batch / micro-batch, rounded up")
    return lines


def _derived_line(name: str, number: DerivedValue) -> str:
    value = f"{number.value:,}" if isinstance(number.value, int) else f"{number.value:.3g}"
    return f"  {name:14} {value:>14}  {number.formula}  [{number.provenance}]"


def _schedule_shape(phase: PhaseConfig) -> str:
    """The learning rate after the warm-up, where it is not a line to zero."""
    if phase.continues:
        return ""
    parts = {
        f"{phase.stable_steps:,} steps at the peak": phase.stable_steps,
        "cosine decay": phase.decay == "cosine",
        "1 - sqrt decay": phase.decay == "1-sqrt",
        f"decay of power {phase.decay_power:g}": phase.decay_power != 1,
        "counted from the first step, so that the rate drops at once after the warm-up": phase.decays_from_start,
        f"down to {phase.min_lr_ratio:g} of the peak": phase.min_lr_ratio,
        f"to 0 in the last {phase.cooldown_steps:,} steps": phase.cooldown_steps,
    }
    return ", ".join(text for text, is_there in parts.items() if is_there)


def proposal_lines(proposal: Proposal[Any]) -> list[str]:
    """What was chosen, and why; what such runs ended at, or that this one is too short."""
    lines = ["proposal"] + [f"  {one.name:14} {one.value:>14}  {one.reason}" for one in proposal.choices]
    if proposal.expected_loss is not None:
        low, high = proposal.expected_loss
        lines.append(
            f"  {'held-out loss':14} {f'{low:.1f} to {high:.1f}':>14}  where such runs on prose ended "
            f"(docs/first_hour.md); unigram baseline {proposal.unigram_loss:.1f}"
        )
    if proposal.least_hours is not None:
        lines.append(
            f"note      too short to beat the unigram baseline ({proposal.unigram_loss:.1f} nats), which takes about "
            f"{duration(3_600 * proposal.least_hours)} here: give more `hours`, or continue a published model with "
            "`init_from`"
        )
    return lines


def initial_weights_lines(report: LoadReport, name: str) -> list[str]:
    """Which weights of the model do not come from `name`, and which of its own the model does not use."""
    lines = []
    if report.freshly_initialised:
        lines.append(f"weights   newly initialised, as {name} has none: {', '.join(report.freshly_initialised)}")
    else:
        lines.append(f"weights   all from {name}, none newly initialised")
    lines += grown_lines(report.grown, name)
    if report.unused:
        more = "" if len(report.unused) <= MOST_UNUSED else f" and {len(report.unused) - MOST_UNUSED:,} more"
        lines.append(f"weights   of {name} that are not used: {', '.join(report.unused[:MOST_UNUSED])}{more}")
    return lines


def grown_lines(rows: int, name: str) -> list[str]:
    """How many rows of the vocabulary the model does not have yet."""
    return [f"weights   {rows:,} new entries of the vocabulary start from the mean of {name}'s"] if rows else []


def micro_batch_lines(config: TrainingConfig, tried: Sequence[Sequence[MicroBatchTrial]]) -> list[str]:
    """The chosen micro-batch size of each phase that left a choice."""
    lines = []
    for phase, chosen, trials in zip(config.phases, config.micro_batch_sizes, tried, strict=True):
        rates = ", ".join(f"{trial.size}: {trial.sequences_per_second:,.0f}/s" for trial in trials)
        if rates:
            lines.append(
                f"micro-batches of {chosen} sequences of {phase.sequence_length} tokens, the fastest of those tried "
                f"({rates})"
            )
    return lines


def probe_line(config: TrainingConfig, probe_seconds: float, *, has_corpus: bool) -> str:
    """What is about to be timed."""
    text = "" if has_corpus else " on random tokens, since there is no `corpus`"
    each = " each" * (len(config.phases) > 1)
    return f"time      timing steps of each phase{text}, up to {probe_seconds:.0f} seconds{each} …"


def forecast_lines(forecast: RunForecast) -> list[str]:
    """Expected time and memory on this machine."""
    parts = " + ".join(duration(phase.seconds) for phase in forecast.phases)
    lines = [f"time      about {duration(forecast.seconds)} on this machine ({parts}; {FORECAST_ERROR})"]
    if forecast.memory_bytes:
        each = " in each process" if forecast.world_size > 1 else ""
        lines.append(f"memory    about {forecast.memory_bytes / 1e9:.2f} GB{each} {MEMORY_ERROR}")
    return lines


def outcome_line(forecast: RunForecast, *, seconds: float, memory_bytes: int) -> str:
    """What a run took, beside the forecast."""
    line = (
        f"time      {duration(seconds)}, predicted {duration(forecast.seconds)} ({_error(forecast.seconds, seconds)})"
    )
    if memory_bytes and forecast.memory_bytes:
        error = _error(forecast.memory_bytes, memory_bytes)
        line += f"; memory {memory_bytes / 1e9:.2f} GB, predicted {forecast.memory_bytes / 1e9:.2f} ({error})"
    return line


def _error(predicted: float, actual: float) -> str:
    return f"{100 * (predicted / actual - 1):+.1f} %" if actual else "of nothing"


def batch_size_lines(advice: Sequence[BatchSizeAdvice], run: Run, *, model: str | None = None) -> list[str]:
    """Samples and steps at other batch sizes, from the gradient noise of `run`.

    Args:
        model: the plan's, where it has a name.
    """
    lines = []
    for one in advice:
        lines += _advice_lines(one, run)
    measured_model = run.header.get("model")
    if None not in (model, measured_model) and measured_model != model:
        lines.append(
            f"note      the noise was measured with the model {measured_model!r}, and the plan is for {model!r}"
        )
    return lines


def _advice_lines(advice: BatchSizeAdvice, run: Run) -> list[str]:
    phase, noise, scale = advice.config, advice.noise, advice.scale
    if scale is None or advice.problem is not None:
        what = advice.problem.what if advice.problem is not None else ""
        return [f"batch     phase {advice.phase}: {what[:1].lower()}{what[1:]}"]
    high = "any number" if scale.high == inf else f"{scale.high:,.0f}"
    earlier = ", ".join("unknown" if isnan(value) else f"{value:,.0f}" for value in advice.earlier_scales)
    lines = [
        f"batch     phase {advice.phase}: noise scale {scale.value:,.0f} sequences ({scale.low:,.0f} to {high}, two "
        f"standard errors), from {noise.steps} steps of {run.folder}, phase {noise.phase}, batch {noise.large_batch:,}",
        f"          a quarter, a half and three quarters into that phase it was {earlier}",
    ]
    if advice.measured_length not in (None, phase.sequence_length):
        lines.append(
            f"note      it was measured at {advice.measured_length} tokens, and this phase has {phase.sequence_length}"
        )
    limits = advice.largest_that_pays
    lines.append(f"{'batch':>12} {'samples':>16} {'times as many':>22} {'steps':>12} {'times as many':>22}")
    for row in advice.rows:
        own = "  the plan's" if row.batch_size == phase.batch_size else ""
        end = "  the last doubling that pays" if row.batch_size == limits["value"] else ""
        lines.append(
            f"{row.batch_size:>12,} {phase.samples * row.samples_factor.value:>16,.0f} "
            f"{_interval(row.samples_factor):>22} {phase.step_count * row.steps_factor.value:>12,.0f} "
            f"{_interval(row.steps_factor):>22}{own}{end}"
        )
    up_to, low, high = ("any batch" if limit is None else f"{limit:,}" for limit in limits.values())
    return [
        *lines,
        "          to the same loss. Doubling pays while it costs at most half as many samples again, and so saves at "
        "least a",
        f"          quarter of the steps: up to a batch of {up_to}; with the uncertainty, {low} to {high}",
    ]


def _interval(factor: Scale) -> str:
    value, low, high = (f"{number:.3g}" if number < 1_000 else f"{number:,.0f}" for number in asdict(factor).values())
    return f"{value} ({low} to {high})"


def size(byte_count: float) -> str:
    """Gigabytes with one decimal."""
    return f"{byte_count / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5_400:
        return f"{seconds / 60:.1f} minutes"
    if seconds < 48 * 3_600:
        return f"{seconds / 3_600:.1f} hours"
    return f"{seconds / 86_400:,.1f} days"
