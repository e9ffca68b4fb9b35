"""NaN/Inf steps change nothing; spikes are logged, and optionally rolled back."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lambert.errors import UserError
from lambert.training import loop as loop_module
from lambert.training.checkpoint.format import newest_checkpoint
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig
from lambert.training.metrics.spike_detector import SpikeDetector, moved_layers
from lambert.training.step import launcher
from lambert.training.step.pretraining_loss import pretraining_task

SAVING = TrainerOptions(evaluation_samples=0, checkpoint_steps=1, keep_last=20)


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def poison(monkeypatch: pytest.MonkeyPatch, micro_batches: range, *, value: float = torch.nan) -> None:
    """Multiply the loss of these micro-batches, counted through the run, by `value`."""
    met = 0

    def task(model: Any, batch: Any) -> Any:
        nonlocal met
        output = pretraining_task(model, batch)
        if met in micro_batches:
            output.loss_sums["mlm"].mul_(value)
        met += 1
        return output

    monkeypatch.setattr(launcher, "pretraining_task", task)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_a_step_without_a_number_changes_nothing(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch, optimizer: str, value: float
) -> None:
    """One micro-batch of step 4 is broken: weights, moments and their counts stay, data and schedule continue."""
    poison(monkeypatch, range(7, 8), value=value)
    run = make_run(tmp_path / "run", trainer_options=SAVING, optimizer=optimizer)
    assert run.train().finished
    three, four, five = (trainer_module_load(tmp_path / "run", step) for step in (3, 4, 5))
    for part in ("model", "optimizer"):
        for name, tensor in three.tensors[part].items():
            assert torch.equal(tensor, four.tensors[part][name]), name
    assert five.tensors["optimizer"]["pooler.dense.weight/step"] == 4
    (skipped,) = events(tmp_path / "run", "skipped")
    assert skipped["step"] == 4 and skipped["consecutive"] == 1
    assert skipped["samples"] == {"first": 24, "count": 8} and skipped["non_finite_samples"] == [[28, 4]]
    steps = events(tmp_path / "run", "step")
    assert len(steps) == 10 and steps[3]["loss"] is None and steps[3]["learning_rate"] > 0


def trainer_module_load(run: Path, step: int) -> Any:
    from lambert.training.checkpoint.format import load_checkpoint

    return load_checkpoint(run, step)


def test_two_in_a_row_are_skipped_and_ten_stop_the_run(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch, settings: TrainingConfig
) -> None:
    poison(monkeypatch, range(4, 8))
    make_run(tmp_path / "two", trainer_options=SAVING).train()
    assert [event["consecutive"] for event in events(tmp_path / "two", "skipped")] == [1, 2]
    monkeypatch.undo()
    poison(monkeypatch, range(1_000))
    with pytest.raises(UserError, match=r"10 steps in a row, up to step 10 .*samples of phase 2 .* 0 to 1, .*rate"):
        make_run(tmp_path / "ten", trainer_options=SAVING).train()
    assert len(events(tmp_path / "ten", "skipped")) == 10


def test_the_count_in_a_row_goes_on_after_a_resume(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, range(1_000))
    first = make_run(tmp_path / "run", trainer_options=SAVING)
    step = first._launcher.launch

    def stop_after_six(*arguments: Any, **options: Any) -> Any:
        if first.state.step == 5:
            first.request_stop()
        return step(*arguments, **options)

    first._launcher.launch = stop_after_six
    first.train()
    saved, _ = newest_checkpoint(tmp_path / "run")
    assert saved is not None and saved.facts["spike_detector"]["skipped_in_a_row"] == 6
    with pytest.raises(UserError, match="10 steps in a row, up to step 10"):
        make_run(tmp_path / "run", trainer_options=SAVING).train()


def clean_steps(count: int, seed: int = 0) -> list[tuple[float, float]]:
    """Losses and norms as real runs have them: a plateau, a fall within some steps, a slow slope; noise of both."""
    draws = random.Random(seed)
    steps = []
    for step in range(count):
        falling = max(0.0, min(1.0, (step - 300) / 60))
        loss = 7.1 - 1.8 * falling - 0.4 * step / count + draws.gauss(0, 0.05)
        norm = (0.9 + 0.8 * falling) * 2.718 ** draws.gauss(0, 0.09)
        steps.append((loss, norm))
    return steps


def test_a_clean_log_of_5000_steps_gives_no_alarm() -> None:
    for seed in range(3):
        detector = SpikeDetector()
        assert not [found for loss, norm in clean_steps(5_000, seed) if (found := detector.update(loss, norm))]


@pytest.mark.parametrize(("metric", "factor"), [("loss", 1.2), ("gradient_norm", 1_000.0), ("gradient_norm", 5.0)])
def test_a_spike_is_seen_at_its_step(metric: str, factor: float) -> None:
    detector = SpikeDetector()
    for loss, norm in clean_steps(1_000):
        detector.update(loss, norm)
    loss, norm = clean_steps(1_001)[-1]
    spikes = detector.update(loss * factor, norm) if metric == "loss" else detector.update(loss, norm * factor)
    assert [spike.metric for spike in spikes] == [metric]
    assert spikes[0].z_score > 6 and spikes[0].value > 1.15 * spikes[0].window_mean


def test_few_steps_and_a_new_phase_give_no_alarm() -> None:
    detector = SpikeDetector()
    for loss, norm in clean_steps(31):
        assert not detector.update(loss, norm)
    assert not detector.update(100.0, 1e6)
    detector.begin_phase()
    assert not detector.update(1e3, 1e9)


def test_what_was_usual_survives_a_checkpoint() -> None:
    one, other = SpikeDetector(), SpikeDetector()
    for loss, norm in clean_steps(200):
        one.update(loss, norm)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert one.update(9.0, 50.0) == other.update(9.0, 50.0) != []


def test_the_layers_that_moved_most_come_first() -> None:
    before = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 0.0, **{f"x{i}": 1.0 for i in range(9)}}
    now = {**before, "a": 3.0, "b": 0.1, "c": 2.1, "d": 5.0}
    assert list(moved_layers(before, now).items())[:3] == [("b", [1.0, 0.1]), ("a", [1.0, 3.0]), ("c", [2.0, 2.1])]
    assert len(moved_layers(before, now)) == 5


@pytest.fixture
def spiking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spike detection starts after three steps, and the loss of step 7 is multiplied by a thousand."""
    monkeypatch.setattr("lambert.training.metrics.spike_detector.LEAST_STEPS", 3)
    poison(monkeypatch, range(12, 14), value=1_000.0)


def test_a_spike_warns_with_the_layers_that_moved(tmp_path: Path, make_run: Any, spiking: None) -> None:
    trainer_options = TrainerOptions(evaluation_samples=0, checkpoint_steps=2)
    assert make_run(tmp_path / "run", trainer_options=trainer_options).train().finished
    (spike,) = events(tmp_path / "run", "spike")
    assert spike["step"] == 7 and {one["metric"] for one in spike["spikes"]} == {"loss", "gradient_norm"}
    assert len(spike["moved_layers"]) == 5 and spike["samples"] == {"first": 48, "count": 8}
    assert not events(tmp_path / "run", "rollback")


def test_a_rollback_leaves_the_step_out(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch, spiking: None
) -> None:
    """The run ends like one without step 7, also when another process resumes it."""
    trainer_options = TrainerOptions(evaluation_samples=0, checkpoint_steps=2, keep_last=9, on_spike="rollback")
    run = make_run(tmp_path / "run", trainer_options=trainer_options)
    assert run.train().finished
    (rollback,) = events(tmp_path / "run", "rollback")
    assert (rollback["step"], rollback["to_step"]) == (7, 6)
    assert [(event["step"], event["reason"]) for event in events(tmp_path / "run", "skipped")] == [(7, "rolled back")]
    assert json.loads((tmp_path / "run" / "skipped_steps.json").read_text()) == {"steps": [7]}
    monkeypatch.undo()
    plain = make_run(tmp_path / "plain", trainer_options=trainer_options)
    plain._skips = {7}
    monkeypatch.setattr(loop_module, "skipped_steps", lambda folder: {7})
    assert plain.train().finished
    ours, theirs = run.state.weights(), plain.state.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_rollback_before_the_first_checkpoint_returns_to_the_start(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch, spiking: None
) -> None:
    trainer_options = TrainerOptions(evaluation_samples=0, checkpoint_steps=100, on_spike="rollback")
    assert make_run(tmp_path / "run", trainer_options=trainer_options).train().finished
    assert [(event["step"], event["to_step"]) for event in events(tmp_path / "run", "rollback")] == [(7, 0)]


def test_too_many_rollbacks_end_the_run(tmp_path: Path, make_run: Any, spiking: None) -> None:
    trainer_options = TrainerOptions(evaluation_samples=0, checkpoint_steps=2, on_spike="rollback")
    (tmp_path / "run").mkdir()
    make = make_run(tmp_path / "run", trainer_options=trainer_options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lambert.training.metrics.spike_detector.MOST_ROLLBACKS", 0)
        with pytest.raises(UserError, match=r"rolled back over 0 steps, and step 7 is a spike again.*`on_spike` warn"):
            make.train()


def test_wrong_choices_are_refused() -> None:
    with pytest.raises(UserError, match=r"answer to a spike 'rolback'.*rollback"):
        TrainerOptions(on_spike="rolback")
    with pytest.raises(UserError, match="keep last 0"):
        TrainerOptions(keep_last=0)
