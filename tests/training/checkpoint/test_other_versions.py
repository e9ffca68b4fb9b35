"""Runs of other versions of lambert: resumed where that is sure, else named with the version, and never deleted.

Also runs whose `recipe.toml` is lost: each checkpoint holds it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from lambert.errors import UserError
from lambert.export.api import export_model
from lambert.training.checkpoint.format import FORMAT_VERSION, finished_steps
from lambert.training.config.training_config import TrainingConfig, refuse_other_config, write_recipe
from lambert.training.loop import TrainingLoop
from lambert.utils.diff import flatten

REQUIRED = {
    "model_name", "optimizer", "samples", "corpus_fingerprint", "micro_batch_sizes", "phases.sequence_length",
    "phases.batch_size", "model.vocabulary_size", "model.layers", "model.hidden_size", "model.attention_heads",
    "model.feed_forward_size",
}  # fmt: skip
"""Settings of every version; each other one has a default."""
OTHERWISE = {"model.initializer_range"}
"""Settings that `settings` has at other values than the default."""


@pytest.fixture
def begin(make_run: Any) -> Callable[..., TrainingLoop]:
    """`make_run` with the optimizer that compiles nothing."""
    return functools.partial(make_run, optimizer="adamw")


_MADE: list[Path] = []


@pytest.fixture
def half(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, begin: Any) -> Path:
    """A run stopped at step 5, with checkpoints of the steps 4 and 5; made once, and copied."""
    if not _MADE:
        trainer = begin(tmp_path_factory.mktemp("half") / "run")
        for step in trainer:
            if step.step == 4:
                trainer.request_stop()
        _MADE.append(trainer.run)
    run = shutil.copytree(_MADE[0], tmp_path / "run")
    assert finished_steps(run) == [5, 4]
    return run


def change(run: Path, step: int, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit what the manifest of a checkpoint says, as another version would have written it."""
    file = run / "checkpoints" / f"step-{step}" / "manifest.json"
    content = json.loads(file.read_text())["content"]
    edit(content)
    sha256 = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({"sha256": sha256, "content": content}))


def without(tables: dict[str, Any], setting: str) -> dict[str, Any]:
    """The tables without one setting, `model.dropout` or `phases.continues`."""
    *path, name = setting.split(".")
    for table in tables["phases"] if path == ["phases"] else [tables[path[0]] if path else tables]:
        del table[name]
    return tables


def test_a_setting_that_a_run_lacks_is_its_default(tmp_path: Path, settings: TrainingConfig) -> None:
    write_recipe(tmp_path, settings)
    recipe = (tmp_path / "recipe.toml").read_text()
    named = {re.sub(r"^phases\.\d+\.", "phases.", key) for key in flatten(tomllib.loads(recipe))}
    optional = {key for key in named if key.count(".") < 2} - REQUIRED - {"command", "lambert"}
    assert len(optional) > 25
    for setting in optional:
        (tmp_path / "recipe.toml").write_text(tomli_w.dumps(without(tomllib.loads(recipe), setting)))
        if setting in OTHERWISE:
            with pytest.raises(UserError, match="with other settings"):
                refuse_other_config(tmp_path, settings)
        else:
            refuse_other_config(tmp_path, settings)


@pytest.mark.parametrize("where", ["", "model", "phases"])
def test_a_setting_that_this_version_lacks_is_named_with_the_version(
    where: str, tmp_path: Path, settings: TrainingConfig
) -> None:
    write_recipe(tmp_path, settings)
    tables = tomllib.loads((tmp_path / "recipe.toml").read_text()) | {"lambert": "7.1"}
    (tables["phases"][0] if where == "phases" else tables[where] if where else tables)["flux"] = 3
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(tables))
    name = f"{where}.flux" if where else "flux"
    with pytest.raises(UserError, match=rf"does not have: {name}\. Install lambert 7\.1 to resume it") as refused:
        refuse_other_config(tmp_path, settings)
    assert "fresh" not in str(refused.value)


@pytest.mark.parametrize(
    ("fact", "value"),
    [("spike_detector", None), ("noise", {"x": 1}), ("recipe", None), ("recipe", {"x": 1}), ("versions", None)],
)
def test_a_checkpoint_without_a_fact_is_resumed_and_the_fact_named(
    fact: str, value: Any, half: Path, begin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def edit(content: dict[str, Any]) -> None:
        del content["facts"][fact]
        if value is not None:
            content["facts"][fact] = value

    for step in (4, 5) if fact == "recipe" else (5,):
        change(half, step, edit)
    if fact == "recipe" and value is not None:
        with pytest.raises(UserError, match="settings that this one does not have: x"):
            begin(half).train()
        return
    output = begin(half).train()
    assert output.finished and output.resumed_from_step == 5
    named = fact if fact in ("spike_detector", "noise", "recipe") else ""
    assert (f"the checkpoint of step 5{f' in {half}' * (fact == 'recipe')}" in caplog.text) == bool(named)
    assert named in caplog.text


def test_a_checkpoint_that_lost_its_recipe_is_damaged_and_the_one_before_is_taken(half: Path, begin: Any) -> None:
    """Its run saves recipes, as the one before shows."""
    change(half, 5, lambda content: content["facts"].pop("recipe"))
    assert begin(half).train().resumed_from_step == 4
    lines = [json.loads(line) for line in (half / "journal.jsonl").read_text().splitlines()]
    (damaged,) = [line for line in lines if line["event"] == "damaged"]
    assert damaged["step"] == 4 and "step-5 is damaged: it lacks its recipe" in damaged["problems"][0]


@pytest.mark.parametrize(("version", "order"), [(FORMAT_VERSION + 1, "newer"), (1, "older")])
def test_another_format_is_called_so_and_kept(version: int, order: str, half: Path, begin: Any) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["format_version"] = version
        content["facts"]["versions"]["lambert"] = "7.1"

    change(half, 5, edit)
    with pytest.raises(UserError, match=f"format version {version}, which is {order} .*Install lambert 7.1") as told:
        begin(half).train()
    assert "damaged" not in str(told.value) and finished_steps(half) == [5, 4]


@pytest.mark.parametrize("content", [None, b"", b"\0" * 4_096])
def test_a_lost_recipe_is_written_again_from_the_checkpoint(
    content: bytes | None, half: Path, tmp_path: Path, begin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = half / "recipe.toml"
    before = tomllib.loads(recipe.read_text())
    recipe.unlink() if content is None else recipe.write_bytes(content)
    assert export_model(half, tmp_path / "out").step == 5
    with pytest.raises(UserError, match=r"`seed` 1 \(the run has 0\)"):
        begin(half, seed=1).train()
    assert {**tomllib.loads(recipe.read_text()), "lambert": ""} == {**before, "lambert": ""}
    assert "was lost: written again from the checkpoint of step 5" in caplog.text
    output = begin(half).train()
    assert output.finished and output.resumed_from_step == 5


def test_a_damaged_checkpoint_gives_no_recipe(half: Path, begin: Any) -> None:
    (half / "recipe.toml").unlink()
    (half / "checkpoints" / "step-5" / "manifest.json").write_text("{}")
    assert begin(half).train().resumed_from_step == 4
    for folder in (half / "checkpoints").iterdir():
        (folder / "manifest.json").write_text("{}")
    (half / "recipe.toml").unlink()
    with pytest.raises(UserError, match="holds files but no recipe.toml"):
        begin(half).train()


def test_a_recipe_that_was_edited_is_not_overwritten(half: Path, begin: Any) -> None:
    (half / "recipe.toml").write_text("seed = [1")
    with pytest.raises(UserError, match="cannot be read: .* Delete it, and the same command writes it again"):
        begin(half).train()
    assert (half / "recipe.toml").read_text() == "seed = [1"
    (half / "recipe.toml").unlink()
    assert begin(half).train().finished
