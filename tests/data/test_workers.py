"""Batches made by other processes: the same bits, in order, in bounded memory; a process that ends is an error."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch, SampleStream, example_source
from lambert.data.mask_schedule import MaskSchedule
from lambert.data.objective import ObjectiveConfig
from lambert.data.workers import BatchWorkers
from lambert.errors import Interrupted, UserError

STREAMS = (
    {"pairing": "nsp", "fixed_shapes": True},
    {"pairing": "nsp", "packs": True},
    {"pairing": "sop", "masking": "span"},
    {"pairing": "none", "masking": "whole_word", "fixed_shapes": True},
    {"pairing": "none", "fixed_shapes": True, "mask_schedule": MaskSchedule(0.3, 0.15, 90, 11, 90, 8)},
)


def stream(corpus: Corpus, *, pairing: str, masking: str = "token", phase: int = 1, **options: Any) -> SampleStream:
    objective = ObjectiveConfig(pairing=pairing, masking=masking)
    source = example_source(corpus, "train", sequence_length=64, seed=5, phase=phase, objective=objective)
    return SampleStream(source, **options)


def digest(batch: PretrainingBatch) -> str:
    """Of all that a batch holds: names, types, shapes, values."""
    found = hashlib.sha256()
    for name, value in sorted(vars(batch).items()):
        found.update(f"{name} {value.dtype, value.shape}".encode() if isinstance(value, torch.Tensor) else b"")
        found.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
    return found.hexdigest()


@pytest.fixture(scope="module", params=[1, 3])
def workers(request: pytest.FixtureRequest) -> Iterator[BatchWorkers]:
    started = BatchWorkers(request.param, pins=False)
    yield started
    started.close()


def test_any_number_of_processes_makes_the_same_batches(workers: BatchWorkers, small_corpus: Corpus) -> None:
    """Also after a jump, with other sizes, past the end of an epoch, and of another stream."""
    random = torch.get_rng_state()
    for options in STREAMS:
        own = stream(small_corpus, **options)  # type: ignore[arg-type]
        workers.begin(own)
        end = len(own.examples)
        for first, sizes in ((0, (8,)), (80, (4, 1, 3)), (end - 5, (9,)), (0, (1, 2))):
            keys = [(first + number * sum(sizes), *sizes) for number in range(15)]  # three are begun and dropped
            for at in range(0, 12, 3):
                made = workers.batches(keys[at : at + 3], iter(keys[at + 3 :]))
                starts = [start + sum(sizes[:which]) for start, *_ in keys[at : at + 3] for which in range(len(sizes))]
                expected = [own.batch(*samples) for samples in zip(starts, sizes * 3, strict=True)]
                assert [digest(batch) for batch in made] == [digest(batch) for batch in expected]
        workers.batches([(40, 4)], [(0, 8), (8, 8)])  # begun as the next stream will ask for them
    assert torch.equal(random, torch.get_rng_state())


def test_memory_is_bounded_however_many_batches_are_to_come(workers: BatchWorkers, small_corpus: Corpus) -> None:
    own = stream(small_corpus, pairing="nsp", fixed_shapes=True)
    workers.begin(own)
    keys = [(number * 16, 16) for number in range(1_000)]
    left = iter(keys[1:])
    workers.batches(keys[:1], left)
    most = 2 * len(workers.pids)
    assert len(list(left)) >= len(keys) - 1 - most
    for at in range(1, 40):
        workers.batches([keys[at]], iter(keys[at + 1 :]))
    spare = 64  # where an array begins
    one = sum(tensor.nbytes + spare for tensor in own.batch(0, 16).parts()[0].values())
    indices = [stream(small_corpus, **options).examples.index() for options in STREAMS]  # type: ignore[arg-type]
    index = max(sum(array.nbytes + spare for array in arrays.values()) for arrays in indices)
    assert 0 < workers.shared_bytes <= index + most * (one + spare)


def test_a_killed_process_is_an_error_at_once_and_the_others_end(small_corpus: Corpus) -> None:
    workers = BatchWorkers(2, pins=False)
    workers.begin(stream(small_corpus, pairing="nsp"))
    workers.batches([(0, 4)], [(4, 4), (8, 4)])
    os.kill(workers.pids[1], signal.SIGKILL)
    killed = rf"process {workers.pids[1]}, which makes batches, was killed by SIGKILL, perhaps because memory ran out"
    with pytest.raises(Interrupted, match=killed) as found:
        workers.batches([(4 * number, 4) for number in range(1, 9)])
    assert "`data_workers`" in found.value.remedy
    with pytest.raises(Interrupted):
        workers.begin(stream(small_corpus, pairing="sop"))
    workers.close()
    for pid in workers.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("workers", [1], indirect=True)
def test_what_is_wrong_with_the_corpus_is_said_as_without_processes(
    workers: BatchWorkers, small_corpus: Corpus, tmp_path: Path
) -> None:
    shutil.copytree(small_corpus.path, tmp_path / "corpus")
    own = stream(Corpus.open(tmp_path / "corpus"), pairing="nsp")
    shard = next((tmp_path / "corpus").glob("train-*.arrow"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=rf"{shard.name} cannot be used: it has .* bytes instead of {len(whole):,}"):
        workers.begin(own)
        workers.batches([(0, 4)])
    shard.write_bytes(whole)
    manifest = tmp_path / "corpus" / "manifest.json"
    said = manifest.read_text()
    manifest.write_text(said.replace(own.examples.split.corpus.fingerprint, "0" * 64))
    with pytest.raises(UserError, match="has changed since the run began"):
        workers.begin(own)
        workers.batches([(0, 4)])
    manifest.write_text(said)
    workers.begin(own)
    assert digest(workers.batches([(0, 4)])[0]) == digest(own.batch(0, 4))  # it goes on
    os.truncate(shard, 4_096)
    with pytest.raises(UserError, match=rf"{shard.name} cannot be used: it has been truncated"):
        workers.batches([(4, 4)])
