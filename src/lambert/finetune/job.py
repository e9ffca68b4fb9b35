"""One fine-tuning, whatever the task: load, train, predict, cache, for one seed or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lambert.errors import UserError
from lambert.finetune.cache import FineTuneResult, ResultCache, examples_digest, model_digest
from lambert.finetune.loop import Diverged, TrainSummary
from lambert.finetune.model import load_with_head
from lambert.finetune.settings import FineTuneProgress, FineTuneSettings, Progress
from lambert.model.bert import BertConfig
from lambert.model.huggingface import model_folder
from lambert.training.distributed.process_group import init_process_group
from lambert.training.malloc import apply_allocator_settings


def single_device() -> torch.device:
    """The device of the only process, prepared for training. Raises UserError where there are several processes."""
    processes = init_process_group()
    apply_allocator_settings()
    if processes.world_size > 1:
        raise UserError(f"fine-tuning was started in {processes.world_size} processes", remedy="Start it in one")
    return processes.device


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for the development examples."""

    values: dict[str, Any]
    """In the form that JSON can hold; the keys are the task's own."""
    sequences: int
    seconds: float


@dataclass(frozen=True)
class TaskPreset:
    """What makes one fine-tuning task different from another."""

    name: str
    head: Callable[[BertConfig], Any]
    """Builds encoder and head."""
    fine_tune: Callable[..., TrainSummary]
    """(model, tokenizer, examples, settings, *, seed, progress): trains the model in place."""
    predict: Callable[..., Predictions]
    """The same arguments."""


@dataclass(frozen=True, kw_only=True)
class FineTuneJob:
    """A fine-tuning in everything but its seed.

    Args:
        path: a run, or a Hugging Face BERT folder.
        cache: where finished fine-tunings are stored and looked up; None stores none.
        device: None chooses the GPU where there is one.
    """

    path: Path
    preset: TaskPreset
    train: Sequence[Any]
    dev: Sequence[Any]
    settings: FineTuneSettings
    cache: ResultCache | None = None
    random_weights: bool = False
    cased: bool = False
    device: torch.device = field(default_factory=single_device)
    progress: Progress | None = None

    def run_seeds(self, seeds: Sequence[int]) -> Iterator[tuple[FineTuneResult, bool]]:
        """Every seed's result, and whether it comes from the cache."""
        for seed in seeds:
            self._cached(f"seed-{seed}", seed)  # refuses other work before hours of training
        for number, seed in enumerate(seeds, start=1):
            yield self.run(f"seed-{seed}", seed, f"seed {seed} ({number} of {len(seeds)})")

    def run(self, name: str, seed: int, title: str, *, may_diverge: bool = False) -> tuple[FineTuneResult, bool]:
        """Train and predict with one seed, unless the cache has the result under this name.

        Args:
            title: what `progress` calls this fine-tuning.
            may_diverge: give a result with a `problem` instead of raising `Diverged`.
        """
        cached = self._cached(name, seed)
        if cached is not None:
            return cached, True
        model, tokenizer, _ = load_with_head(
            self.path, self.preset.head, seed=seed, cased=self.cased, random_weights=self.random_weights
        )
        model.to(self.device)
        how = {"seed": seed, "progress": None if self.progress is None else _titled(self.progress, title)}
        try:
            summary = self.preset.fine_tune(model, tokenizer, self.train, self.settings, **how)
        except Diverged as error:
            if not may_diverge:
                raise
            result = FineTuneResult(seed, self.settings.learning_rate, {}, problem=error.what)
        else:
            predictions = self.preset.predict(model, tokenizer, self.dev, self.settings, **how)
            result = FineTuneResult(
                seed=seed,
                learning_rate=summary.learning_rate,
                predictions=predictions.values,
                train_loss=summary.train_loss,
                steps=summary.steps,
                train_sequences=summary.sequences,
                dev_sequences=predictions.sequences,
                seconds=summary.seconds + predictions.seconds,
            )
        if self.cache is not None:
            self.cache.put(name, self._made_from | {"seed": seed}, result)
        return result, False

    def _cached(self, name: str, seed: int) -> FineTuneResult | None:
        return None if self.cache is None else self.cache.get(name, self._made_from | {"seed": seed})

    @cached_property
    def _made_from(self) -> dict[str, Any]:
        """Everything that decides the predictions but the seed, ready for JSON."""
        settings = {
            name: value for name, value in vars(self.settings).items() if name not in self.settings.APPLIED_AFTERWARDS
        }
        return {
            "task": self.preset.name,
            "model": model_digest(model_folder(self.path)),
            "examples": {"train": examples_digest(self.train), "dev": examples_digest(self.dev)},
            "random_weights": self.random_weights,
            "cased": self.cased,
            "settings": settings | {"precision": self.settings.precision.value},
        }


def _titled(progress: Progress, title: str) -> Progress:
    def show(one: FineTuneProgress) -> None:
        progress(replace(one, run=title))

    return show
