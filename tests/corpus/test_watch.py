"""Damage and change of a corpus in use."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from lambert.corpus import watch
from lambert.corpus.store import Corpus
from lambert.corpus.watch import watched
from lambert.errors import UserError
from lambert.training.config.arguments import TrainingArguments
from lambert.training.config.resolve import resolve_config
from lambert.training.config.starting_model import starting_model
from lambert.training.config.training_config import TrainingConfig
from lambert.training.loop import TrainingLoop


@pytest.fixture
def copied(small_corpus: Corpus, tmp_path: Path) -> Corpus:
    shutil.copytree(small_corpus.path, tmp_path / "corpus")
    return Corpus.open(tmp_path / "corpus")


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(bytes(data))


def test_a_whole_corpus_is_left_alone(copied: Corpus) -> None:
    with watched(copied) as seen:
        pass
    assert seen.problem is None


def test_every_flipped_bit_is_found(copied: Corpus) -> None:
    """Of 1,000 drawn at random over all shards."""
    files = [copied.path / entry["file"] for entry in copied.manifest["shards"]]
    draw = random.Random(5)
    for _ in range(1_000):
        file = draw.choice(files)
        bit = draw.randrange(8 * file.stat().st_size)
        flip(file, bit)
        with pytest.raises(UserError, match=file.name):
            copied.verify()
        flip(file, bit)
    copied.verify()


def test_damage_is_told_at_the_end_of_the_work(copied: Corpus) -> None:
    flip(copied.path / copied.manifest["shards"][0]["file"], 4_000)
    with pytest.raises(UserError, match="SHA-256"), watched(copied):
        pass
    with watched(copied, active=False) as seen:
        pass
    assert seen.problem is None


def test_a_file_that_changes_meanwhile_is_told(copied: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    file = copied.path / copied.manifest["shards"][0]["file"]
    with pytest.raises(UserError, match="has changed since the run began"), watched(copied):
        file.touch()
    with pytest.raises(UserError, match="can no longer be read|has changed|cannot be used"), watched(copied):
        file.unlink()


def test_other_errors_are_not_hidden(copied: Corpus) -> None:
    flip(copied.path / copied.manifest["shards"][0]["file"], 4_000)
    with pytest.raises(ValueError, match="mine"), watched(copied):
        raise ValueError("mine")


def test_a_run_on_a_damaged_corpus_stops_and_says_so(copied: Corpus, tmp_path: Path) -> None:
    request = TrainingArguments(model="1x32", batch_size=(4,), samples=4_000, sequence_lengths=(16, 16))
    settings: TrainingConfig = resolve_config(request, copied)
    model = starting_model(settings, None, copied)
    entry = copied.manifest["shards"][0]
    flip(copied.path / entry["file"], 8 * (entry["bytes"] // 2))
    trainer = TrainingLoop(tmp_path / "run", settings, model, copied)
    with pytest.raises(UserError, match=r"train-00000-000\.arrow.*SHA-256"):
        trainer.train()
    assert trainer.state.step < settings.total_steps
