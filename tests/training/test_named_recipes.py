"""Runs of named recipes whose schedules span phases, with small batches and lengths."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from lambert.corpus.store import Corpus
from lambert.errors import UserError
from lambert.training.config.arguments import TrainingArguments
from lambert.training.config.phase import phases_of
from lambert.training.config.recipe_io import load_recipe, recipe_as_toml
from lambert.training.config.resolve import resolve_config
from lambert.training.config.starting_model import starting_model
from lambert.training.config.training_config import refuse_other_config
from lambert.training.loop import TrainingLoop


@pytest.mark.parametrize("name", ["modernbert", "ettin", "nexterabert", "neobert", "optibert", "mosaicbert"])
def test_a_recipe_of_today_trains_small(name: str, tmp_path: Path, small_corpus: Corpus) -> None:
    recipe = load_recipe(name)
    phases = [
        replace(phase, batch_size=max(1, phase.batch_size // 512), sequence_length=max(16, phase.sequence_length // 64))
        for phase in recipe.phases
    ]
    (tmp_path / "mine.toml").write_text(recipe_as_toml(replace(recipe, phases=tuple(phases))))
    samples = 3_000 if name in ("modernbert", "ettin") else 120  # so that each phase of a growing batch has a step
    settings = resolve_config(
        TrainingArguments(recipe=str(tmp_path / "mine.toml"), model="1x32", samples=samples), small_corpus
    )
    loop = TrainingLoop(tmp_path / "run", settings, starting_model(settings, None, small_corpus), small_corpus)
    outcome = loop.train()
    assert outcome.finished and outcome.evaluation is not None and math.isfinite(outcome.evaluation.mlm_loss)
    if name in ("modernbert", "ettin"):
        assert loop.model.config == replace(settings.model, global_rotary_base=160_000.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["gpt-bert-100m", "gpt-bert-10m", "hplt-bert"])
def test_a_recipe_with_a_mask_schedule_trains_and_is_held_to_it(
    name: str, tmp_path: Path, small_corpus: Corpus
) -> None:
    recipe = load_recipe(name)
    phases = [
        replace(phase, batch_size=phase.batch_size // 2_048, sequence_length=phase.sequence_length // 8)
        for phase in recipe.phases
    ]
    (tmp_path / "mine.toml").write_text(recipe_as_toml(replace(recipe, phases=tuple(phases))))
    asked = TrainingArguments(recipe=str(tmp_path / "mine.toml"), model="1x32", samples=400)
    settings = resolve_config(asked, small_corpus)
    run = tmp_path / "run"
    outcome = TrainingLoop(run, settings, starting_model(settings, None, small_corpus), small_corpus).train()
    assert outcome.finished and outcome.step == settings.total_steps >= 30
    journal = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in journal if line["event"] == "step"]
    wanted = [
        phase.learning_rate(step)
        for phase in phases_of(settings)
        for step in range(phase.first_step, phase.last_step + 1)
    ]
    assert rates == pytest.approx(wanted, rel=1e-5)
    refuse_other_config(run, settings)
    for end, text in ((None, "none"), (0.2, "0.2")):
        other = replace(settings, examples=replace(settings.examples, mlm_probability_end=end))
        with pytest.raises(UserError, match=rf"`mlm_probability_end` {text} \(the run has 0.15\)"):
            refuse_other_config(run, other)
    other = replace(settings, phases=(replace(settings.phases[0], decay="power"), *settings.phases[1:]))
    with pytest.raises(UserError, match="`recipe` with decay"):
        refuse_other_config(run, other)
