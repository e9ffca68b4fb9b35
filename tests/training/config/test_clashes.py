"""A run in its folder with other settings: the message names the arguments."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lambert.cli.main import main
from lambert.corpus.store import Corpus
from lambert.errors import UserError
from lambert.training.config.arguments import TrainingArguments
from lambert.training.config.clashes import ARGUMENTS, clashes
from lambert.training.config.precision import Precision
from lambert.training.config.resolve import resolve_config
from lambert.training.config.training_config import TrainingConfig, refuse_other_config, write_recipe
from lambert.utils.diff import flatten

BASE = {"model": "2x32", "batch_size": (8,), "samples": 160, "sequence_lengths": (16, 32), "optimizer": "adamw"}


def config_of(corpus: Corpus | None, **changed: Any) -> TrainingConfig:
    return resolve_config(TrainingArguments(**{**BASE, **changed}), corpus)


def test_every_setting_has_its_argument() -> None:
    known = {field.name for field in dataclasses.fields(TrainingArguments)} | {"corpus"}
    assert set(ARGUMENTS.values()) <= known
    for key in flatten(config_of(None).as_tables()):
        if not key.endswith((".formula", ".provenance")):
            assert re.sub(r"^phases\.\d+\.", "phases.", key) in ARGUMENTS, key


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"batch_size": (16,)}, ["`batch_size` 16 (the run has 8)"]),
        ({"batch_size": (16, 8)}, ["`batch_size` 16 8 (the run has 8 8)"]),
        ({"sequence_lengths": (16,)}, ["`sequence_lengths` 16 (the run has 16 32)"]),
        ({"sequence_lengths": (16, 32, 64), "phase_fractions": (0.5, 0.3, 0.2)},
         ["`sequence_lengths` 16 32 64 (the run has 16 32)"]),
        ({"phase_fractions": (0.5, 0.5)}, ["`phase_fractions` 0.5 0.5 (the run has 0.9 0.1)"]),
        ({"samples": 320}, ["`samples` or `epochs`: 320 samples (the run has 160)"]),
        ({"model": "1x32"}, ["`model` 1x32 (the run has 2x32)"]),
        ({"optimizer": "muon"}, ["`optimizer` muon (the run has adamw)"]),
        ({"learning_rate": 0.1, "batch_size": (4,)},
         ["`batch_size` 4 (the run has 8)", "`learning_rate` 0.1 (the run has 0.002)"]),
        ({"warmup_ratio": 0.5}, ["`warmup_ratio` 9 1 steps (the run has 4 0)"]),
        ({"dropout": 0.0, "seed": 3}, ["`dropout` 0 (the run has 0.1)", "`seed` 3 (the run has 0)"]),
        ({"attention_dropout": 0.0}, ["`attention_dropout` 0 (the run has none)"]),
        ({"pairs": "none", "masking": "span"},
         ["`pairs` none (the run has nsp)", "`masking` span (the run has token)"]),
        ({"mlm_probability_end": 0.05}, ["`mlm_probability_end` 0.05 (the run has none)"]),
        ({"pack": True}, ["`pack=True` (the run is without)"]),
    ],
)  # fmt: skip
def test_only_what_was_given_differently_is_listed(changed: dict[str, Any], expected: list[str]) -> None:
    there, now = config_of(None), config_of(None, **changed)
    assert sorted(clashes(there.as_tables(), now.as_tables(), ignored=("micro_batch_sizes",))) == sorted(expected)


@pytest.mark.parametrize(("name", "value"), [("attention_dropout", 0.0), ("mlm_probability_end", 0.05)])
def test_a_setting_that_may_be_left_out_is_named_whichever_side_has_it(name: str, value: float, tmp_path: Path) -> None:
    with_it, without = config_of(None, **{name: value}), config_of(None)
    for number, (there, now) in enumerate([(with_it, without), (without, with_it)]):
        run = tmp_path / str(number)
        run.mkdir()
        write_recipe(run, there)
        with pytest.raises(UserError, match=f"holds a run with other settings: `{name}` "):
            refuse_other_config(run, now)
        refuse_other_config(run, there)


def test_settings_beyond_the_arguments() -> None:
    there = config_of(None)
    for changed, expected in [
        ({"corpus_fingerprint": 64 * "a"}, "another `corpus`"),
        ({"initial_weights": 64 * "b"}, "`init_from` bbbbbbbbbbbb (the run has none)"),
        ({"micro_batch_sizes": (4, 2)}, "`micro_batch_size` 4 2 (the run has 8 8)"),
        ({"precision": Precision.BFLOAT16_AUTOCAST}, "`precision` bfloat16-autocast (the run has float32)"),
        ({"deterministic": True, "threads": 1}, "`deterministic=True` (the run is without)"),
        ({"weight_decay": 0.1}, "`recipe` with weight_decay 0.1 (the run has 0.01)"),
    ]:
        assert clashes(there.as_tables(), replace(there, **changed).as_tables()) == [expected]
    assert clashes(there.as_tables(), {**there.as_tables(), "new": 1}) == ["new 1 (the run has none)"]
    assert clashes(there.as_tables(), there.as_tables()) == []


@pytest.mark.parametrize("lengths", ["16", "16 32 64 --phase-fractions .5 .3 .2", "32 64"])
def test_a_run_with_other_phases_is_refused_with_a_message(
    lengths: str, tmp_path: Path, small_corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(tmp_path, config_of(small_corpus))
    line = (
        f"--model 2x32 --batch-size 8 --samples 160 --optimizer adamw --precision float32 --sequence-lengths {lengths}"
    )
    assert main(["pretrain", "--corpus", str(small_corpus.path), "--out", str(tmp_path), *line.split()]) == 2
    message = capsys.readouterr().err
    assert "holds a run with other settings: --sequence-lengths" in message and "(the run has 16 32)" in message
