"""The forecast's arithmetic by hand, and that a forecast changes no bit of what it is of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lambert.corpus.store import Corpus
from lambert.planning import memory, probe
from lambert.planning.memory import peak_memory_bytes, reset_peak_memory
from lambert.planning.probe import PhaseCost, forecast_run
from lambert.planning.probe_cache import remember, remembered
from lambert.training.config.arguments import TrainingArguments
from lambert.training.config.resolve import resolve_config
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig

CPU = torch.device("cpu")


def request(micro_batch_size: int, samples: int = 6_400) -> TrainingArguments:
    return TrainingArguments(
        model="1x16", batch_size=(64,), samples=samples, sequence_lengths=(16, 32), micro_batch_size=micro_batch_size
    )


def settings(micro_batch_size: int) -> TrainingConfig:
    """90 + 10 steps of 64 sequences."""
    return resolve_config(request(micro_batch_size), None)


def test_a_phase_is_steps_evaluations_and_opening() -> None:
    cost = PhaseCost(0.1, 0.05, micro_batches=8, steps=100, opening_seconds=3.0, evaluation_seconds=2.0)
    assert cost.step_seconds == pytest.approx(0.85)
    assert cost.seconds == pytest.approx(90.0)


@pytest.mark.parametrize("length", [8, 32, 128, 512])
@pytest.mark.parametrize("sequences", [1, 5])
def test_random_rows_have_padding_and_a_mask_as_real_ones(sequences: int, length: int) -> None:
    """Without a mask another attention kernel would be timed."""
    batch = probe.random_batch(sequences, length, 1_000)
    mask = batch.attention_mask
    assert mask is not None and mask.shape == (sequences, length) and mask.dtype == torch.bool
    assert batch.real_tokens == int(mask.sum()) and 0.8 < mask.float().mean() < 1
    assert mask.flatten()[batch.masked_positions].all() and not batch.token_ids[~mask].any()


def test_random_rows_have_the_masked_fraction_of_the_run() -> None:
    counts = [len(probe.random_batch(3, 128, 1_000, *fraction).masked_positions) for fraction in ((), (0.15,), (0.3,))]
    assert counts == [3 * 19, 3 * 19, 3 * 38]


@pytest.mark.parametrize(("micro_batch_size", "micro_batches"), [(4, (16, 32)), (16, (4, 8)), (64, (1, 2))])
def test_parts_of_a_step_follow_from_steps_of_two_lengths(
    micro_batch_size: int, micro_batches: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A micro-batch that takes .2 s and .1 s for the rest, whatever the noise of a few steps."""
    taken: list[int] = []

    def timed_step(own: object, number: int, count: int) -> float:
        taken.append(count)
        noise = {0: 5.0, 2: 7.0}.get(number, 0.0)  # the first is told apart, and the median passes over the other
        return 0.1 + 0.2 * count + noise

    monkeypatch.setattr(probe._PhaseProbe, "timed_step", timed_step)
    forecast = forecast_run(settings(micro_batch_size), None, budget_seconds=0.0)
    for phase, count, steps in zip(forecast.phases, micro_batches, (90, 10), strict=True):
        assert phase.micro_batches == count
        once = 5.0 if count <= 4 else 10.0  # steps of one length, or of two
        assert phase.seconds == pytest.approx(steps * (0.1 + 0.2 * count) + once)
    assert max(taken) <= 4


def test_a_probe_takes_no_more_than_its_fraction_of_the_run(small_corpus: Corpus) -> None:
    """A fiftieth of so short a run is over at once, however long the budget: the least number of steps is taken."""
    asked = TrainingArguments(model="1x16", batch_size=(8,), samples=800, sequence_lengths=(16, 32))
    chosen = resolve_config(asked, small_corpus)
    forecast = forecast_run(chosen, small_corpus, budget_seconds=3_600.0)
    assert all(phase.step_seconds > 0 and phase.evaluation_seconds > 0 for phase in forecast.phases)
    assert forecast.memory_bytes == memory.max_memory(chosen)
    silent = forecast_run(
        chosen, small_corpus, budget_seconds=0.0, trainer_options=TrainerOptions(evaluation_samples=0)
    )
    assert all(phase.evaluation_seconds == 0 for phase in silent.phases)


def test_what_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor for a longer run of the same steps; other steps are, and all of them for `renew`."""
    monkeypatch.setenv("LAMBERT_PROBE_CACHE", str(tmp_path / "cache"))
    taken: list[int] = []

    def timed_step(own: object, number: int, count: int) -> float:
        taken.append(count)
        return 0.1 + 0.2 * count

    monkeypatch.setattr(probe._PhaseProbe, "timed_step", timed_step)
    first = forecast_run(settings(16), None, budget_seconds=0.0)
    count = len(taken)
    assert count and forecast_run(settings(16), None, budget_seconds=0.0) == first and len(taken) == count
    longer = replace(settings(16), phases=resolve_config(request(16, samples=12_800), None).phases)
    assert forecast_run(longer, None, budget_seconds=0.0).phases[0].steps == 180 and len(taken) == count
    forecast_run(settings(4), None, budget_seconds=0.0)
    assert len(taken) > count
    count = len(taken)
    forecast_run(settings(16), None, budget_seconds=0.0, renew=True)
    assert len(taken) > count
    count = len(taken)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    forecast_run(settings(16), None, budget_seconds=0.0)
    assert len(taken) > count


def test_phases_that_differ_in_the_number_of_micro_batches_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a growing batch; where steps are timed whole, each is."""
    monkeypatch.setenv("LAMBERT_PROBE_CACHE", str(tmp_path / "cache"))
    taken: list[int] = []
    monkeypatch.setattr(probe._PhaseProbe, "timed_step", lambda own, number, count: taken.append(count) or 0.1 * count)
    asked = TrainingArguments(
        model="1x16", batch_size=(64, 128, 256), samples=6_400, sequence_lengths=(16, 16, 16), micro_batch_size=8,
        phase_fractions=(0.3, 0.3, 0.4),
    )  # fmt: skip
    for renew in (False, True):
        taken.clear()
        forecast = forecast_run(resolve_config(asked, None), None, budget_seconds=0.0, renew=renew)
        assert [phase.micro_batches for phase in forecast.phases] == [8, 16, 32] and sorted(set(taken)) == [1, 4]
        assert len(taken) == 8
    forecast_run(resolve_config(replace(asked, micro_batch_size=128), None), None, budget_seconds=0.0)
    assert len(taken) == 8 + 3 * 4


def test_slow_steps_are_taken_once_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one compiles kernels on a new machine, and a new user was proposed a tenth of the samples that fit."""
    taken: list[int] = []
    clock = iter(range(0, 10**6, 100))
    monkeypatch.setattr(probe.time, "monotonic", lambda: float(next(clock)))

    def timed_step(own: object, number: int, count: int) -> float:
        taken.append(count)
        return 5.0 * count if number else 50.0

    monkeypatch.setattr(probe._PhaseProbe, "timed_step", timed_step)
    forecast = forecast_run(settings(16), None, budget_seconds=20.0, renew=True)
    assert taken == [4, 4, 1, 4, 1, 4]
    assert [phase.step_seconds for phase in forecast.phases] == [20.0, 40.0]


def test_a_measurement_disturbed_by_other_work_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster one is; whoever measures anew is told what was measured."""
    monkeypatch.setenv("LAMBERT_PROBE_CACHE", str(tmp_path))
    told = []
    for factor in (1.0, 3.0, 0.5):
        monkeypatch.setattr(
            probe._PhaseProbe, "timed_step", lambda own, number, count, factor=factor: factor * (0.1 + 0.2 * count)
        )
        measured = forecast_run(settings(16), None, budget_seconds=0.0, renew=True)
        kept = forecast_run(settings(16), None, budget_seconds=0.0)
        told.append((measured.phases[0].step_seconds, kept.phases[0].step_seconds))
    assert told == [pytest.approx(pair) for pair in ((0.9, 0.9), (2.7, 0.9), (0.45, 0.45))]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"KEY": [1, "x", 3, 4]}', '{"KEY": [1, 2]}', '{"KEY": [1, NaN, 3, 4]}']
)
def test_a_damaged_file_of_measurements_is_an_empty_one(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMBERT_PROBE_CACHE", str(tmp_path))
    remember("KEY", [1.0, 2.0, 3.0, 4.0])
    assert remembered("KEY", 4) == (1.0, 2.0, 3.0, 4.0)
    (tmp_path / "probes.json").write_text(content)
    assert remembered("KEY", 4) is None
    remember("KEY", [5.0])
    assert remembered("KEY", 1) == (5.0,)


def test_measurements_need_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`off` keeps none; nor does a folder that cannot be made."""
    for chosen in ("off", str(tmp_path / "file" / "folder")):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("LAMBERT_PROBE_CACHE", chosen)
        remember("KEY", [1.0])
        assert remembered("KEY", 1) is None


def test_the_peak_is_that_since_the_last_reset() -> None:
    """Where the system tells (Linux); elsewhere it is 0, which means unknown."""
    tells = Path("/proc/self/clear_refs").exists()
    reset_peak_memory(CPU)
    before = peak_memory_bytes(CPU)
    block = torch.ones(2**27, dtype=torch.uint8)
    assert (peak_memory_bytes(CPU) - before > 0.9 * 2**27) == tells
    del block
    reset_peak_memory(CPU)
    assert peak_memory_bytes(CPU) - before < 0.5 * 2**27
    assert (before > 0) == tells


def test_where_the_system_does_not_tell_the_peak_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "no folder" / "clear_refs")
    reset_peak_memory(CPU)
    assert peak_memory_bytes(CPU) == 0
