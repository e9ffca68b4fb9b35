"""The choice of micro-batches by trying, told as it goes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lambert.cli.memory import memory_of
from lambert.cli.subcommand import say

if TYPE_CHECKING:
    from lambert.training.config.training_config import RunSettings

TRIAL_SECONDS = 6.0
"""How long micro-batch sizes of a phase are tried."""
MEMORY_SHARE = 0.6
"""Part of the free memory that a micro-batch may be expected to need."""


def with_fastest_micro_batches(settings: RunSettings) -> RunSettings:
    """The same with the micro-batch sizes that are fastest on this machine, which it tells."""
    from lambert.planning.hardware import inspect_hardware
    from lambert.planning.trials import fastest, try_micro_batches
    from lambert.training.distributed.env import local_process_count
    from lambert.training.distributed.process_group import join_processes

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
