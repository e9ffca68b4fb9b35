"""A run small enough to be made many times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lambert.corpus.store import Corpus
from lambert.training.config.arguments import TrainingArguments
from lambert.training.config.resolve import resolve_config
from lambert.training.config.starting_model import starting_model
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig
from lambert.training.loop import TrainingLoop

RunMaker = Callable[..., TrainingLoop]


@pytest.fixture
def settings(small_corpus: Corpus) -> TrainingConfig:
    """Ten steps in two phases, with dropout, two micro-batches a step."""
    request = TrainingArguments(
        model="2x32",
        optimizer="lamb",
        batch_size=(8,),
        samples=80,
        sequence_lengths=(32, 64),
        dropout=0.1,
        micro_batch_size=4,
        learning_rate=0.01,
    )
    return resolve_config(request, small_corpus)


@pytest.fixture
def make_run(small_corpus: Corpus, settings: TrainingConfig) -> RunMaker:
    """A function that makes a trainer for a folder; keywords change settings or trainer_options."""

    def make(
        run: Path, *, trainer_options: TrainerOptions | None = None, fresh: bool = False, **changed: Any
    ) -> TrainingLoop:
        changed_settings = replace(settings, **changed)
        model = starting_model(changed_settings, None, small_corpus)
        quiet = TrainerOptions(evaluation_samples=0, checkpoint_steps=2)
        return TrainingLoop(
            run, changed_settings, model, small_corpus, trainer_options=trainer_options or quiet, fresh=fresh
        )

    return make
