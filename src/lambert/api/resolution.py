"""From arguments to the configuration of a run on this machine."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from lambert.api.messages import log, log_lines
from lambert.corpus.store import Corpus
from lambert.errors import UserError
from lambert.model.heads import PreTrainingModel, pretraining_model
from lambert.model.huggingface import LoadReport
from lambert.model.weight_files import weights_sha256
from lambert.planning import plan_text
from lambert.planning.diagnosis import load_findings
from lambert.planning.hardware import inspect_hardware
from lambert.planning.micro_batches import micro_batches_by_rule, tune_micro_batches
from lambert.planning.probe import RunForecast, forecast_run
from lambert.planning.proposal import Arguments, propose
from lambert.runlog.schema import RECIPE_FILE
from lambert.training.checkpoint.format import run_and_step
from lambert.training.checkpoint.late_decay import starting_step
from lambert.training.config.arguments import RecipeArguments, TrainingArguments
from lambert.training.config.late_decay import with_late_decay
from lambert.training.config.precision import resolve_precision
from lambert.training.config.resolve import micro_batch_sizes, refuse_small_corpus, resolve_config, with_recipe
from lambert.training.config.starting_model import load_starting_model
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import (
    TrainingConfig,
    read_settings,
    recorded_choices,
    refuse_other_config,
)
from lambert.training.distributed.process_group import ProcessGroup

PROPOSAL_SECONDS = 2.0
"""How long each phase is timed for a proposal."""


def opened_corpus(corpus: Corpus | str | Path) -> Corpus:
    """The corpus, opened where it is a folder."""
    return corpus if isinstance(corpus, Corpus) else Corpus.open(Path(corpus))


def resolve(arguments: RecipeArguments, corpus: Corpus | None, group: ProcessGroup | None = None) -> TrainingConfig:
    """Every number of the run, in the precision that this machine's hardware gains from where that is left open.

    Args:
        group: its ranks all call this at once, and rank 0 alone reads the weights of `init_from`.
    """
    hardware = inspect_hardware()
    gains, device = hardware.bfloat16_gains, hardware.device
    precision = resolve_precision(arguments.precision, bfloat16_gains=gains, pretrains_on=device)
    folder = None if group is None else arguments.initial_model_folder
    digest = group.from_main(lambda: weights_sha256(folder)) if group and folder else None
    return resolve_config(arguments, corpus, precision=precision, initial_weights=digest)


def starting_model(
    config: TrainingConfig, init_from: Path | None, corpus: Corpus, group: ProcessGroup
) -> tuple[PreTrainingModel, LoadReport]:
    """`load_starting_model`; rank 0 alone reads the weights of `init_from`, and sends them to the others."""
    if init_from is None or group.world_size == 1:
        return load_starting_model(config, init_from, corpus)
    read: list[PreTrainingModel] = []

    def load() -> dict[str, Any]:
        model, report = load_starting_model(config, init_from, corpus)
        read.append(model)
        return asdict(report)

    report = LoadReport(**group.from_main(load))
    model = read[0] if read else pretraining_model(config.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(group.broadcast(parameter))
    return model, report


def proposed(
    arguments: Arguments, corpus: Corpus, group: ProcessGroup, options: TrainerOptions | None = None
) -> Arguments:
    """The arguments, completed for corpus, machine and time; prints what was chosen and why."""

    def forecast(tried: RecipeArguments) -> RunForecast:
        config = micro_batches_by_rule(resolve(tried, corpus, group), group, inspect_hardware())
        return forecast_run(config, corpus, processes=group, trainer_options=options, budget_seconds=PROPOSAL_SECONDS)

    proposal = propose(arguments, corpus, forecast)
    if group.is_main_process:
        log_lines(plan_text.proposal_lines(proposal))
    return proposal.arguments


def completed(arguments: TrainingArguments, corpus: Corpus, group: ProcessGroup, out: Path) -> TrainingArguments:
    """What the run in `out` was proposed, or else a proposal."""
    if not arguments.fresh and group.from_main((out / RECIPE_FILE).exists):
        return replace(arguments, recipe=str(out), hours=None)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return proposed(arguments, corpus, group, arguments)


def resolve_run(arguments: TrainingArguments, corpus: Corpus, group: ProcessGroup, out: Path) -> TrainingConfig:
    """What is asked for, with what the run in `out` has chosen for itself, or else micro-batches by rule.

    Raises:
        UserError: the run in `out` has other settings.
    """
    if arguments.decay_from is None:
        config = resolve(arguments, corpus, group)
    else:
        config = _late_decay(arguments, corpus, group, out)
    resumes = not arguments.fresh and group.from_main((out / RECIPE_FILE).exists)
    known = group.from_main(lambda: _recorded(out)) if resumes else None
    threads = arguments.threads
    if arguments.deterministic:
        threads = threads or (known["threads"] if known is not None else 0) or 1
    if threads:
        torch.set_num_threads(threads)
    config = replace(
        config,
        deterministic=arguments.deterministic,
        reduce_dtype=arguments.reduce_dtype,
        no_compile=arguments.no_compile,
        threads=threads if arguments.deterministic else 0,
    )
    if arguments.micro_batch_size is None and known and len(known["micro_batch_sizes"]) == len(config.phases):
        config = replace(config, micro_batch_sizes=tuple(known["micro_batch_sizes"]))
    if resumes:
        group.from_main(lambda: refuse_other_config(out, config))  # before the plan of a run that cannot be
    elif arguments.micro_batch_size is None and arguments.decay_from is None:
        config = with_micro_batches(config, group, tune=arguments.tune)
    return config


def _late_decay(arguments: TrainingArguments, corpus: Corpus, group: ProcessGroup, out: Path) -> TrainingConfig:
    """The run that `decay_from` asks for, from the settings of the run in `out` if it has begun."""

    def recorded() -> dict[str, Any]:
        assert arguments.decay_from is not None
        run, named = run_and_step(arguments.decay_from)
        if run.resolve() == out.resolve():
            raise UserError(f"`decay_from` and `out` are both {out}", remedy="Choose another `out`")
        if (out / RECIPE_FILE).exists() and not arguments.fresh:
            begun = read_settings(out)
            if not begun.phases[-1].continues:
                raise UserError(
                    f"{out} holds a run without a decay of its own",
                    remedy="Choose another `out`, or add `fresh=True` to start over",
                )
            step = begun.total_steps - begun.phases[-1].step_count if named is None else named
            return {**begun.as_tables(), "step": step}
        step = starting_step(arguments.decay_from)
        return {**read_settings(run).as_tables(), "step": step}

    tables = group.from_main(recorded)
    config = TrainingConfig.from_tables(tables)
    if config.corpus_fingerprint != corpus.fingerprint:
        raise UserError(
            f"{corpus.path} is not the corpus of {arguments.decay_from}", remedy="Give the `corpus` of that run"
        )
    config = with_late_decay(
        config,
        tables["step"],
        decay_ratio=arguments.decay_ratio,
        batch_size=next(iter(arguments.batch_size), None),
        sequence_length=next(iter(arguments.sequence_lengths), None),
    )
    refuse_small_corpus(config.phases, corpus, seed=config.seed, kind=config.examples, recipe="sqrt")
    if arguments.micro_batch_size is None:
        return config
    return replace(config, micro_batch_sizes=micro_batch_sizes(config.phases, arguments.micro_batch_size))


def _recorded(out: Path) -> dict[str, Any] | None:
    found = recorded_choices(out)
    return None if found is None else asdict(found)


def with_micro_batches(config: TrainingConfig, group: ProcessGroup, *, tune: bool) -> TrainingConfig:
    """The config with micro-batches by the rule, or by timing them here."""
    hardware = inspect_hardware()
    if not tune:
        return micro_batches_by_rule(config, group, hardware)
    config, tried = tune_micro_batches(config, group, hardware)
    if group.is_main_process:
        log_lines(plan_text.micro_batch_lines(config, tried))
    return config


def log_load() -> None:
    """Say if other work will slow this run. To be called before this process works itself."""
    for found in load_findings(inspect_hardware()):
        if found.level != "ok":
            log.info(f"note      {found.text}. {found.remedy}; until then, times are those of a busy machine")


def log_recipe(arguments: RecipeArguments) -> None:
    """Where the numbers of a published recipe come from, and what to know before relying on them."""
    _, recipe = with_recipe(arguments)
    if recipe.source:
        log.info(f"recipe    {recipe.name}: {recipe.source}")
    for note in recipe.notes:
        log.info(f"note      {note}")
