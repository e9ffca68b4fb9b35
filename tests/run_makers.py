"""A run small enough to be made many times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lambert.corpus.store import Corpus
from lambert.training.config.arguments import Request
from lambert.training.config.resolve import resolve_settings, starting_model
from lambert.training.config.trainer_options import Housekeeping
from lambert.training.config.training_config import RunSettings
from lambert.training.trainer import Trainer

RunMaker = Callable[..., Trainer]


@pytest.fixture
def settings(small_corpus: Corpus) -> RunSettings:
    """Ten steps in two phases, with dropout, two micro-batches a step."""
    request = Request(
        model="2x32",
        batch_sizes=(8,),
        samples=80,
        sequence_lengths=(32, 64),
        dropout=0.1,
        micro_batch_size=4,
        learning_rate=0.01,
    )
    return resolve_settings(request, small_corpus)


@pytest.fixture
def make_run(small_corpus: Corpus, settings: RunSettings) -> RunMaker:
    """A function that makes a trainer for a folder; keywords change settings or housekeeping."""

    def make(run: Path, *, housekeeping: Housekeeping | None = None, fresh: bool = False, **changed: Any) -> Trainer:
        changed_settings = replace(settings, **changed)
        model = starting_model(changed_settings, None, small_corpus)
        quiet = Housekeeping(evaluation_samples=0, checkpoint_steps=2)
        return Trainer(run, changed_settings, model, small_corpus, housekeeping=housekeeping or quiet, fresh=fresh)

    return make
