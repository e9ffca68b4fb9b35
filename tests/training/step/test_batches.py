"""Who makes the batches of a step changes no bit, and on a GPU it is never the training thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch, SampleStream
from lambert.errors import Interrupted
from lambert.training.config.phase import Phase, phases_of, training_stream
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step import batches, launcher
from lambert.training.step.batches import StepBatches, WorkPace
from lambert.training.step.pretraining_loss import pretraining_task

GPU = ProcessGroup(device=torch.device("cuda"))


def options(workers: int | None) -> TrainerOptions:
    return TrainerOptions(evaluation_samples=0, checkpoint_steps=2, data_workers=workers)


def weights(run: Any) -> torch.Tensor:
    return torch.cat([value.flatten() for value in run.state.weights().values()])


def test_the_weights_do_not_depend_on_the_number_of_processes(tmp_path: Path, make_run: Any) -> None:
    """Both phases, dropout, and a run that is stopped with three and resumed with one."""
    plain = make_run(tmp_path / "plain", trainer_options=options(0))
    plain.train()
    first = make_run(tmp_path / "run", trainer_options=options(3))
    for metrics in first:
        if metrics.step == 3:
            first.request_stop()
    assert first.output is not None and not first.output.finished
    second = make_run(tmp_path / "run", trainer_options=options(1))
    assert second.train().finished and second.output.resumed_from_step == first.step > 0
    assert torch.equal(weights(second), weights(plain))


def test_a_micro_batch_that_does_not_fit_is_halved_whoever_makes_it(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowded(model: Any, batch: Any) -> Any:
        if len(batch.token_ids) > 2:
            raise MemoryError
        return pretraining_task(model, batch)

    plain = make_run(tmp_path / "plain", micro_batch_sizes=(2, 2))
    plain.train()
    monkeypatch.setattr(launcher, "pretraining_task", crowded)
    run = make_run(tmp_path / "run", micro_batch_sizes=(4, 4), trainer_options=options(1))
    run.train()
    assert torch.equal(weights(run), weights(plain))


class Recorded:
    """A stream that says which thread made which samples."""

    def __init__(self, stream: SampleStream) -> None:
        self.stream, self.made = stream, list[tuple[str, int, int]]()

    def batches(self, first: int, counts: list[int]) -> list[PretrainingBatch]:
        name = threading.current_thread().name
        self.made += [(name, first + sum(counts[:at]), count) for at, count in enumerate(counts)]
        return self.stream.batches(first, counts)


@pytest.fixture
def phase(settings: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> Phase:
    monkeypatch.setattr(PretrainingBatch, "pin_memory", lambda self: self)  # which takes a GPU
    return phases_of(settings)[0]


@pytest.fixture
def recorded(small_corpus: Corpus, settings: TrainingConfig, phase: Phase) -> Any:
    return Recorded(training_stream(small_corpus, settings, phase, fixed_shapes=True))


@pytest.fixture
def on_gpu() -> Iterator[StepBatches]:
    made = StepBatches(GPU, None)
    yield made
    made.close()


def test_on_a_gpu_the_training_thread_makes_no_batch_and_takes_what_is_ready(
    on_gpu: StepBatches, phase: Phase, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 6):
        assert len(on_gpu.of(phase, recorded, step)) == phase.micro_batch_count
        on_gpu.make_ahead(phase, recorded, step + 1)
    names = {name for name, _, _ in recorded.made}
    assert len(names) == 1 and threading.current_thread().name not in names
    assert on_gpu._thread is not None
    on_gpu._thread.submit(lambda: None).result()  # step 6 is ready
    made = [(first, count) for _, first, count in recorded.made]
    assert made == [(first, 4) for first in range(0, 6 * 8, 4)]  # each once, in order
    on_gpu._thread.submit(threading.Event().wait, 5)  # the thread makes nothing meanwhile
    assert len(on_gpu.of(phase, recorded, 6)) == 2 and len(recorded.made) == len(made)


def test_batches_of_another_size_than_expected_are_made_anew(on_gpu: StepBatches, phase: Phase, recorded: Any) -> None:
    on_gpu.of(phase, recorded, 1)
    on_gpu.make_ahead(phase, recorded, 2)
    halved = phase.halved("full", deterministic=False)
    assert [len(batch.token_ids) for batch in on_gpu.of(halved, recorded, 2)] == [2, 2, 2, 2]
    on_gpu.make_ahead(halved, recorded, halved.last_step + 1)  # there is none
    assert threading.current_thread().name not in {name for name, _, _ in recorded.made}


class Pool:
    """Stands in for the processes: they are ready when they are asked for the third time, or end before."""

    def __init__(self, count: int, *, pins: bool) -> None:
        self.count, self.questions, self.made, self.is_closed = count, 0, list[Any](), False
        pools.append(self)

    def begin(self, stream: Any) -> None:
        self.stream = stream

    def are_ready(self) -> bool:
        self.questions += 1
        if dies and self.questions == 2:
            raise Interrupted("killed", remedy="Start it again")
        return self.questions > 2

    def batches(self, wanted: Any, later: Any) -> Any:
        self.made.append(list(wanted))
        return [batch for first, *counts in wanted for batch in self.stream.stream.batches(first, counts)]

    def close(self) -> None:
        self.is_closed = True


pools: list[Pool] = []
dies = False


@pytest.mark.parametrize(("busy", "ends"), [(False, False), (True, False), (True, True)])
def test_processes_start_by_themselves_where_the_thread_is_busy(
    phase: Phase, recorded: Any, monkeypatch: pytest.MonkeyPatch, busy: bool, ends: bool
) -> None:
    """The thread goes on until they are ready, and if they never are."""
    pools.clear()
    monkeypatch.setattr(f"{__name__}.dies", ends)
    monkeypatch.setattr(batches, "BatchWorkers", Pool)
    monkeypatch.setattr(batches, "spare_cores", lambda: 2)
    monkeypatch.setattr(WorkPace, "is_busy", property(lambda self: busy and len(self._steps) >= 2))
    made = StepBatches(GPU, None)
    for step in range(1, 9):
        assert len(made.of(phase, recorded, step)) == 2
    made.close()
    by_processes = sum(len(counts) for pool in pools for wanted in pool.made for _, *counts in wanted)
    assert (len(recorded.made), by_processes) == ((8, 8) if busy and not ends else (16, 0))
    assert [(pool.count, pool.is_closed) for pool in pools] == ([(2, True)] if busy else [])


@pytest.mark.parametrize(("seconds", "busy"), [(0.19, False), (0.21, True), (1.0, True)])
def test_the_thread_is_busy_where_it_makes_batches_a_fifth_of_the_time(seconds: float, busy: bool) -> None:
    pace = WorkPace()
    for step in range(-5, 40):
        assert not pace.is_busy or step > 14
        pace.add(step, step + (seconds if step >= 0 else 0.0))
    assert pace.is_busy is busy


@pytest.mark.parametrize(
    ("cores", "ranks", "expected"), [(1, 1, 0), (2, 1, 0), (4, 1, 2), (16, 1, 4), (16, 8, 0), (64, 8, 4)]
)
def test_processes_leave_two_cores_to_each_rank(
    cores: int, ranks: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches.os, "sched_getaffinity", lambda pid: range(cores), raising=False)
    monkeypatch.setattr(batches, "env", SimpleNamespace(local_process_count=lambda: ranks))
    assert batches.spare_cores() == expected


def test_on_a_cpu_there_is_neither_thread_nor_process(phase: Phase, recorded: Any) -> None:
    made = StepBatches(ProcessGroup(), None)
    made.make_ahead(phase, recorded, 1)
    assert len(made.of(phase, recorded, 1)) == 2
    made.close()
    assert {name for name, _, _ in recorded.made} == {threading.current_thread().name}
