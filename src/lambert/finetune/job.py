"""One fine-tuning, whatever the task: load, train, predict, cache, for one seed or several."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from tokenizers import Tokenizer
from torch import nn

from lambert.corpus.encoding import SentenceEncoder
from lambert.corpus.judgement import lost_text, shares
from lambert.corpus.tokenizer_files import load_vocabulary
from lambert.errors import UserError
from lambert.finetune.cache import CACHE_FOLDER, FineTuneResult, ResultCache, examples_digest, model_digest
from lambert.finetune.files import make_folder
from lambert.finetune.loop import Diverged, TaskPreset, fine_tune, predict
from lambert.finetune.model import load_with_head
from lambert.finetune.settings import FineTuneProgress, FineTuneSettings, Progress
from lambert.model.huggingface import model_folder
from lambert.training.distributed.process_group import init_process_group
from lambert.training.malloc import apply_allocator_settings

log = logging.getLogger("lambert")
_TEXTS_AT_ONCE = 4_096
_REMEDY = "Take a model whose vocabulary was learned from such text, cased or with accents kept where they matter"

Settings = TypeVar("Settings", bound=FineTuneSettings)


@dataclass(frozen=True)
class FineTuneJob(Generic[Settings]):
    """A fine-tuning in everything but its seed.

    Args:
        path: a run, or a Hugging Face BERT folder.
        train, dev: examples to train on and to predict.
        out: the folder of its results, in which finished fine-tunings are cached; None caches none.
        random_weights: take only size and vocabulary from the model: the baseline of a pre-training.
        cased: how to read a folder that has only a `vocab.txt` and does not say.
        device: None chooses the GPU where there is one.
        progress: called after every training step and evaluation batch.
        trained: called with every model that has been trained and has predicted, after its result is cached: what it
            cannot write then loses no training.
    """

    path: Path
    preset: TaskPreset
    train: Sequence[Any]
    dev: Sequence[Any]
    settings: Settings
    out: Path | None = None
    random_weights: bool = False
    cased: bool = False
    device: torch.device | None = None
    progress: Progress | None = None
    trained: Callable[[nn.Module, Tokenizer, FineTuneResult], None] | None = None

    def prepare(self, *, fresh: bool = False) -> None:
        """Check the process, say how much of the texts is lost, make the folder of the results before hours of work;
        forget the cache if `fresh`.

        Raises:
            UserError: the folder cannot be made, the tokenizer cannot be read, or this is one of several processes.
        """
        processes = init_process_group()
        apply_allocator_settings()
        if processes.world_size > 1:
            raise UserError(f"fine-tuning was started in {processes.world_size} processes", remedy="Start it in one")
        self._tell_what_is_lost()
        if self.out is not None:
            make_folder(self.out)
        if self._cache is not None and fresh:
            self._cache.clear()

    def _tell_what_is_lost(self) -> None:
        """One line with the shares of the characters, and a warning for each that is large."""
        encoder = SentenceEncoder(load_vocabulary(model_folder(self.path), cased=self.cased))
        texts = list(dict.fromkeys(chain.from_iterable(map(self.preset.texts, chain(self.train, self.dev)))))
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            encoder.encode(texts[start : start + _TEXTS_AT_ONCE])
        counts = encoder.take_counts()
        log.info(f"texts of {self.preset.name}: {shares(counts)}")
        for finding in lost_text(counts, is_vocabulary_given=True, accepts_lost_marks=True):
            log.warning(f"texts of {self.preset.name}: {finding.what}. {_REMEDY}.")

    def load(self, seed: int) -> tuple[Any, Tokenizer, list[str]]:
        """See `load_with_head`."""
        how: dict[str, Any] = {"seed": seed, "cased": self.cased, "random_weights": self.random_weights}
        return load_with_head(self.path, self.preset.head, **how)

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
        return self._run(seed, title, name=name, may_diverge=may_diverge), False

    def run_again(self, seed: int, title: str) -> FineTuneResult:
        """Train and predict with a seed, whatever is cached."""
        return self._run(seed, title)

    def _run(self, seed: int, title: str, *, name: str | None = None, may_diverge: bool = False) -> FineTuneResult:
        """Train, predict, cache under a name, and hand the model on."""
        model, tokenizer, _ = self.load(seed)
        model.to(self.device or init_process_group().device)
        how: dict[str, Any] = {
            "seed": seed,
            "progress": None if self.progress is None else _titled(self.progress, title),
        }
        try:
            summary = fine_tune(model, tokenizer, self.preset, self.train, self.settings, **how)
        except Diverged as error:
            if not may_diverge:
                raise
            result = FineTuneResult(seed, self.settings.learning_rate, {}, problem=error.what)
            self._put(name, result)
            return result
        predictions = predict(model, tokenizer, self.preset, self.dev, self.settings, **how)
        result = FineTuneResult(
            seed=seed,
            learning_rate=summary.learning_rate,
            predictions=predictions.values,
            train_loss=summary.train_loss,
            steps=summary.steps,
            train_sequences=summary.sequences,
            dev_sequences=predictions.sequences,
            seconds=summary.seconds + predictions.seconds,
            curve=summary.curve,
        )
        self._put(name, result)
        if self.trained is not None:
            if self.preset.finish is not None:
                self.preset.finish(model)
            self.trained(model, tokenizer, result)
        return result

    def _put(self, name: str | None, result: FineTuneResult) -> None:
        if self._cache is not None and name is not None:
            self._cache.put(name, self.made_from(result.seed), result)

    def _cached(self, name: str, seed: int) -> FineTuneResult | None:
        return None if self._cache is None else self._cache.get(name, self.made_from(seed))

    def made_from(self, seed: int) -> dict[str, Any]:
        """Everything that decides the weights and predictions of a seed, ready for JSON."""
        return self._made_from | {"seed": seed}

    @property
    def _cache(self) -> ResultCache | None:
        return None if self.out is None else ResultCache(self.out / CACHE_FOLDER)

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
            **self.preset.made_from,
        }


def _titled(progress: Progress, title: str) -> Progress:
    def show(one: FineTuneProgress) -> None:
        progress(replace(one, run=title))

    return show
