"""Damage and change of a corpus in use."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from lambert.corpus import watch
from lambert.corpus.shard import Shard
from lambert.corpus.store import Corpus, count_tokens
from lambert.corpus.watch import watched
from lambert.errors import UserError
from lambert.training.checkpoint.format import finished_steps
from lambert.training.config.arguments import TrainingArguments
from lambert.training.config.resolve import resolve_config
from lambert.training.config.starting_model import starting_model
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig
from lambert.training.loop import TrainingLoop
from lambert.utils import tokenizer_calls


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


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread"), ValueError("a bug")])
def test_text_that_could_not_be_compared_is_not_taken_for_verified(
    error: Exception, copied: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(corpus: Corpus) -> None:
        raise error

    monkeypatch.setattr(Corpus, "verify", fail)
    told = "can no longer be read" if isinstance(error, ValueError) else "cannot be verified: memory ran out"
    with pytest.raises(UserError, match=told), watched(copied) as seen, pytest.raises(UserError, match=told):
        seen.check()


@pytest.mark.parametrize("error", [MemoryError(), pa.ArrowMemoryError("malloc of size 64 failed")])
def test_memory_that_runs_out_says_nothing_about_a_file(
    error: Exception, copied: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(pa.ipc, "open_file", fail)
    monkeypatch.setattr(tokenizer_calls, "Tokenizer", SimpleNamespace(from_buffer=fail))
    with pytest.raises(MemoryError):
        copied.split("train").shards  # noqa: B018
    with pytest.raises(MemoryError):
        copied.tokenizer()


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


def run_of(corpus: Corpus, out: Path) -> TrainingLoop:
    """Enough steps that no machine ends them before the test does, each saved."""
    request = TrainingArguments(
        model="1x32", optimizer="adamw", batch_size=(4,), samples=4_000, sequence_lengths=(16,), micro_batch_size=4
    )
    settings: TrainingConfig = resolve_config(request, corpus)
    options = TrainerOptions(evaluation_samples=0, checkpoint_steps=1, keep_last=2_000)
    return TrainingLoop(out, settings, starting_model(settings, None, corpus), corpus, trainer_options=options)


@pytest.mark.parametrize("fault", ["altered", "restored", "replaced", "deleted"])
def test_no_checkpoint_holds_altered_text(fault: str, copied: Corpus, tmp_path: Path) -> None:
    """Whatever happened to the file before a checkpoint was written, also if all is well again by then."""
    run, changed_at = run_of(copied, tmp_path / "run"), 0
    file = copied.path / copied.manifest["shards"][0]["file"]
    whole = file.read_bytes()
    with pytest.raises(UserError, match=rf"corpus file .*{file.name} (has changed|can no longer be read|cannot be)"):
        for step in run:
            if step.step == 5:
                run._checkpoint_writer.close()  # what is saved until now is of unaltered text
                changed_at = step.step
                if fault == "deleted":
                    shutil.rmtree(copied.path)
                    continue
                if fault == "replaced":
                    file.unlink()
                file.write_bytes(whole[:4_096] + bytes(len(whole) - 8_192) + whole[-4_096:])
                if fault == "restored":
                    file.write_bytes(whole)
    assert changed_at and finished_steps(tmp_path / "run")[0] <= changed_at
    assert run.state.step < run.settings.total_steps


def test_a_truncated_file_is_an_error_and_no_sigbus(copied: Corpus) -> None:
    split = copied.split("train")
    assert len(split.sentence_offsets) > 10
    whole = split.tokens(0, split.token_count).tolist()
    for entry in copied.manifest["shards"]:
        os.truncate(copied.path / entry["file"], 4_096)
    with pytest.raises(UserError, match=r"train-.*\.arrow cannot be used: it has been truncated"):
        split.tokens(0, split.token_count)
    with pytest.raises(UserError, match="truncated"):
        count_tokens(split.shards, copied.vocabulary_size)
    start = np.array([len(whole) - 4])
    with pytest.raises(UserError, match="truncated"):
        split.spans(start, start + 4)


def test_a_file_truncated_at_any_moment_of_opening_it_is_an_error_and_no_sigbus(
    copied: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each call of the system that reads it, to each part of its length; and no call leaves it mapped."""
    entry = copied.manifest["shards"][0]
    file, pread = copied.path / entry["file"], os.pread
    whole, moments = file.read_bytes(), 0

    def truncating(descriptor: int, size: int, offset: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls == cut[0]:
            os.truncate(file, cut[1])
        maps = Path("/proc/self/maps")
        assert not maps.exists() or file.name not in maps.read_text()
        return pread(descriptor, size, offset)

    def everything() -> list[list[int]]:
        shard = Shard(file, entry, copied.manifest["token_type"])
        tokens = shard.read_tokens(0, entry["tokens"])
        return [part.tolist() for part in (shard.hashes, shard.document_offsets, shard.sentence_offsets, tokens)]

    monkeypatch.setattr(os, "pread", truncating)
    calls, cut = 0, (0, 0)
    expected = everything()
    for at in itertools.product(range(1, calls + 1), (0, 8, len(whole) // 2, len(whole) - 1)):
        file.write_bytes(whole)
        calls, cut, moments = 0, at, moments + 1
        try:
            assert everything() == expected  # what was read before it was cut
        except UserError as error:
            assert file.name in str(error)
    assert moments > 20
