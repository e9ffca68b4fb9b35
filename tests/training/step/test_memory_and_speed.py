"""A step that does not fit is halved and changes nothing; what is recomputed changes nothing; the timer adds up."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lambert.corpus.store import Corpus
from lambert.errors import Interrupted, UserError
from lambert.model.bert import ACTIVATION_CHECKPOINTING, BertConfig
from lambert.model.flops import training_flops
from lambert.model.heads import BertForPreTraining
from lambert.model.ops import eager, select_ops
from lambert.optim import muon
from lambert.training.checkpoint.format import finished_steps
from lambert.training.config.precision import Precision
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import Recorded, TrainingConfig, recorded_choices
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.malloc import apply_allocator_settings
from lambert.training.metrics.execution_info import describe_execution
from lambert.training.optimizer import OPTIMIZERS
from lambert.training.step import launcher, timer, train_step
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.timer import PARTS, StepTimer, peak_matmul_flops
from lambert.training.step.train_state import TrainState

CPU = torch.device("cpu")
FULL = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def weights(trainer: Any) -> torch.Tensor:
    return torch.cat([value.flatten() for value in trainer.state.weights().values()])


ONEDNN = "could not create a primitive"
"""What a matrix product raises on a CPU where memory ends inside oneDNN."""


@pytest.mark.parametrize(
    "error", [RuntimeError(FULL), RuntimeError(ONEDNN), torch.OutOfMemoryError("CUDA out of memory"), MemoryError()]
)
def test_a_micro_batch_that_does_not_fit_is_halved(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def crowded(model: Any, batch: Any) -> Any:
        # The second micro-batch of a step fails, with gradients of the first already there.
        nonlocal met
        met += 1
        if len(batch.token_ids) > 2 and met % 2 == 0:
            raise error
        return pretraining_task(model, batch)

    met = 0
    plain = make_run(tmp_path / "plain", micro_batch_sizes=(2, 4))
    plain.train()
    monkeypatch.setattr(launcher, "pretraining_task", crowded)
    run = make_run(tmp_path / "run", micro_batch_sizes=(4, 4))
    assert run.train().finished
    halved = events(tmp_path / "run", "micro_batch")
    assert [(event["phase"], event["micro_batch_size"]) for event in halved] == [(1, 2), (2, 2)]
    assert halved[0]["step"] == 0 and halved[1]["step"] == 9
    assert recorded_choices(tmp_path / "run") == Recorded((2, 2), threads=0)
    first = [event["loss"] for event in events(tmp_path / "run", "step")][:9]
    assert first == [event["loss"] for event in events(tmp_path / "plain", "step")][:9]  # bit for bit


def test_one_sequence_that_does_not_fit_is_told(tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def crowded(model: Any, batch: Any) -> Any:
        raise RuntimeError(FULL)

    monkeypatch.setattr(launcher, "pretraining_task", crowded)
    with pytest.raises(UserError, match=r"one sequence of 32 tokens does not fit.*`activation_checkpointing` full"):
        make_run(tmp_path / "run").train()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_moments_that_do_not_fit_change_no_weight_where_the_device_skips_steps(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    zeros_like, fits, inside = torch.zeros_like, math.inf, False
    made: list[int] = []

    def crowded(tensor: torch.Tensor, **options: Any) -> torch.Tensor:
        if inside and tensor.dim() > 0:
            made.append(tensor.numel())
            if len(made) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GB")
        return zeros_like(tensor, **options)

    def followed(folder: str) -> Any:
        def step() -> None:
            nonlocal inside
            inside = True
            own()

        run = make_run(tmp_path / folder, optimizer=optimizer, micro_batch_sizes=(8, 8))
        own = run.state.optimizer.step
        monkeypatch.setattr(run.state.optimizer, "step", step)
        return run

    monkeypatch.setattr(train_step, "_skips_on_device", lambda *_: True)
    monkeypatch.setattr(muon, "_are_stacked", lambda parameters: True)
    monkeypatch.setattr(torch, "zeros_like", crowded)
    for _ in followed("sound"):
        break
    run = followed("run")
    before, fits, inside = weights(run).clone(), len(made) - 1, False
    made.clear()
    with pytest.raises(Interrupted, match=r"does not fit into memory \(CUDA out of memory\.\).*`optimizer`"):
        run.train()
    assert len(made) == fits + 1
    assert torch.equal(weights(run), before)
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))


def test_a_later_update_that_does_not_fit_ends_the_run_at_its_last_checkpoint(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = (make_run(tmp_path / name) for name in ("whole", "run"))
    whole.train()
    step = stopped.state.optimizer.step

    def crowded() -> None:
        step()
        if stopped.step == 4:  # in the fifth step, with the weights half updated or wholly
            raise MemoryError

    monkeypatch.setattr(stopped.state.optimizer, "step", crowded)
    with pytest.raises(Interrupted, match="does not fit into memory"):
        stopped.train()
    resumed = make_run(tmp_path / "run")
    assert resumed.train().resumed_from_step == 4
    assert torch.equal(weights(resumed), weights(whole))


def test_other_errors_are_not_taken_for_want_of_memory(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: Any, batch: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(launcher, "pretraining_task", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        make_run(tmp_path / "run").train()


@pytest.mark.parametrize("hidden_size", [32, 128])  # eager, and fused CPU kernels
@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.BFLOAT16_MASTER])
def test_activation_checkpointing_changes_no_bit(
    tmp_path: Path, make_run: Any, settings: TrainingConfig, precision: Precision, hidden_size: int
) -> None:
    ends = []
    for kind in ACTIVATION_CHECKPOINTING:
        trainer_options = TrainerOptions(evaluation_samples=0, activation_checkpointing=kind)
        size = replace(settings.model, hidden_size=hidden_size)
        run = make_run(tmp_path / kind, precision=precision, trainer_options=trainer_options, model=size)
        run.train()
        ends.append(weights(run))
        assert events(tmp_path / kind, "run")[0]["execution"]["activation_checkpointing"] == kind
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activation_checkpointing_keeps_less(dtype: torch.dtype) -> None:
    config = BertConfig(
        vocabulary_size=50, layers=4, hidden_size=64, attention_heads=2, feed_forward_size=256, dropout=0.1
    )
    model = BertForPreTraining(config).to(dtype)
    ids = torch.randint(0, 50, (4, 64))
    kept = []
    for kind in ACTIVATION_CHECKPOINTING:
        model.encoder.checkpoint_activations(kind)
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = model.encoder(ids, torch.zeros_like(ids), None)
        kept.append(sum(sizes.values()))
        hidden.sum().backward()
    assert kept[2] < kept[1] < kept[0]
    assert kept[2] < 0.25 * kept[0]


@pytest.mark.parametrize("hidden_size", [32, 128])
def test_master_weights_add_up_micro_batches(
    tmp_path: Path, make_run: Any, settings: TrainingConfig, hidden_size: int
) -> None:
    size = replace(settings.model, hidden_size=hidden_size, dropout=0.0)
    ends, norms = [], []
    for name, sizes in (("whole", (8, 8)), ("parts", (2, 4))):
        run = make_run(tmp_path / name, precision=Precision.BFLOAT16_MASTER, micro_batch_sizes=sizes, model=size)
        start = weights(run)
        run.train()
        ends.append(weights(run))
        norms.append([event["gradient_norm"] for event in events(tmp_path / name, "step")])
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
    assert (ends[1] - ends[0]).norm() < 0.2 * (ends[0] - start).norm()


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(UserError, match=r"activation checkpointing.*selectiv"):
        TrainerOptions(activation_checkpointing="selectiv")


def test_the_meter_adds_up_parts_and_begins_anew() -> None:
    timer = StepTimer(CPU)
    with timer.section("forward"):
        pass
    with timer.section("forward"):
        peak_matmul_flops(CPU, Precision.FLOAT32)
    first, second = timer.lap()(), timer.lap()()
    assert tuple(first) == PARTS and first["forward"] > 0 == first["backward"]
    assert second == dict.fromkeys(PARTS, 0.0)


def test_the_peak_is_of_random_numbers_and_draws_none_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ones a GPU makes products faster than of any training's numbers."""
    factors: list[torch.Tensor] = []
    multiply = torch.Tensor.__matmul__

    def remember(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        factors.append(one)
        return multiply(one, other)

    monkeypatch.setitem(timer._PEAK_SIZE, "cpu", 64)
    monkeypatch.setattr(torch.Tensor, "__matmul__", remember)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    for precision in (Precision.FLOAT32, Precision.BFLOAT16_AUTOCAST):
        peak_matmul_flops(CPU, precision)
        assert factors[-1].dtype == (torch.float32 if precision is Precision.FLOAT32 else torch.bfloat16)
        assert len(factors[-1].unique()) > 1_000 and 0.9 < float(factors[-1].float().std()) < 1.1
    assert torch.equal(torch.rand(4), expected)


def test_every_step_says_where_its_time_went(tmp_path: Path, make_run: Any) -> None:
    make_run(tmp_path / "run").train()
    for step in events(tmp_path / "run", "step"):
        parts = step["step_time_breakdown"]
        assert tuple(parts) == PARTS
        assert parts["forward"] > 0 and parts["backward"] > 0 and parts["optimizer"] > 0
        assert sum(parts.values()) <= step["seconds"]
        assert 0 < step["mfu"] < 1
    facts = events(tmp_path / "run", "run")[0]
    assert facts["peak_matmul_flops_per_second"] > 1e9
    assert facts["execution"]["precision"].startswith("float32")


@pytest.mark.parametrize(
    ("hidden_size", "precision", "fused"),
    [
        (128, Precision.FLOAT32, True),
        (128, Precision.BFLOAT16_MASTER, True),
        (128, Precision.BFLOAT16_AUTOCAST, False),
        (64, Precision.FLOAT32, False),
    ],
)
def test_the_run_says_which_kernels_it_uses(
    settings: TrainingConfig, hidden_size: int, precision: Precision, fused: bool
) -> None:
    model = replace(settings.model, hidden_size=hidden_size)
    said = describe_execution(replace(settings, model=model, precision=precision), ProcessGroup(), TrainerOptions())[
        "kernels"
    ]
    assert said.startswith("fused CPU kernels") == fused
    weight = torch.empty(1, hidden_size, dtype=torch.bfloat16 if precision is Precision.BFLOAT16_MASTER else None)
    with precision.autocast(CPU):
        assert (select_ops(weight) is not eager) == fused


def test_flops_by_hand() -> None:
    # Published: BERT-Large, 1.016 TFLOP for a sequence of 512 with 76 masked words, .237 for one of 128 with 20.
    large = BertConfig(30_522, 24, 1_024, 16, 4_096)
    assert training_flops(large, tokens=512, sequences=1, masked_tokens=76) == pytest.approx(1.016e12, rel=0.02)
    assert training_flops(large, tokens=128, sequences=1, masked_tokens=19) == pytest.approx(0.237e12, rel=0.02)
    tiny = BertConfig(10, 1, 2, 1, 3)
    products = 4 * (2 * 2 * 2) * 5 + 2 * (2 * 2 * 3) * 5 + 2 * (2 * 5 * 5 * 2) + 3 * 2 * (2 * 2 + 2 * 10) + 2 * 2 * 2
    assert training_flops(tiny, tokens=5, sequences=1, masked_tokens=3) == 3 * products


def test_the_allocator_keeps_memory_where_it_can() -> None:
    import platform

    assert apply_allocator_settings() == (platform.libc_ver()[0] == "glibc")


def test_micro_batches_are_remembered(tmp_path: Path, make_run: Any, small_corpus: Corpus) -> None:
    assert recorded_choices(tmp_path / "run") is None
    make_run(tmp_path / "run", micro_batch_sizes=(3, 2)).train()
    assert recorded_choices(tmp_path / "run") == Recorded((3, 2), threads=0)


@pytest.mark.parametrize("error", [RuntimeError(FULL), MemoryError()])
def test_memory_that_ends_while_a_checkpoint_is_copied_ends_the_run_with_the_last_one(
    error: Exception, tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(state: TrainState, facts: Any) -> Any:
        if state.step >= 6:
            raise error
        return checkpoint(state, facts)

    checkpoint = TrainState.checkpoint
    plain = make_run(tmp_path / "plain")
    plain.train()
    monkeypatch.setattr(TrainState, "checkpoint", copied)
    options = TrainerOptions(evaluation_samples=0, checkpoint_steps=3)
    with pytest.raises(Interrupted, match=r"memory ran out.*Free some, then give the same command to resume from .* 3"):
        make_run(tmp_path / "run", trainer_options=options).train()
    assert finished_steps(tmp_path / "run") == [3]
    monkeypatch.setattr(TrainState, "checkpoint", checkpoint)
    again = make_run(tmp_path / "run", trainer_options=options)
    assert again.train().resumed_from_step == 3 and torch.equal(weights(again), weights(plain))
