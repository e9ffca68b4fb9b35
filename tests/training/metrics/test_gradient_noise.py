"""The noise scale of a run matches gradients of single sequences, and measuring it changes no bit."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lambert.training.checkpoint.format import load_checkpoint
from lambert.training.config.phase import Phase
from lambert.training.config.phase_config import DerivedValue, PhaseConfig
from lambert.training.config.precision import Precision
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.metrics.gradient_noise import GradientNoiseTracker
from lambert.training.step.train_step import StepResult, TaskOutput, train_step
from lambert.utils.lr_schedule import LRSchedule

SMALL, LARGE, POPULATION = 4, 16, 200


def make_phase(*, batch: int = LARGE, micro: int = SMALL, number: int = 1, steps: int = 1_000) -> Phase:
    nothing = DerivedValue(0, "", "given")
    phase = PhaseConfig(8, batch, DerivedValue(steps, "", "given"), nothing, nothing)
    return Phase(number, phase, 1, micro, LRSchedule(1.0, 0, steps), 1)


@dataclass(frozen=True)
class Examples:
    """Rows for a linear model, each with a target."""

    inputs: Tensor
    targets: Tensor

    def counts(self) -> dict[str, int]:
        return {"square": len(self.targets)}

    def to(self, device: torch.device) -> Examples:
        return self


def least_squares(model: nn.Module, batch: Examples) -> TaskOutput:
    errors = model(batch.inputs)[:, 0] - batch.targets
    return TaskOutput({"square": errors.square().sum() / 2}, {"square": (errors.abs() < 1).sum()})


def test_a_linear_model_whose_noise_is_known_in_closed_form() -> None:
    """The gradient of ½ (w·x − y)² is (w·x − y) x, for every example at hand; batches are drawn with replacement."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(2, (POPULATION, 5), generator=generator).double() * 2 - 1
    targets = inputs.sum(1) + torch.randn(POPULATION, dtype=torch.float64, generator=generator)
    model = nn.Linear(5, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    gradients = -targets[:, None] * inputs
    variance = float((gradients - gradients.mean(0)).square().sum(1).mean())
    square = float(gradients.mean(0).square().sum())

    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    noise, phase, events = GradientNoiseTracker(1_000), make_phase(batch=64, micro=4), []
    for step in range(1, 601):
        chosen = torch.randint(POPULATION, (64,), generator=generator).split([4, 60])
        result = train_step(
            model,
            optimizer,
            [Examples(inputs[rows], targets[rows]) for rows in chosen],
            task=least_squares,
            learning_rate=0.0,
            max_grad_norm=0.01,
            dropout_seeds=range(len(chosen)),
            measures_first=noise.is_due(phase, step),
        )
        events.append(noise.update(phase, step, result))
    for name, truth in (("noise", variance), ("signal", square)):
        values = [event[name] for event in events if event is not None]
        assert len(values) == 600
        assert abs(statistics.fmean(values) - truth) < 3 * statistics.stdev(values) / math.sqrt(600)
        assert statistics.stdev(values) / math.sqrt(600) < 0.08 * truth  # else it would be right by chance
    last = events[-1]
    assert last is not None and last["steps"] == 256
    assert abs(last["noise_scale"] - variance / square) < 3 * last["standard_error"] < 0.5 * last["noise_scale"]


def result(norm: float, first: float | None) -> StepResult:
    return StepResult(1.0, {"mlm": 1.0}, {"mlm": 0.1}, norm, (), first)


def test_a_step_by_hand() -> None:
    """4 of 16 sequences contribute a quarter of their mean gradient: .75 for a norm of 3, and 2 for the batch."""
    fields = GradientNoiseTracker(10).update(make_phase(), 7, result(2.0, 0.75))
    assert fields is not None
    assert fields["noise"] == pytest.approx((9 - 4) / (1 / 4 - 1 / 16))
    assert fields["signal"] == pytest.approx((16 * 4 - 4 * 9) / (16 - 4))
    assert (fields["step"], fields["phase"], fields["small_batch"], fields["large_batch"]) == (7, 1, 4, 16)


def test_an_estimate_rests_on_the_later_half_of_a_phase() -> None:
    """The first steps, whose gradient is large, count no more once there are as many others; a phase starts anew."""
    noise = GradientNoiseTracker(1_000)
    for step in range(1, 101):
        fields = noise.update(make_phase(), step, result(*((20.0, 5.1) if step <= 50 else (2.0, 0.75))))
    assert fields is not None and fields["steps"] == 50
    assert fields["noise_scale"] == pytest.approx((5 / (3 / 16)) / (28 / 12))
    fields = noise.update(make_phase(number=2), 101, result(20.0, 5.1))
    assert fields is not None and fields["steps"] == 1


@pytest.mark.parametrize("not_measured", [result(2.0, None), result(math.nan, 1.0), result(math.inf, math.inf)])
def test_a_step_that_was_not_measured_or_not_taken_says_nothing(not_measured: StepResult) -> None:
    noise = GradientNoiseTracker(10)
    assert noise.update(make_phase(), 1, not_measured) is None
    assert noise.state_dict()["count"] == 0


def test_only_some_steps_are_measured_and_no_single_micro_batch() -> None:
    noise = GradientNoiseTracker(10)
    due = [step for step in range(1, 101) if noise.is_due(make_phase(steps=100), step)]
    assert due == list(range(10, 101, 10))
    assert not any(noise.is_due(make_phase(micro=LARGE, steps=100), step) for step in range(1, 101))
    assert not any(GradientNoiseTracker(0).is_due(make_phase(steps=100), step) for step in range(1, 101))


def events(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [{**line, "time": 0} for line in lines if line["event"] == "noise"]


@pytest.mark.parametrize(
    "changed",
    [{}, {"precision": Precision.BFLOAT16_MASTER}, {"deterministic": True}],
    ids=["plain", "buffered", "tree"],
)
def test_measuring_changes_no_bit(tmp_path: Path, make_run: Any, changed: dict[str, Any]) -> None:
    for times in (0, 1_000):
        quiet = TrainerOptions(evaluation_samples=0, noise_measurements_per_phase=times)
        make_run(tmp_path / str(times), trainer_options=quiet, **changed).train()
    assert [event["step"] for event in events(tmp_path / "1000")] == list(range(1, 11)) and not events(tmp_path / "0")
    without, measured = (load_checkpoint(tmp_path / name, 10).tensors for name in ("0", "1000"))
    for kind, tensors in without.items():
        assert all(torch.equal(measured[kind][name], tensor) for name, tensor in tensors.items()), kind


def test_a_run_that_goes_on_estimates_as_if_it_had_never_stopped(tmp_path: Path, make_run: Any) -> None:
    make_run(tmp_path / "whole").train()
    trainer = make_run(tmp_path / "stopped")
    step = trainer._launcher.launch

    def stop_soon(*arguments: Any, **options: Any) -> Any:
        if trainer.state.step == 4:
            trainer.request_stop()
        return step(*arguments, **options)

    trainer._launcher.launch = stop_soon
    trainer.train()
    make_run(tmp_path / "stopped").train()
    assert events(tmp_path / "stopped") == events(tmp_path / "whole") != []


def test_a_checkpoint_from_before_there_was_noise_is_gone_on_from(tmp_path: Path, make_run: Any) -> None:
    trainer = make_run(tmp_path / "run")
    save = trainer.state.checkpoint
    trainer.state.checkpoint = lambda facts: save({name: fact for name, fact in facts.items() if name != "noise"})
    step = trainer._launcher.launch

    def stop_soon(*arguments: Any, **options: Any) -> Any:
        if trainer.state.step == 4:
            trainer.request_stop()
        return step(*arguments, **options)

    trainer._launcher.launch = stop_soon
    trainer.train()
    assert make_run(tmp_path / "run").train().finished
    assert [event["steps"] for event in events(tmp_path / "run")] == [1, 1, 2, 2, 3, 1, 1, 2, 2, 1]


def test_a_single_micro_batch_measures_nothing(tmp_path: Path, make_run: Any) -> None:
    make_run(tmp_path / "run", micro_batch_sizes=(8, 4)).train()
    assert [event["phase"] for event in events(tmp_path / "run")] == [2]
