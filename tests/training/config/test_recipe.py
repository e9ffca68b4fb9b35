"""Every published number of the LAMB paper, and the rule at batches nobody published."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import transformers

from lambert.errors import UserError
from lambert.training.config import recipe as recipes
from lambert.training.config.lr_scheduler import LRSchedulerChoice
from lambert.training.config.phase import Phase, schedule_of
from lambert.training.config.phase_config import PhaseConfig
from lambert.training.config.phase_recipe import PhaseRecipe
from lambert.training.config.recipe import Recipe, recipe_by_rule
from lambert.training.config.scaling_rules import PAPER_SAMPLES, round_half_up
from lambert.utils.lr_schedule import LRSchedule
from schedules import cosine_with_warmup_and_cooldown


def make_phases(
    *,
    samples: int,
    batch_sizes: tuple[int, ...],
    sequence_lengths: tuple[int, ...] = (128, 512),
    shares: tuple[float, ...] = (),
    recipe: str = "sqrt",
    **choices: Any,
) -> tuple[PhaseConfig, ...]:
    """By rule."""
    by_rule = recipe_by_rule(batch_sizes, sequence_lengths, shares, name=recipe)
    return recipes.make_phases(by_rule, samples=samples, **choices)


# Batch: exponent x in 5/(2^x · 10^3), share of warm-up, total steps (arXiv 1904.00962, untuned table).
PAPER = {
    512: (3.0, 1 / 320, 1_000_000),
    1_024: (2.5, 1 / 160, 500_000),
    2_048: (2.0, 1 / 80, 250_000),
    4_096: (1.5, 1 / 40, 125_000),
    8_192: (1.0, 1 / 20, 62_500),
    16_384: (0.5, 1 / 10, 31_250),
    32_768: (0.0, 1 / 5, 15_625),
}


@pytest.mark.parametrize("batch", PAPER)
def test_the_papers_table(batch: int) -> None:
    exponent, share, steps = PAPER[batch]
    phases = make_phases(samples=PAPER_SAMPLES, batch_sizes=(batch,))
    assert sum(phase.step_count for phase in phases) == steps
    for phase in phases:
        assert phase.peak_learning_rate.value == pytest.approx(5 / (2**exponent * 1e3), rel=1e-6)
        assert phase.warmup_steps.value == round(share * phase.step_count)
        numbers = (phase.steps, phase.peak_learning_rate, phase.warmup_steps)
        assert {number.provenance for number in numbers} == {"published"}


def test_steps_of_both_phases_at_32k() -> None:
    first, second = make_phases(samples=PAPER_SAMPLES, batch_sizes=(32_768,))
    assert (first.step_count, second.step_count) == (14_063, 1_562)
    assert (first.sequence_length, second.sequence_length) == (128, 512)
    assert first.samples == 14_063 * 32_768
    assert first.tokens == first.samples * 128


def test_the_mixed_batch_by_rule_and_as_published() -> None:
    by_rule = make_phases(samples=PAPER_SAMPLES, batch_sizes=(65_536, 32_768))
    assert [phase.step_count for phase in by_rule] == [7_031, 1_562]
    pinned = make_phases(samples=PAPER_SAMPLES, batch_sizes=(65_536, 32_768), recipe="paper")
    assert [phase.step_count for phase in pinned] == [7_037, 1_562]
    assert sum(phase.step_count for phase in pinned) == 8_599
    assert "7,031" in pinned[0].steps.formula
    assert pinned[0].peak_learning_rate.value == pytest.approx(5e-3 * math.sqrt(2))
    # The mixed run's rates and warm-up were not published.
    for phase in pinned:
        assert {phase.peak_learning_rate.provenance, phase.warmup_steps.provenance} == {"extrapolated"}
        assert phase.warmup_steps.value == round(phase.step_count * phase.batch_size / 163_840)


@pytest.mark.parametrize("batch", [768, 6_000, 24_576])
def test_batches_nobody_published(batch: int) -> None:
    first, second = make_phases(samples=PAPER_SAMPLES, batch_sizes=(batch,))
    total = round(PAPER_SAMPLES / batch)
    assert first.step_count + second.step_count == total
    assert first.step_count == math.floor(0.9 * total + 0.5)
    for phase in (first, second):
        assert phase.peak_learning_rate.value == pytest.approx(5e-3 * math.sqrt(batch / 32_768))
        assert phase.warmup_steps.value == round(phase.step_count * batch / 163_840)
        assert phase.warmup_steps.provenance == phase.steps.provenance == "extrapolated"


@pytest.mark.parametrize(
    ("steps", "peak"),
    [(15_625, 0.005), (15_000, 0.005), (2_304, 0.005), (1_024, 0.0075), (576, 0.01), (256, 0.015), (100, 0.02)],
)
def test_short_runs_take_their_own_rate_and_the_largest_share(steps: int, peak: float) -> None:
    first, second = make_phases(samples=1_024 * steps, batch_sizes=(1_024,))
    for phase in (first, second):
        assert phase.peak_learning_rate.value == pytest.approx(peak)
        assert phase.peak_learning_rate.provenance == ("extrapolated" if steps == 15_625 else "fitted here")
        assert phase.warmup_steps.value == round(0.2 * phase.step_count)


@pytest.mark.parametrize("optimizer", ["lars", "lans"])
def test_other_layerwise_optimizers_take_lambs_rate_as_an_extrapolation(optimizer: str) -> None:
    lamb, _ = make_phases(samples=PAPER_SAMPLES, batch_sizes=(4_096,))
    other, _ = make_phases(samples=PAPER_SAMPLES, batch_sizes=(4_096,), optimizer=optimizer)
    assert other.peak_learning_rate.value == lamb.peak_learning_rate.value
    assert (lamb.peak_learning_rate.provenance, other.peak_learning_rate.provenance) == ("published", "extrapolated")
    short, _ = make_phases(samples=64_000, batch_sizes=(64,), optimizer=optimizer)
    assert short.peak_learning_rate.provenance == "extrapolated"


def test_adamws_rate_passes_through_berts_own() -> None:
    bert, _ = make_phases(samples=256_000_000, batch_sizes=(256,), optimizer="adamw")
    assert bert.peak_learning_rate.value == pytest.approx(1e-4)
    short, _ = make_phases(samples=1_000, batch_sizes=(100,), optimizer="adamw")
    assert short.peak_learning_rate.value == 0.002
    caps = [
        make_phases(samples=8 * batch, batch_sizes=(batch,), optimizer="adamw")[0].peak_learning_rate.value
        for batch in (8, 256, 576, 1_024, 4_096)
    ]
    assert caps == pytest.approx([0.002, 0.002, 0.003, 0.004, 0.004])
    assert {bert.peak_learning_rate.provenance, short.peak_learning_rate.provenance} == {"fitted here"}


@pytest.mark.parametrize(
    ("optimizer", "batch", "peak"),
    [
        ("lamb", 16, 5e-3),
        ("lamb", 64, 5.6e-3),
        ("lamb", 256, 1.12e-2),
        ("lamb", 4_096, 2e-2),
        ("muon", 64, 3.68e-3),
        ("muon", 1_024, 1.472e-2),
        ("muon", 8_192, 3.2e-2),
    ],
)
def test_however_short_a_run_is_its_batch_limits_the_rate(optimizer: str, batch: int, peak: float) -> None:
    first, _ = make_phases(samples=10 * batch, batch_sizes=(batch,), optimizer=optimizer)
    assert first.peak_learning_rate.value == pytest.approx(peak)


@pytest.mark.parametrize(("steps", "peak"), [(1_000_000, 2e-4), (6_000, 0.2 / math.sqrt(6_000)), (2_500, 4e-3)])
def test_muons_rate_goes_on_with_the_square_root_where_adamws_stops(steps: int, peak: float) -> None:
    first, _ = make_phases(samples=256 * steps, batch_sizes=(256,), optimizer="muon")
    assert first.peak_learning_rate.value == pytest.approx(peak)


def test_the_warm_up_has_no_cliffs() -> None:
    def share(samples: int, batch: int) -> float:
        first, _ = make_phases(samples=samples, batch_sizes=(batch,))
        return first.warmup_steps.value / first.step_count

    for batch in (512, 32_768, 65_536, 131_072):
        assert share(PAPER_SAMPLES - 1, batch) == pytest.approx(share(PAPER_SAMPLES, batch), rel=0.01)
    shares = [share(PAPER_SAMPLES, batch) for batch in range(16_384, 131_072, 8_192)]
    for smaller, larger in itertools.pairwise(shares):
        assert larger > smaller - 0.001  # whole steps round


@pytest.mark.parametrize("changed", [{"samples": 1_000_000}, {"batch_sizes": (768,)}, {"optimizer": "adamw"}])
def test_the_papers_recipe_takes_the_papers_runs_only(changed: dict[str, object]) -> None:
    request = {"samples": PAPER_SAMPLES, "batch_sizes": (512,), "recipe": "paper", **changed}
    with pytest.raises(UserError, match="the paper has no run"):
        make_phases(**request)  # type: ignore[arg-type]


def test_rate_times_root_of_steps_is_kept_on_shorter_runs() -> None:
    for samples, batch in ((51_200_000, 512), (5_120_000, 256), (20_000_000, 1_000)):
        first, _ = make_phases(samples=samples, batch_sizes=(batch,))
        assert first.peak_learning_rate.value * math.sqrt(samples / batch) == pytest.approx(0.625)
        assert first.peak_learning_rate.provenance == "extrapolated"


def test_a_multiplier_scales_every_peak() -> None:
    plain, doubled = (
        make_phases(samples=100_000, batch_sizes=(16, 64), learning_rate_multiplier=factor) for factor in (1.0, 2.0)
    )
    assert [phase.peak_learning_rate.value for phase in doubled] == [2 * p.peak_learning_rate.value for p in plain]
    assert {phase.peak_learning_rate.provenance for phase in doubled} == {"given"}
    assert "2 · (" in doubled[0].peak_learning_rate.formula


def test_overrides_are_marked_as_given() -> None:
    first, _ = make_phases(samples=10_000, batch_sizes=(10,), learning_rate=0.5, warmup_ratio=0.3)
    assert (first.peak_learning_rate.value, first.peak_learning_rate.provenance) == (0.5, "given")
    assert (first.warmup_steps.value, first.warmup_steps.provenance) == (270, "given")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"batch_sizes": (0,)}, "batch size 0"),
        ({"batch_sizes": (-8,)}, "batch size -8"),
        ({"batch_sizes": (1, 2, 3)}, "3 batch sizes"),
        ({"samples": 0}, "0 samples"),
        ({"batch_sizes": (900,)}, "from 9,000"),
        ({"optimizer": "lamd"}, "Did you mean 'lamb'"),
        ({"batch_sizes": (1, 2), "sequence_lengths": (8, 16, 32)}, "2 batch sizes for 3 sequence lengths"),
        ({"sequence_lengths": (8, 16, 32)}, "3 phases without phase fractions"),
        ({"shares": (0.5, 0.4)}, "sum to 0.9"),
        ({"shares": (1.5, -0.5)}, "share 1.5"),
        ({"shares": (1.0, 0.0)}, "a phase with share 0"),
        ({"shares": (0.9, 0.05, 0.05)}, "3 phase fractions for 2"),
        ({"learning_rate": -1.0}, "learning rate -1.0"),
        ({"learning_rate": math.nan}, "learning rate nan"),
        ({"learning_rate_multiplier": 0.0}, "0.0 times the learning rate"),
        ({"warmup_ratio": 1.5}, "warm-up ratio 1.5"),
        ({"sequence_lengths": (4, 512)}, "sequence length 4"),
    ],
)
def test_wrong_requests_are_refused_by_name(changed: dict[str, object], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        make_phases(**{"samples": 1_000, "batch_sizes": (10,), **changed})  # type: ignore[arg-type]


def test_a_refused_batch_names_a_number_of_samples_that_works() -> None:
    for batches in ((900,), (64, 7), (7, 64), (1000, 10)):
        with pytest.raises(UserError) as refused:
            make_phases(samples=1, batch_sizes=batches)
        needed = int(refused.value.remedy.split("from ")[1].split(" ")[0].replace(",", ""))
        assert all(phase.step_count >= 1 for phase in make_phases(samples=needed, batch_sizes=batches))


def test_half_up() -> None:
    assert [round_half_up(value) for value in (0.5, 1.5, 2.4, 14062.5)] == [1, 2, 2, 14063]


def test_three_phases_with_a_growing_batch() -> None:
    """By hand: 40 % of a million at batch 1,000, 50 % at 2,000, 10 % at 4,000."""
    phases = make_phases(
        samples=1_000_000, batch_sizes=(1_000, 2_000, 4_000), sequence_lengths=(16, 16, 32), shares=(0.4, 0.5, 0.1)
    )
    assert [phase.step_count for phase in phases] == [400, 250, 25]
    rates = [phase.peak_learning_rate.value for phase in phases]
    assert rates == pytest.approx([0.24 * math.sqrt(batch / 1_000_000) for batch in (1_000, 2_000, 4_000)])
    assert [phase.warmup_steps.value for phase in phases] == [80, 50, 5]


def test_phases_of_one_batch_share_the_rounded_total() -> None:
    phases = make_phases(samples=1_001, batch_sizes=(10,), sequence_lengths=(8, 8, 8), shares=(0.333, 0.333, 0.334))
    assert [phase.step_count for phase in phases] == [33, 34, 33]  # ends at 33.3, 66.6 and 100
    (only,) = make_phases(samples=1_001, batch_sizes=(10,), sequence_lengths=(8,))
    assert only.step_count == 100


def test_schedule_by_hand() -> None:
    rates = [LRSchedule(8.0, warmup_steps=4, total_steps=8).rate(t) for t in range(1, 9)]
    assert rates == [2.0, 4.0, 6.0, 8.0, 6.4, 4.8, 3.2, pytest.approx(1.6)]


def test_schedule_with_a_constant_part_and_a_min_lr_ratio_by_hand() -> None:
    schedule = LRSchedule(1.0, warmup_steps=2, total_steps=8, stable_steps=2, min_lr_ratio=0.5)
    # From the fourth step on .5 + .5 · 5/5, 4/5, 3/5, 2/5, 1/5.
    assert [schedule.rate(t) for t in range(1, 9)] == pytest.approx([0.5, 1, 1, 1, 0.9, 0.8, 0.7, 0.6])


@pytest.mark.parametrize(("steps", "warmup", "cooldown"), [(100, 10, 10), (99, 1, 1), (40, 7, 0), (12, 4, 8)])
def test_a_cosine_with_cool_down_is_theirs_of_one_step_more_without_the_first(
    steps: int, warmup: int, cooldown: int
) -> None:
    """Their first step has rate 0. The last of both has a rate above 0."""
    schedule = LRSchedule(2.0, warmup, steps, decay="cosine", min_lr_ratio=0.1, cooldown_steps=cooldown)
    theirs = cosine_with_warmup_and_cooldown(steps + 1, warmup, cooldown, 0.1)
    assert theirs[0] == 0
    assert [schedule.rate(step) / 2 for step in range(1, steps + 1)] == pytest.approx(theirs[1:], rel=1e-12)


@pytest.mark.parametrize("fields", [{"decay": "line"}, {"cooldown_steps": -1}])
def test_a_schedule_that_is_none_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"schedule|decay"):
        LRSchedule(1.0, 1, 5, **fields)


SCHEDULE = {
    "peak_learning_rate": 1e-3, "warmup_ratio": 0.1, "warmup_steps": 1, "stable_ratio": 0.1, "decay": "cosine",
    "decay_power": 0.5, "decays_from_start": True, "min_lr_ratio": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("name", [*SCHEDULE, "cooldown_ratio"])
def test_a_phase_that_continues_another_has_no_schedule_of_its_own(name: str) -> None:
    own = {name: SCHEDULE[name]} if name in SCHEDULE else {"cooldown_ratio": 0.1, "min_lr_ratio": 0.1}
    second = PhaseRecipe(16, 8, steps=5, continues=True, **own)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"phase 2 continues the previous phase, but sets .*{name}"):
        Recipe("mine", (PhaseRecipe(16, 8, steps=5), second))


def test_a_decay_from_the_first_step_drops_when_the_warm_up_ends() -> None:
    """NVIDIA's first phase: power .5, 7,038 steps, 2,000 of warm-up: √(1 − .2843) = .846 of the peak at once."""
    schedule = LRSchedule(6e-3, 2_000, 7_038, decay_power=0.5, decays_from_start=True)
    assert schedule.rate(2_000) == 6e-3
    assert (
        schedule.rate(2_001) / 6e-3 == pytest.approx(math.sqrt(1 - 0.2843), abs=1e-3) == pytest.approx(0.846, abs=1e-3)
    )
    assert 0 < schedule.rate(7_038) < 1e-4


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup", "warmup_stable_decay"])
def test_schedules_are_those_of_transformers_by_that_name(kind: str) -> None:
    """Of one step more without the first, whose rate is 0 there."""
    steps, warmup, decay = 40, 6, 8
    scheduler = LRSchedulerChoice(kind, decay_ratio=0.2)
    (phase,) = make_phases(
        samples=10 * steps, batch_sizes=(10,), sequence_lengths=(8,), warmup_ratio=warmup / steps, scheduler=scheduler
    )
    more = {"num_stable_steps": steps - warmup - decay, "num_decay_steps": decay + 1, "decay_type": "1-sqrt"}
    theirs = transformers.get_scheduler(
        kind,
        torch.optim.SGD([torch.zeros(1)], lr=phase.peak_learning_rate.value),
        num_warmup_steps=warmup,
        num_training_steps=None if kind == "warmup_stable_decay" else steps + 1,
        scheduler_specific_kwargs=more if kind == "warmup_stable_decay" else {},
    )
    own = phases_of_one(phase)
    for step in range(1, steps + 1):
        fraction = theirs.lr_lambdas[0](step)
        assert own.learning_rate(step) == pytest.approx(fraction * phase.peak_learning_rate.value, rel=1e-12)


def phases_of_one(config: PhaseConfig) -> Phase:
    return Phase(1, config, 1, 1, schedule_of([config]), 1)


@pytest.mark.parametrize(("warmup", "total"), [(0, 5), (1, 5), (5, 5), (1, 1), (0, 1)])
def test_schedule_peaks_once_and_never_rests(warmup: int, total: int) -> None:
    rates = [LRSchedule(1.0, warmup, total).rate(t) for t in range(1, total + 1)]
    assert max(rates) == 1.0 and rates.count(1.0) == 1 and min(rates) > 0
    assert rates.index(1.0) == max(warmup, 1) - 1


def test_a_trained_model_is_continued_at_the_rates_of_the_literature() -> None:
    """BERT and task-adaptive pre-training: 1e-4 at 256. At 32 ClinicalBERT took 5e-5 and BERT's README 2e-5; RoBERTa's
    own peak is 6e-4 at 8,192, domain-adaptive pre-training took 5e-4 at 2,048."""
    by_batch = {}
    for batch in (32, 256, 2_048, 8_192, 32_768):
        (phase,) = make_phases(
            samples=1_000 * batch, batch_sizes=(batch,), sequence_lengths=(128,), optimizer="adamw", is_continued=True
        )
        by_batch[batch] = phase.peak_learning_rate
        assert phase.warmup_steps.value == 60 and phase.warmup_steps.provenance == "unconfirmed"
    assert by_batch[256].value == 1e-4 and by_batch[256].provenance == "published"
    assert 2e-5 < by_batch[32].value < 5e-5 and by_batch[32].provenance == "extrapolated"
    assert 1e-4 < by_batch[2_048].value < 5e-4
    assert by_batch[8_192].value == pytest.approx(5.66e-4, rel=0.01) and by_batch[32_768].value == 6e-4


@pytest.mark.parametrize("optimizer", ["lamb", "muon", "lans"])
def test_other_optimizers_continue_as_much_lower_as_adamw_does(optimizer: str) -> None:
    def peak(name: str, is_continued: bool) -> float:
        phases = make_phases(samples=100_000, batch_sizes=(64,), optimizer=name, is_continued=is_continued)
        return phases[0].peak_learning_rate.value

    lower = peak("adamw", True) / peak("adamw", False)
    assert lower < 0.1 and peak(optimizer, True) == pytest.approx(lower * peak(optimizer, False))
