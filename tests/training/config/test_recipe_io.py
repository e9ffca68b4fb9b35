"""Every number of every named recipe against its source, and custom recipe files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from lambert.corpus.store import Corpus
from lambert.errors import UserError
from lambert.planning.plan import describe_plan
from lambert.planning.plan_text import plan_lines
from lambert.training.config.arguments import TrainingArguments
from lambert.training.config.phase import mask_schedule, phases_of
from lambert.training.config.phase_config import PhaseConfig
from lambert.training.config.recipe import Recipe, make_phases
from lambert.training.config.recipe_io import NAMED, load_recipe, recipe_as_toml
from lambert.training.config.resolve import resolve_config, with_recipe
from lambert.training.config.scaling_rules import beyond_the_published
from lambert.training.config.training_config import TrainingConfig, write_recipe
from schedules import cosine_with_warmup_and_cooldown

# ltgoslo/gpt-bert 9fc15074: lengths 128, 256 and 512 from .7 and .9 of the steps on, 32,768 · 128 tokens in a batch at
# the end and a quarter of that at first, on a line; .016 of warm-up and cool-down, rounded down.
TENTHS = [(128, 1)] * 7 + [(256, 2)] * 2 + [(512, 4)]


def gpt_bert(steps: int, peak: float) -> list[tuple[object, ...]]:
    phases: list[tuple[object, ...]] = []
    for tenth, (length, divisor) in enumerate(TENTHS):
        middle = (tenth + 0.5) / 10
        batch = 64 * round((32_768 / 4 * (1 - middle) + 32_768 * middle) / divisor / 64)
        own = steps * (tenth + 1) // 10 - steps * tenth // 10
        short = int(0.016 * steps) if tenth == 0 else 0
        phases.append((length, batch, own, peak, short, 0, 1.0, False, 0.1, tenth > 0, "cosine", short))
    return phases


def growing(batches: Iterable[int], ramp: float, last: int, tokens: float) -> list[tuple[object, ...]]:
    """Rows of a constant rate of 8e-4 at length 1,024, whose batch grows over `ramp` of `tokens` in equal parts."""
    sizes = list(batches)
    steps = [round(ramp / len(sizes) / size / 1_024) for size in sizes] + [round((tokens - ramp) / last / 1_024)]
    warmup = round(3e9 / sizes[0] / 1_024)
    shape = [(8e-4, warmup, sum(steps) - warmup)] + [(8e-4, 0, 0)] * len(sizes)
    return [
        (1_024, size, count, *own, 1.0, False, 0.0, at > 0)
        for at, (size, count, own) in enumerate(zip([*sizes, last], steps, shape, strict=True))
    ]


# Written from the sources, not from the files: (length, batch, steps, peak, warm-up steps, steps at the peak,
# power of the decay, from the first step on, final share, along the schedule of the phase before), then, where they are
# not a power and 0, the kind of decay and the steps of the cool-down.
PHASES = {
    # NVIDIA DeepLearningExamples 729963dd: 6e-3 and 4e-3, .2843 and .128 of 7,038 and 1,563 steps, degree .5.
    "nvidia": [
        (128, 65_536, 7_038, 6e-3, math.floor(0.2843 * 7_038), 0, 0.5, True, 0.0, False),
        (512, 32_768, 1_563, 4e-3, math.floor(0.128 * 1_563), 0, 0.5, True, 0.0, False),
    ],
    # arXiv 2006.13484 as reported: 96K and 33K on 1,536 GPUs, 3,519 + 782 = 4,301 steps, .00675 and .005.
    "lans-54-minutes": [
        (128, 96 * 1024, 3_519, 0.00675, round(0.4265 * 3_519), round(0.2735 * 3_519), 1.0, False, 0.0, False),
        (512, 33 * 1024, 782, 0.005, round(0.192 * 782), round(0.108 * 782), 1.0, False, 0.0, False),
    ],
    # arXiv 1810.04805: a million steps of 256, nine tenths of them at 128; 1e-4, 10,000 steps of warm-up.
    "bert-2018": [
        (128, 256, 900_000, 1e-4, 10_000, 0, 1.0, True, 0.0, False),
        (512, 256, 100_000, 1e-4, 0, 0, 1.0, True, 0.0, True),
    ],
    # fairseq base.yaml: 16 sequences · 16 updates · 8 GPUs, tokens_per_sample 512.
    "roberta": [(512, 16 * 16 * 8, 125_000, 5e-4, 10_000, 0, 1.0, False, 0.0, False)],
    # mosaicml/examples: 286,720,000 samples of 4,096; warm-up .06 of them, down to .02.
    "mosaicbert": [(128, 4_096, 286_720_000 // 4_096, 5e-4, 4_200, 0, 1.0, False, 0.02, False)],
    # AnswerDotAI/ModernBERT 94c82d15, base: 1,719 billion tokens, warm-up 3, batch from 768 to 4,608 over 50; then 250
    # at 8,192 and 576, 3e-4, and 50 on 1 - sqrt.
    "modernbert": [
        *growing(range(768, 4_608, 768), 50e9, 4_608, 1_719e9),
        (8_192, 576, round(300e9 / 576 / 8_192), 3e-4, 0, round(0.83333 * 63_578), 1.0, False, 0.001, False, "1-sqrt"),
    ],
    # JHU-CLSP/ettin-encoder-vs-decoder, base: 1,700 billion tokens, the batch from 4 · 72 to 4,608 over 50; then 250 on
    # 1 - sqrt to half the peak, and 50 from there to .04.
    "ettin": [
        *growing((round(288 + fifth * (4_608 - 288)) for fifth in (0.1, 0.3, 0.5, 0.7, 0.9)), 50e9, 4_608, 1_700e9),
        (7_999, 4_608, round(250e9 / 4_608 / 7_999), 8e-4, 0, 0, 1.0, False, 0.5, False, "1-sqrt"),
        (7_999, 4_608, round(50e9 / 4_608 / 7_999), 4e-4, 0, 0, 1.0, False, 0.04, False, "1-sqrt"),
    ],
    # Rikka-Botan/NexteraBERT 84f589d5: "~175k steps" of 128 · 8 rows; 10 billion tokens of 8,192, 8 · 16 blocks a step.
    "nexterabert": [
        (1_024, 128 * 8, 175_000, 8e-4, 17_500, 0, 1.0, False, 0.1, False, "cosine"),
        (8_192, 8 * 16, round(10e9 / 128 / 8_192), 8e-5, 400, 0, 1.0, False, 0.1, False, "cosine"),
    ],
    # arXiv 2502.19587 as reported: a million steps of two million tokens, 50,000 more at 4,096; the cosine ends at .9.
    "neobert": [
        (1_024, 2**21 // 1_024, 900_000, 6e-4, 2_000, 0, 1.0, False, 0.1, False, "cosine"),
        (1_024, 2**21 // 1_024, 100_000, 6e-5, 0, 100_000, 1.0, False, 0.0, False),
        (4_096, 2**21 // 4_096, 50_000, 6e-5, 0, 50_000, 1.0, False, 0.0, False),
    ],
    # As quoted in NexteraBERT's optim.py, here with a run of 24,000 steps.
    "optibert": [(1_024, 2_048, 24_000, 6e-4, 2_400, 0, 1.0, False, 0.1, False, "cosine")],
    # README of academic-budget-bert, here with a run of 24,000 steps.
    "academic-budget": [(128, 4_096, 24_000, 1e-3, 1_440, 0, 1.0, False, 0.0, False)],
    "gpt-bert-100m": gpt_bert(31_250 // 2, 1e-2),
    "gpt-bert-10m": gpt_bert(31_250 // 4, 1.41e-2),
    # hplt-project/HPLT-WP4 4749f45b: 256 sequences on each of 16 · 8 GPUs, a half from .7 and a quarter from .9 on.
    "hplt-bert": [
        (128, 256 * 128, 21_875, 1e-2, 500, 0, 1.0, False, 0.1, False, "cosine", 500),
        (256, 128 * 128, 6_250, 1e-2, 0, 0, 1.0, False, 0.1, True, "cosine", 0),
        (512, 64 * 128, 3_125, 1e-2, 0, 0, 1.0, False, 0.1, True, "cosine", 0),
    ],
}
# Model, optimizer, β, ε, λ, clipping, pairs, masked fraction. Mosaic's λ of 1e-5 is not multiplied by the rate:
# over the peak of 5e-4 it is .02.
CHOICES = {
    "nvidia": ("large", "lamb", (0.9, 0.999), 1e-6, 0.01, 1.0, "nsp", 0.15),
    "lans-54-minutes": ("large", "lans", (0.9, 0.999), 1e-6, 0.01, 0.0, "nsp", 0.15),
    "bert-2018": ("base", "adamw", (0.9, 0.999), 1e-6, 0.01, 1.0, "nsp", 0.15),
    "roberta": ("base", "adamw", (0.9, 0.98), 1e-6, 0.01, 0.0, "none", 0.15),
    "mosaicbert": ("base", "adamw", (0.9, 0.98), 1e-6, 0.02, 0.0, "none", 0.3),
    # 1e-5 over the peak of 8e-4.
    "modernbert": ("base", "stableadamw", (0.9, 0.98), 1e-6, 0.0125, 0.0, "none", 0.3),
    "ettin": ("base", "stableadamw", (0.9, 0.98), 1e-6, 0.0125, 0.0, "none", 0.3),
    "nexterabert": ("base", "adamw", (0.9, 0.95), 1e-8, 0.1, 1.0, "none", 0.4),
    "neobert": ("28x768", "adamw", (0.9, 0.95), 1e-8, 0.1, 1.0, "none", 0.2),
    "optibert": ("base", "adamw", (0.9, 0.95), 1e-8, 0.1, 1.0, "none", 0.2),
    "academic-budget": ("large", "adamw", (0.9, 0.98), 1e-6, 0.01, 0.0, "none", 0.15),
    "gpt-bert-100m": ("base", "lamb", (0.9, 0.98), 1e-8, 0.1, 2.0, "none", 0.3),
    "gpt-bert-10m": ("12x384", "lamb", (0.9, 0.98), 1e-8, 0.1, 2.0, "none", 0.3),
    "hplt-bert": ("base", "lamb", (0.9, 0.98), 1e-6, 0.1, 2.0, "none", 0.3),
}
WITHOUT_STEPS = {"academic-budget": 4_096, "optibert": 2_048}
"""Recipes whose number of samples is the user's, with their batch size."""
FALLING = {"gpt-bert-100m": 0.1, "gpt-bert-10m": 0.1, "hplt-bert": 0.0}
"""Recipes whose masked fraction falls from .3 to .15, with their dropout."""


def settings_of(name: str, **asked: object) -> TrainingConfig:
    if name in WITHOUT_STEPS:
        asked = {"samples": 24_000 * WITHOUT_STEPS[name], **asked}
    return resolve_config(TrainingArguments(recipe=name, **asked), None)  # type: ignore[arg-type]


def numbers_of(phase: PhaseConfig) -> tuple[object, ...]:
    return (
        phase.sequence_length, phase.batch_size, phase.steps.value, phase.peak_learning_rate.value,
        phase.warmup_steps.value, phase.stable_steps, phase.decay_power, phase.decays_from_start, phase.min_lr_ratio,
        phase.continues, phase.decay, phase.cooldown_steps,
    )  # fmt: skip


def test_every_named_recipe_is_held_to_its_source() -> None:
    assert set(PHASES) == set(CHOICES) == set(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_numbers_of_a_named_recipe_are_those_of_its_source(name: str) -> None:
    settings = settings_of(name)
    assert [numbers_of(phase) for phase in settings.phases] == [
        (*row, *("power", 0)[len(row) - 10 :]) for row in PHASES[name]
    ]
    assert (
        settings.model_name, settings.optimizer, settings.betas, settings.epsilon, settings.weight_decay,
        settings.max_grad_norm, settings.examples.pairing, settings.examples.mlm_probability,
    ) == CHOICES[name]  # fmt: skip
    wanted = {"unconfirmed"} if name in ("lans-54-minutes", "neobert") else {"published"}
    if name not in WITHOUT_STEPS:
        assert {
            number.provenance for phase in settings.phases for number in (phase.steps, phase.peak_learning_rate)
        } == wanted
    assert load_recipe(name).source


def test_contexts_are_extended_with_the_rotary_base_of_the_source() -> None:
    for name, thetas in (("modernbert", [1e4] * 6 + [1.6e5]), ("ettin", [1e4] * 6 + [1.6e5] * 2)):
        settings = settings_of(name)
        assert [phase.global_rope_theta for phase in settings.phases] == thetas
        first_long = sum(phase.step_count for phase in settings.phases if phase.sequence_length == 1_024) + 1
        for step, theta in ((0, 1e4), (first_long - 1, 1e4), (first_long, 1.6e5), (settings.total_steps, 1.6e5)):
            assert settings.model_at(step) == replace(settings.model, global_rotary_base=theta)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", FALLING)
def test_the_masked_fraction_of_a_recipe_falls_as_in_its_source(name: str) -> None:
    """Theirs: mask_p_start + (mask_p_end - mask_p_start) * global_step / max_steps, with the first step 0."""
    settings = settings_of(name)
    total, dropout = settings.total_steps, FALLING[name]
    assert settings.examples.masking == "span" and settings.model.dropout == dropout
    for phase in phases_of(settings):
        schedule = mask_schedule(settings, phase)
        assert schedule is not None and schedule.largest == schedule.fractions(0, 1)[0]
        for step in (phase.first_step, (phase.first_step + phase.last_step) // 2, phase.last_step):
            first, _ = phase.samples_of(step, 0)
            theirs = 0.3 + (0.15 - 0.3) * (step - 1) / total
            ours = schedule.fractions(first, phase.config.batch_size)
            assert ours == pytest.approx(theirs, rel=1e-12) and len({*ours}) == 1


@pytest.mark.parametrize("name", FALLING)
def test_the_rate_of_a_recipe_is_theirs_in_every_phase(name: str) -> None:
    settings = settings_of(name)
    first = settings.phases[0]
    peak, total = first.peak_learning_rate.value, settings.total_steps
    wanted = cosine_with_warmup_and_cooldown(total + 1, int(first.warmup_steps.value), first.cooldown_steps, 0.1)
    for phase in phases_of(settings):
        for step in {*range(phase.first_step, phase.last_step + 1, 97), phase.last_step, total - first.cooldown_steps}:
            if phase.first_step <= step <= phase.last_step:
                assert phase.learning_rate(step) == pytest.approx(peak * wanted[step], rel=1e-9)


def test_berts_rate_goes_on_over_both_lengths() -> None:
    first, second = phases_of(settings_of("bert-2018"))
    assert first.learning_rate(900_000) == pytest.approx(1e-4 * 0.1, rel=1e-4)
    assert second.learning_rate(900_001) == pytest.approx(1e-4 * 0.1, rel=1e-9)
    assert second.learning_rate(1_000_000) == pytest.approx(1e-10)


def test_a_recipe_stretched_over_other_samples_keeps_shares_rates_and_warm_up() -> None:
    """A hundredth of NVIDIA's samples: a hundredth of its steps, 2,000/7,038 of them warm up."""
    whole = 7_038 * 65_536 + 1_563 * 32_768
    first, second = settings_of("nvidia", samples=whole // 100).phases
    assert (first.step_count, second.step_count) == (70, 16)
    assert (first.warmup_steps.value, second.warmup_steps.value) == (20, 2)
    assert first.peak_learning_rate.value == 6e-3
    numbers = (first.steps, first.peak_learning_rate, second.warmup_steps)
    assert {number.provenance for number in numbers} == {"extrapolated"}


@pytest.mark.parametrize("name", NAMED)
def test_a_recipe_written_to_a_file_is_the_same_recipe(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    (tmp_path / "mine.toml").write_text(recipe_as_toml(recipe))
    again = load_recipe(str(tmp_path / "mine.toml"))
    assert again.provenance == "given"
    assert replace(again, name=recipe.name, provenance=recipe.provenance) == recipe


@pytest.mark.parametrize("name", NAMED)
def test_the_recipe_that_a_run_wrote_makes_the_same_run(name: str, tmp_path: Path) -> None:
    settings = settings_of(name)
    write_recipe(tmp_path, settings)
    again = resolve_config(TrainingArguments(recipe=str(tmp_path)), None)
    assert [numbers_of(phase) for phase in again.phases] == [numbers_of(phase) for phase in settings.phases]
    assert replace(again, phases=(), micro_batch_sizes=()) == replace(settings, phases=(), micro_batch_sizes=())


def test_a_persons_own_recipe_leaves_the_rest_to_the_rule(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "optimizer = 'adamw'\n"
        "[[phases]]\nsequence_length = 64\nbatch_size = 32\nshare = 0.5\nwarmup_ratio = 0.1\n"
        "[[phases]]\nsequence_length = 64\nbatch_size = 64\nshare = 0.4\ncontinues = true\n"
        "[[phases]]\nsequence_length = 256\nbatch_size = 16\nshare = 0.1\npeak_learning_rate = 1e-4\n"
    )
    settings = resolve_config(TrainingArguments(recipe=str(file), samples=64_000, model="tiny"), None)
    assert [phase.step_count for phase in settings.phases] == [1_000, 400, 400]
    assert settings.optimizer == "adamw"
    first, second, third = phases_of(settings)
    assert first.config.warmup_steps.value == 140  # a tenth of the 1,400 steps of its schedule
    assert first.config.peak_learning_rate.value == 2e-3  # the rule's most for AdamW
    assert first.learning_rate(1_000) > second.learning_rate(1_001) > second.learning_rate(1_400) > 0
    assert third.learning_rate(1_401) == pytest.approx(1e-4 / 80)
    asked = resolve_config(TrainingArguments(recipe=str(file), samples=64_000, model="tiny", optimizer="lamb"), None)
    assert asked.optimizer == "lamb"


GOOD = "[[phases]]\nsequence_length = 64\nbatch_size = 32\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no \\[\\[phases\\]\\]"),
        ("phases = 3\n", "no \\[\\[phases\\]\\]"),
        (GOOD, "neither or both"),
        (GOOD + "share = 1.0\nsteps = 3\n", "neither or both"),
        (GOOD + "share = 0.5\n", "sum to 0.5"),
        (GOOD + "shar = 1.0\n", "Did you mean 'share'"),
        (GOOD + "steps = 2.5\n", "phase 1: steps = 2.5"),
        (GOOD + "steps = 0\n", "0 steps"),
        (GOOD + "steps = true\n", "Give a whole number"),
        (GOOD + "steps = 10\nwarmup_steps = 11\n", "11 steps of warm-up in a phase of 10"),
        (GOOD + "share = 1.0\nwarmup_steps = 11\n", "11 steps of warm-up"),
        (GOOD + "steps = 10\nwarmup_ratio = 0.7\nstable_ratio = 0.7\n", "sum to more than 1"),
        (GOOD + "steps = 10\ncontinues = true\n", "first phase has continues = true"),
        (GOOD + "steps = 10\ndecay_power = 0\n", "decay power 0"),
        (GOOD + "steps = 10\ndecay = 'cosin'\n", "Did you mean 'cosine'"),
        (GOOD + "steps = 10\ndecay = 'cosine'\ndecay_power = 2\n", "decay power 2 beside decay = 'cosine'"),
        (GOOD + "steps = 10\ncooldown_ratio = 0.1\n", "from a rate of 0. Give min_lr_ratio"),
        (GOOD + "steps = 10\ncooldown_ratio = 1.1\n", "cool-down ratio 1.1. Give 0 to 1"),
        (
            GOOD + "steps = 10\nstable_ratio = 0.7\ncooldown_ratio = 0.7\nmin_lr_ratio = 0.1\n",
            "stable ratio 0.7 and cool-down ratio 0.7 sum",
        ),
        (GOOD + "steps = 10\n" + GOOD + "share = 1.0\n", "1 of 2 phases have share"),
        (GOOD + "steps = 10\n" + GOOD + "steps = 1\ncontinues = true\npeak_learning_rate = 1\n", "phase 2 continues"),
        ("betas = [0.9]\n" + GOOD + "steps = 1\n", "betas"),
        ("betas = [0.9, 1.5]\n" + GOOD + "steps = 1\n", "betas"),
        ("epsilon = 0\n" + GOOD + "steps = 1\n", "epsilon"),
        ("max_grad_norm = -1\n" + GOOD + "steps = 1\n", "max_grad_norm"),
        ("dropout = 1\n" + GOOD + "steps = 1\n", "dropout"),
        ("optimiser = 'lamb'\n" + GOOD + "steps = 1\n", "Did you mean 'optimizer'"),
        ("optimizer = 3\n" + GOOD + "steps = 1\n", "Give text in quotes"),
        ("notes = [1]\n" + GOOD + "steps = 1\n", "notes"),
        ("corpus_fingerprint = ''\n" + GOOD, "recipe of a run"),
        ("[[phases]]\nbatch_size = 1\nsteps = 1\n", "phase 1 is missing sequence_length"),
        (GOOD + "steps = 10000000000000000\n", "1e\\+16 steps. Give at most 1,000,000,000,000,000"),
        ("a = [", "cannot be read"),
        ("a = " + 20_000 * "[", "nested too deeply"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_field(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=expected) as refused:
        make_phases(load_recipe(str(file)), samples=None)
    assert "wrong.toml" in str(refused.value)


def test_a_file_that_a_windows_editor_wrote_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xef\xbb\xbf" + (GOOD + "steps = 3\n").encode())
    assert load_recipe(str(file)).phases[0].steps == 3
    file.write_bytes("source = 'größe'\n".encode("latin-1"))
    with pytest.raises(UserError, match="mine.toml cannot be read: it is not text in UTF-8"):
        load_recipe(str(file))


def test_wrong_names_and_requests() -> None:
    with pytest.raises(UserError, match="Did you mean 'nvidia'"):
        load_recipe("nvida")
    with pytest.raises(UserError, match="Did you mean 'paper'"):
        with_recipe(TrainingArguments(recipe="papper"))
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe("nowhere/at-all.toml")
    with pytest.raises(UserError, match="`batch_size` cannot be combined with the recipe nvidia"):
        with_recipe(TrainingArguments(recipe="nvidia", batch_size=(3,)))
    with pytest.raises(UserError, match="no batch size"):
        with_recipe(TrainingArguments())
    with pytest.raises(UserError, match="length of the run"):
        resolve_config(TrainingArguments(recipe="academic-budget"), None)
    with pytest.raises(UserError, match="0 phases"):
        Recipe("mine", ())


def test_the_papers_recipe_knows_its_samples() -> None:
    settings = resolve_config(TrainingArguments(recipe="paper", batch_size=(65_536, 32_768)), None)
    assert settings.total_steps == 8_599


def test_runs_unlike_the_published_ones_are_told() -> None:
    def expected(batch: int, samples: int, hidden_size: int) -> str:
        settings = resolve_config(TrainingArguments(batch_size=(batch,), samples=samples), None)
        return " ".join(beyond_the_published(settings.phases, hidden_size))

    assert expected(32_768, 512_000_000, 1_024) == ""
    assert "beyond 65,536" in expected(131_072, 10**10, 1_024)
    assert "rates for 1,000 steps are fitted to trials" in expected(512, 512_000, 1_024)
    mixed = resolve_config(TrainingArguments(recipe="paper", batch_size=(65_536, 32_768)), None)
    assert beyond_the_published(mixed.phases, 1_024) == []
    assert "published for BERT-Large" in expected(32_768, 512_000_000, 128)


def test_plan_says_the_shape_of_the_schedule_and_of_the_masks() -> None:
    lines = plan_lines(describe_plan(settings_of("hplt-bert")))
    assert "cosine decay, down to 0.1 of the peak, to 0 in the last 500 steps" in " ".join(lines)
    assert sum("cosine" in line for line in lines) == 1
    assert "masked    0.3 of the tokens at first, 0.15 at the end, on a line over the steps of the run" in lines


def test_a_recipe_whose_batch_a_corpus_cannot_fill_says_how_to_change_it(small_corpus: Corpus) -> None:
    """`batch_size` cannot be given beside such a recipe."""
    for recipe, remedy in (
        ("hplt-bert", "lambert plan --recipe hplt-bert --save-recipe FILE`, give its phases"),
        ("paper", "`batch_size`"),
    ):
        asked = TrainingArguments(recipe=recipe, model="tiny")
        with pytest.raises(UserError, match="is more than the") as refused:
            resolve_config(asked, small_corpus)
        assert remedy in refused.value.remedy
