"""Planning from Python: what a run will do, how long it takes on this machine and how much memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lambert.api.messages import log_lines, printed_messages
from lambert.api.resolution import log_load, log_recipe, opened_corpus, proposed, resolve, with_micro_batches
from lambert.corpus.store import Corpus
from lambert.planning import plan_text
from lambert.planning.plan import Plan, describe_plan
from lambert.planning.probe import forecast_run
from lambert.training.config.arguments import RecipeArguments, check_probe_seconds, is_open
from lambert.training.config.recipe_io import BY_RULE
from lambert.training.config.resolve import check_world_size
from lambert.training.config.scaling_rules import beyond_the_published
from lambert.training.config.starting_model import vocabulary_entries
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed.process_group import destroy_process_group, init_process_group
from lambert.training.malloc import apply_allocator_settings


def plan(
    corpus: Corpus | str | Path | None = None,
    *,
    probe_seconds: float | None = 20.0,
    arguments: RecipeArguments | None = None,
    progress: bool = False,
    **options: Any,
) -> Plan:
    """Say what a run would do before it runs: every number with its formula, time and memory on this machine::

        plan = lambert.plan("my-corpus", model="mini", batch_size=256, epochs=3)
        print(plan)
        plan.seconds, plan.memory_bytes["none"]

    Args:
        corpus: needed for `epochs`; without one, `samples` decides the length and rows of random ids are timed.
        probe_seconds: how long each phase's steps are timed, three steps at least; None times nothing and predicts no
            duration.
        arguments: everything else as one object; or give its fields by name (`lambert.TrainingArguments`).
        progress: print the plan while it is made.

    Raises:
        UserError: an argument is unknown, or the arguments make no run.
    """
    check_probe_seconds(probe_seconds or 0.0)
    arguments = replace(arguments, **options) if arguments is not None else RecipeArguments.of(**options)
    opened = None if corpus is None else opened_corpus(corpus)
    with printed_messages(active=progress):
        apply_allocator_settings()
        group = init_process_group()
        if group.is_main_process and probe_seconds is not None:
            log_load()
        is_proposed = opened is not None and is_open(arguments)
        if opened is not None and is_proposed:
            arguments = proposed(arguments, opened, group)
        config = resolve(arguments, opened)
        if arguments.micro_batch_size is None:
            config = with_micro_batches(config, group, tune=arguments.tune)
        check_world_size(config, group.world_size)
        found = describe_plan(config, opened)
        if group.is_main_process:
            log_recipe(arguments)
            log_limits(arguments, config, opened)
            log_lines(plan_text.plan_lines(found))
        if probe_seconds is not None:
            if group.is_main_process and not is_proposed:
                log_lines([plan_text.probe_line(config, probe_seconds, has_corpus=opened is not None)])
            forecast = forecast_run(
                config, opened, processes=group, budget_seconds=probe_seconds, renew=not is_proposed
            )
            found = replace(found, forecast=forecast)
            if group.is_main_process:
                log_lines(plan_text.forecast_lines(forecast))
        destroy_process_group(group)
    return found


def log_limits(arguments: RecipeArguments, config: TrainingConfig, corpus: Corpus | None) -> None:
    """How far a run by the square-root rule is from those that the rule was published for; of a model that is
    continued, how many rows of the vocabulary are new."""
    if arguments.recipe in BY_RULE and arguments.init_from is None:
        log_lines(f"note      {note}" for note in beyond_the_published(config.phases, config.model.hidden_size))
    folder = arguments.initial_model_folder
    if folder is not None and corpus is not None:
        known, wanted = vocabulary_entries(folder, corpus)
        log_lines(plan_text.grown_lines(max(0, wanted - known), str(arguments.init_from)))
