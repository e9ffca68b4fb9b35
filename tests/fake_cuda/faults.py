"""Faults to plant in lambert while a command runs on the fake GPU: name → a context manager."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from typing import Any
from unittest import mock

import torch

from lambert.finetune.inputs import SequenceBatch
from lambert.finetune.loop import TaskPreset
from lambert.training.step import launcher, pretraining_loss, train_state
from lambert.training.step.batches import StepBatches
from lambert.training.step.download import Download

Fault = Callable[[], AbstractContextManager[Any]]


def _left_on_the_cpu(field: str) -> Fault:
    to = SequenceBatch.to

    def broken(self: SequenceBatch, device: Any) -> SequenceBatch:
        return replace(to(self, device), **{field: getattr(self, field)})

    return lambda: mock.patch.object(SequenceBatch, "to", broken)


def _pageable() -> Any:
    def broken(self: SequenceBatch, device: Any) -> SequenceBatch:
        return SequenceBatch(*(getattr(self, own.name).to(device, non_blocking=True) for own in fields(self)))

    return mock.patch.object(SequenceBatch, "to", broken)


def _item_in_the_loss() -> Any:
    task = TaskPreset.task

    def broken(self: TaskPreset, model: Any, batch: Any) -> Any:
        output = task(self, model, batch)
        assert output.loss_sums["sequence"].item() >= 0
        return output

    return mock.patch.object(TaskPreset, "task", broken)


def _logits_read_at_once() -> Any:
    made = Download.__init__

    def broken(self: Download, tensor: torch.Tensor) -> None:
        made(self, tensor.cpu() if tensor.dim() > 1 else tensor)

    return mock.patch.object(Download, "__init__", broken)


def _item_in_an_evaluation() -> Any:
    task = pretraining_loss.pretraining_task

    def broken(model: Any, batch: Any) -> Any:
        output = task(model, batch)
        assert model.training or output.loss_sums["mlm"].item() >= 0
        return output

    return mock.patch.object(pretraining_loss, "pretraining_task", broken)


def _batches_taken_twice() -> Any:
    samples = StepBatches._samples
    return mock.patch.object(StepBatches, "_samples", lambda self, phase, step: samples(self, phase, step - 1))


def _dropout_by_the_process() -> Any:
    number = itertools.count()
    return mock.patch.object(launcher, "dropout_seed", lambda *_: next(number))


def _moments_left_on_the_cpu() -> Any:
    restore = train_state.restore_optimizer

    def broken(optimizer: Any, names: Any, saved: Any, own_part: Any) -> None:
        restore(optimizer, names, saved, lambda parameter, tensor: tensor)

    return mock.patch.object(train_state, "restore_optimizer", broken)


def _no_room(name: str, number: int) -> Fault:
    """An operation of PyTorch that finds no memory on the device when it is called so many times."""
    made, real = itertools.count(1), getattr(torch, name)

    def crowded(*args: Any, **options: Any) -> Any:
        result = real(*args, **options)
        if result.device.type == "cuda" and result.dim() > 0 and next(made) == number:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return result

    return lambda: mock.patch.object(torch, name, crowded)


FAULTS: dict[str, Fault] = {
    "targets on the CPU": _left_on_the_cpu("targets"),
    "a mask on the CPU": _left_on_the_cpu("attention_mask"),
    "pageable uploads": _pageable,
    "item() in the loss": _item_in_the_loss,
    "batches taken twice": _batches_taken_twice,
    "dropout by the process": _dropout_by_the_process,
    "moments left on the CPU": _moments_left_on_the_cpu,
    "no room for moments": _no_room("zeros_like", 5),
    "no room for a span's logits": _no_room("stack", 2),
    "item() in an evaluation": _item_in_an_evaluation,
    "logits read at once": _logits_read_at_once,
}
