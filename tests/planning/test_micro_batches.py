"""Which micro-batch is taken: by the rates that were tried, within memory, and nothing where there is no choice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lambert.planning import micro_batches
from lambert.planning.hardware import CudaDevice, Hardware, inspect_hardware
from lambert.planning.memory import estimate_memory
from lambert.planning.micro_batches import (
    MEMORY_FRACTION,
    MicroBatchTrial,
    fastest,
    micro_batches_by_rule,
    try_micro_batches,
    tune_micro_batches,
)
from lambert.training.config.arguments import TrainingArguments
from lambert.training.config.resolve import resolve_config
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.train_step import OutOfMemory

CPU = torch.device("cpu")


def request(batch: int) -> TrainingArguments:
    return TrainingArguments(model="1x16", batch_size=(batch,), samples=10 * batch, sequence_lengths=(64, 128))


def test_the_largest_of_the_fastest_is_taken() -> None:
    trials = [MicroBatchTrial(8, 80), MicroBatchTrial(16, 100), MicroBatchTrial(32, 99), MicroBatchTrial(64, 90)]
    assert fastest(trials, default=1) == 32
    assert fastest(trials[:1], default=1) == 8
    assert fastest([], default=5) == 5


def test_sizes_double_while_they_gain_fit_and_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {16: 1.0, 32: 1.2, 64: 1.5, 128: 6.0, 256: 6.0, 512: 50.0}
    monkeypatch.setattr(micro_batches, "_step_seconds", lambda state, settings, size, length: seconds[size])
    settings = resolve_config(request(1_000), None)

    def sizes(largest: int, budget: float = 9.0) -> list[int]:
        return [trial.size for trial in try_micro_batches(settings, 0, CPU, largest=largest, budget_seconds=budget)]

    assert sizes(10_000) == [16, 32, 64, 128]  # and no further, for the last was slower
    assert sizes(63) == [16, 32]
    assert sizes(10_000, budget=0.0) == [16]
    seconds[64] = 2.0
    seconds[128] = 3.9
    assert sizes(10_000) == [16, 32, 64, 128, 256, 512]

    def crowded(state: object, settings: object, size: int, length: int) -> float:
        if size > 16:
            raise OutOfMemory("full")
        return 1.0

    monkeypatch.setattr(micro_batches, "_step_seconds", crowded)
    assert sizes(10_000) == [16]


def test_a_small_batch_needs_no_trial() -> None:
    settings = resolve_config(request(16), None)
    assert try_micro_batches(settings, 0, CPU, largest=16, budget_seconds=9.0) == []


def test_real_steps_are_timed() -> None:
    settings = resolve_config(request(64), None)
    trials = try_micro_batches(settings, 1, CPU, largest=16, budget_seconds=60.0)
    assert next(trial.size for trial in trials) == 8
    assert all(trial.sequences_per_second > 0 for trial in trials)


def machine(memory_bytes: int | None) -> Hardware:
    return replace(inspect_hardware(), memory_bytes=memory_bytes, memory_available_bytes=0)


def test_the_rule_takes_as_many_tokens_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """4,096 tokens where nothing limits them; a rank's part of the batch; what fits a machine shared by ranks."""
    config = resolve_config(request(4_096), None)
    assert micro_batches_by_rule(config, ProcessGroup(), machine(None)).micro_batch_sizes == (64, 32)
    small = resolve_config(request(16), None)
    assert micro_batches_by_rule(small, ProcessGroup(), machine(None)).micro_batch_sizes == (16, 16)
    memory = round(estimate_memory(config, config.phases[0], 64).total_bytes / MEMORY_FRACTION) + 1
    assert micro_batches_by_rule(config, ProcessGroup(), machine(memory)).micro_batch_sizes[0] == 64
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert micro_batches_by_rule(config, ProcessGroup(), machine(memory)).micro_batch_sizes[0] < 64


def test_the_rule_ignores_what_others_use() -> None:
    """The same command twice makes the same micro-batches, however busy the machine is."""
    config = resolve_config(request(4_096), None)
    busy, idle = (replace(machine(1 << 30), memory_available_bytes=size) for size in (1, 1 << 30))
    assert micro_batches_by_rule(config, ProcessGroup(), busy) == micro_batches_by_rule(config, ProcessGroup(), idle)


def test_trials_on_a_gpu_keep_to_the_memory_that_is_free_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the host's memory nor what others use of the GPU's."""
    config = resolve_config(request(4_096), None)
    gpus = (CudaDevice("H100", 80 << 30, (9, 0)),)
    base = machine(1)
    hardware = replace(base, torch=replace(base.torch, devices=gpus))
    group = ProcessGroup(device=torch.device("cuda", 0))
    assert micro_batches_by_rule(config, group, hardware).micro_batch_sizes == (64, 32)
    largest: list[int] = []
    monkeypatch.setattr(
        micro_batches, "try_micro_batches", lambda *others, **options: largest.append(options["largest"]) or []
    )
    monkeypatch.setattr(ProcessGroup, "all_reduce_ints", lambda self, values: values)
    for size in (128, 32):
        free = round(estimate_memory(config, config.phases[0], size).total_bytes / MEMORY_FRACTION) + 1
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 80 << 30))
        tune_micro_batches(config, group, hardware)
    assert largest[::2] == [128, 32]


def test_tuning_takes_what_was_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a known memory, the batch is the limit; a phase without trials keeps its size."""
    config = resolve_config(request(4_096), None)
    tried = {0: [MicroBatchTrial(16, 10), MicroBatchTrial(32, 20)], 1: []}
    largest: list[int] = []

    def trials(config: object, index: int, *others: object, **options: int) -> list[MicroBatchTrial]:
        largest.append(options["largest"])
        return tried[index]

    monkeypatch.setattr(micro_batches, "try_micro_batches", trials)
    chosen, found = tune_micro_batches(config, ProcessGroup(), machine(None))
    assert chosen.micro_batch_sizes == (32, config.micro_batch_sizes[1]) and found == (tried[0], [])
    assert largest == [4_096, 4_096]
