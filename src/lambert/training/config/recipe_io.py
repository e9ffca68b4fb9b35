"""Reads and writes recipe files: those in the package, custom ones, and the `recipe.toml` of runs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from lambert.errors import UserError, unknown_name
from lambert.training.config.phase_config import Provenance
from lambert.training.config.phase_recipe import PhaseRecipe
from lambert.training.config.recipe import Recipe
from lambert.training.config.recorded import with_defaults
from lambert.training.config.training_config import TrainingConfig
from lambert.utils.io import read_toml

BY_RULE = ("sqrt", "paper")
"""Built-in recipes without a file: the square-root rule, and the LAMB paper's runs."""
_FOLDER = resources.files("lambert.training.config") / "recipes"
NAMED = tuple(sorted(file.name.removesuffix(".toml") for file in _FOLDER.iterdir() if file.name.endswith(".toml")))
"""Published recipes in the package."""

_OF_A_FILE = ("name", "source", "notes", "confirmed", "phases")
_RUN_WIDE = tuple(field.name for field in fields(Recipe) if field.name not in (*_OF_A_FILE, "provenance"))
_KINDS: dict[str, type | tuple[type, ...]] = {
    "int": int, "float": (int, float), "str": str, "bool": bool, "int | None": int, "float | None": (int, float),
    "str | None": str, "tuple[float, float] | None": list,
}  # fmt: skip
_WORDS = {int: "a whole number", str: "text in quotes", bool: "true or false", list: "a list of two numbers"}

Thing = TypeVar("Thing")


def load_recipe(name: str) -> Recipe:
    """Load a recipe by name or from a TOML file: a custom one, or the `recipe.toml` of a run, with the run's steps,
    learning rates and warm-ups.

    Raises:
        UserError: unknown name, unreadable file, or a field that is unknown, of the wrong type or out of range.
    """
    if name in NAMED:
        return recipe_from_tables(tomllib.loads((_FOLDER / f"{name}.toml").read_text("utf-8")), name, is_ours=True)
    path = Path(name) / "recipe.toml" if Path(name).is_dir() else Path(name)
    if not (name.endswith(".toml") or path.is_file()):
        raise unknown_name("recipe", name, [*BY_RULE, *NAMED])
    try:
        tables = read_toml(path)
    except ValueError as error:
        raise UserError(f"recipe {path} cannot be read: {error}", remedy="Give a TOML file or a known name") from None
    try:
        if "corpus_fingerprint" in tables:
            tables = _of_a_run(with_defaults(tables, TrainingConfig))
        return recipe_from_tables(tables, str(path))
    except UserError as error:
        raise UserError(f"recipe {path}: {error.what}", remedy=error.remedy) from None


def recipe_from_tables(tables: Mapping[str, Any], name: str, *, is_ours: bool = False) -> Recipe:
    """Build a recipe from the tables of a TOML file.

    Args:
        is_ours: a recipe of the package: its numbers are published, or unconfirmed with `confirmed = false`.

    Raises:
        UserError: a field is unknown, missing, of the wrong type or out of range.
    """
    for key in tables:
        if key not in (*_OF_A_FILE, *_RUN_WIDE):
            raise unknown_name("field", key, [*_OF_A_FILE, *_RUN_WIDE])
    phases = tables.get("phases")
    if not isinstance(phases, list) or not all(isinstance(phase, dict) for phase in phases):
        raise UserError("it has no [[phases]]", remedy="Give at least one, with sequence_length and batch_size")
    known = [_checked(PhaseRecipe, phase, f"phase {number}") for number, phase in enumerate(phases, start=1)]
    own = {key: value for key, value in tables.items() if key in (*_RUN_WIDE, "source")}
    _check_kinds(Recipe, own, "")
    if "betas" in own:
        own["betas"] = _pair(own["betas"])
    _check_ranges(own)
    notes = tables.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise UserError("notes is not a list of strings", remedy='Write notes = ["…"]')
    provenance: Provenance = "given"
    if is_ours:
        provenance = "published" if tables.get("confirmed", True) else "unconfirmed"
    return Recipe(
        name, tuple(PhaseRecipe(**phase) for phase in known), notes=tuple(notes), provenance=provenance, **own
    )


def recipe_as_toml(recipe: Recipe) -> str:
    """The recipe as TOML, to be edited and read by `load_recipe`."""
    skipped = ("name", "provenance", "notes", "phases")
    tables = {name: value for name, value in asdict(recipe).items() if name not in skipped and value not in (None, "")}
    empty = {field.name: field.default for field in fields(PhaseRecipe) if field.default is not MISSING}
    phases = [
        {name: value for name, value in asdict(phase).items() if value != empty.get(name)} for phase in recipe.phases
    ]
    return tomli_w.dumps({**tables, "notes": list(recipe.notes), "phases": phases})


def _of_a_run(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a run's `recipe.toml`."""
    try:
        examples, phases = tables["examples"], []
        spans = _spans(tables["phases"])
        for phase, span in zip(tables["phases"], spans, strict=True):
            steps = int(phase["steps"]["value"])
            own = {"sequence_length": phase["sequence_length"], "batch_size": phase["batch_size"], "steps": steps}
            if (theta := phase.get("global_rope_theta")) is not None:
                own["global_rope_theta"] = theta
            if phase["continues"]:
                phases.append({**own, "continues": True})
                continue
            shape = {name: phase[name] for name in ("decay", "decay_power", "decays_from_start", "min_lr_ratio")}
            phases.append({
                **own, **shape, "peak_learning_rate": phase["peak_learning_rate"]["value"],
                "warmup_steps": phase["warmup_steps"]["value"], "stable_ratio": phase["stable_steps"] / span,
                "cooldown_ratio": phase["cooldown_steps"] / span,
            })  # fmt: skip
        names = ("optimizer", "betas", "epsilon", "weight_decay", "max_grad_norm", "ema_decay")
        same = {name: tables[name] for name in names}
        kind = {
            "pairs": examples["pairing"],
            "masking": examples["masking"],
            "mlm_probability": examples["mlm_probability"],
        }
        if (end := examples.get("mlm_probability_end")) is not None:
            kind["mlm_probability_end"] = end
        model = {name: tables["model"][name] for name in ("architecture", "dropout")} | {"model": tables["model_name"]}
        if (own := tables["model"].get("attention_dropout")) is not None:
            model["attention_dropout"] = own
        return {**same, **kind, **model, "phases": phases}
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"the recipe of a run with a missing or invalid field {error}", remedy="Give a file that `pretrain` wrote"
        ) from None


def _spans(phases: list[dict[str, Any]]) -> list[int]:
    """Steps of each phase and of those that continue it."""
    spans: list[int] = []
    for phase in reversed(phases):
        own = int(phase["steps"]["value"])
        follows = len(spans) > 0 and phases[len(phases) - len(spans)]["continues"]
        spans.append(own + (spans[-1] if follows else 0))
    return spans[::-1]


def _checked(kind: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check that the fields of a phase are known, complete and of the right type."""
    known = {field.name: field for field in fields(kind)}
    for key in values:
        if key not in known:
            raise unknown_name(f"field of {where}", key, known)
    missing = [name for name, field in known.items() if name not in values and field.default is MISSING]
    if missing:
        raise UserError(f"{where} is missing {' and '.join(missing)}", remedy="Add the missing fields")
    _check_kinds(kind, values, f"{where}: ")
    return dict(values)


def _check_kinds(kind: type[Any], values: Mapping[str, Any], where: str) -> None:
    for field in fields(kind):
        if field.name not in values:
            continue
        value, wanted = values[field.name], _KINDS[str(field.type)]
        if isinstance(value, bool) != (wanted is bool) or not isinstance(value, wanted):
            expected = _WORDS.get(wanted, "a number") if isinstance(wanted, type) else "a number"
            raise UserError(f"{where}{field.name} = {value!r}", remedy=f"Give {expected}")


def _pair(values: list[Any]) -> tuple[float, float]:
    if len(values) != 2 or not all(isinstance(value, (int, float)) and 0 <= value < 1 for value in values):
        raise UserError(f"betas = {values}", remedy="Give two numbers from 0 to below 1, such as [0.9, 0.999]")
    return float(values[0]), float(values[1])


def _check_ranges(values: Mapping[str, Any]) -> None:
    least = {"epsilon": "above 0", "weight_decay": "from 0", "max_grad_norm": "from 0; 0 clips nothing"}
    for name, wanted in least.items():
        value = values.get(name, 1)
        if not (0 <= value < float("inf")) or (name == "epsilon" and value == 0):
            raise UserError(f"{name} = {value}", remedy=f"Give a number {wanted}")
    for name in ("dropout", "attention_dropout", "ema_decay"):
        if not 0 <= values.get(name, 0) < 1:
            raise UserError(f"{name} = {values[name]}", remedy="Give a number from 0 to below 1")
