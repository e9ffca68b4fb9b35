"""Reads a sweep file: options shared by all runs, and grids of the options that vary → trials."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambert.errors import UserError, unknown_name
from lambert.training.optimizer import check_optimizer
from lambert.utils.io import read_toml

AXES: dict[str, tuple[type, ...]] = {
    "optimizers": (str,),
    "batch_sizes": (int, list),
    "learning_rate_multipliers": (int, float),
    "seeds": (int,),
    "recipes": (str,),
}
"""Axis of a grid → types of its values; an axis has one value or several."""
_DEFAULTS: dict[str, list[Any]] = {
    "optimizers": ["lamb"], "learning_rate_multipliers": [1.0], "seeds": [0], "recipes": ["sqrt"]
}  # fmt: skip
_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("learning_rate_multipliers", lambda value: 0 < value < math.inf, "Give numbers above 0"),
    ("seeds", lambda value: 0 <= value < 2**63, "Give whole numbers from 0 to 2^63 - 1"),
)
"""Checked up front: only one trial of each batch is planned, so a bad value in another would show up hours later."""
_TABLES = ("run", "grid", "squad", "budget_hours")
MOST_TRIALS = 2_000


@dataclass(frozen=True)
class Trial:
    """One run of the sweep."""

    optimizer: str
    batch_sizes: tuple[int, ...]
    """Empty if the recipe sets them."""
    recipe: str
    multiplier: float
    """Times the recipe's peak learning rate."""
    seed: int

    @property
    def batch(self) -> str:
        """Label of the batch in tables: its sizes, or the recipe that sets them."""
        return "/".join(f"{size:,}" for size in self.batch_sizes) or Path(self.recipe).stem

    @property
    def configuration(self) -> str:
        """Name of its configuration: everything but the seed."""
        parts = [self.optimizer, "b" + "-".join(map(str, self.batch_sizes)) if self.batch_sizes else ""]
        parts += [_safe(self.recipe) if self.recipe != "sqrt" else "", f"x{self.multiplier:g}"]
        return "_".join(part for part in parts if part)

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return f"{self.configuration}_s{self.seed}"

    def arguments(self) -> list[str]:
        """Its options as arguments of `pretrain`."""
        batch = ["--batch-size", *map(str, self.batch_sizes)] if self.batch_sizes else []
        return [
            "--optimizer", self.optimizer, *batch, "--recipe", self.recipe,
            "--learning-rate-multiplier", f"{self.multiplier:g}", "--seed", str(self.seed),
        ]  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """A sweep file's contents."""

    options: Mapping[str, Any]
    """Options of `pretrain` that all trials share, by name with underscores."""
    trials: tuple[Trial, ...]
    squad: Mapping[str, Any] | None = None
    """Options of `squad`; None if the models are not fine-tuned."""
    budget_hours: float | None = None

    def shared_arguments(self) -> list[str]:
        """The shared options as command-line arguments."""
        return option_arguments(self.options)


def option_arguments(options: Mapping[str, Any]) -> list[str]:
    """A table of options as command-line arguments: a flag for true, nothing for false."""
    arguments: list[str] = []
    for name, value in options.items():
        if value is False:
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        arguments += [f"--{name.replace('_', '-')}", *map(str, values)]
    return arguments


def read_sweep(path: Path, *, run_options: Collection[str], squad_options: Collection[str]) -> Sweep:
    """Read a sweep from its TOML file; a trial in several grids is kept once.

    Args:
        run_options, squad_options: options allowed in `[run]` and `[squad]`.

    Raises:
        UserError: the file cannot be read, or a table, option, axis or value is invalid.
    """
    try:
        tables = read_toml(path)
    except ValueError as error:
        raise UserError(f"sweep {path} cannot be read: {error}", remedy="Give a TOML file (docs/sweep.md)") from None
    for name in tables:
        if name not in _TABLES:
            raise unknown_name(f"table of sweep {path}", name, _TABLES)
    options = _options(path, "run", tables.get("run"), run_options)
    squad = _options(path, "squad", tables["squad"], squad_options) if "squad" in tables else None
    grids = tables.get("grid")
    grids = [grids] if isinstance(grids, dict) else grids
    if not isinstance(grids, list) or not grids:
        raise UserError(f"sweep {path} has no [grid]", remedy="Give one, with batch_sizes and what else is to vary")
    trials = list(dict.fromkeys(trial for grid in grids for trial in _trials(path, grid)))
    names = {trial.name for trial in trials}
    if len(names) < len(trials):
        raise UserError(f"sweep {path}: two recipes have the same name", remedy="Give their files different names")
    if len(trials) > MOST_TRIALS:
        raise UserError(f"sweep {path} has {len(trials):,} trials", remedy=f"Give at most {MOST_TRIALS:,}")
    budget = tables.get("budget_hours")
    is_number = isinstance(budget, (int, float)) and not isinstance(budget, bool)
    if budget is not None and not (is_number and 0 < budget < math.inf):
        raise UserError(f"sweep {path}: budget_hours = {budget!r}", remedy="Give hours above 0")
    return Sweep(options, tuple(trials), squad, budget)


def _options(path: Path, table: str, values: Any, known: Collection[str]) -> dict[str, Any]:
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"sweep {path}: {table} is no table", remedy=f"Write [{table}] above its options")
    for name in values:
        if name not in known:
            raise unknown_name(f"option in [{table}] of sweep {path}", name, known)
    return dict(values)


def _trials(path: Path, grid: Any) -> list[Trial]:
    """Every combination of a grid's values; seeds vary slowest, so one seed of every configuration runs first."""
    if not isinstance(grid, dict):
        raise UserError(f"sweep {path}: grid is no table", remedy="Write [[grid]] above its axes")
    axes: dict[str, list[Any]] = dict(_DEFAULTS)
    for name, values in grid.items():
        if name not in AXES:
            raise unknown_name(f"axis of sweep {path}", name, AXES)
        values = values if isinstance(values, list) else [values]
        if not values or any(isinstance(value, bool) or not isinstance(value, AXES[name]) for value in values):
            raise UserError(f"sweep {path}: {name} = {values!r}", remedy=f"Give a list of {_expected_values(name)}")
        axes[name] = values
    batches = [tuple(batch) if isinstance(batch, list) else (batch,) for batch in axes.get("batch_sizes", [[]])]
    if not all(type(size) is int and size > 0 for batch in batches for size in batch):
        raise UserError(f"sweep {path}: batch_sizes = {axes['batch_sizes']!r}", remedy="Give whole numbers from 1")
    for optimizer in axes["optimizers"]:
        check_optimizer(optimizer)
    for name, is_possible, remedy in _RANGES:
        if not all(is_possible(value) for value in axes[name]):
            raise UserError(f"sweep {path}: {name} = {axes[name]!r}", remedy=remedy)
    recipes = [_recipe(path, recipe) for recipe in axes["recipes"]]
    combinations = math.prod(map(len, (*(axes[name] for name in _DEFAULTS), batches)))
    if combinations > MOST_TRIALS:  # before building them: four lists of a thousand exceed memory
        raise UserError(f"sweep {path} has a grid of {combinations:,} trials", remedy=f"Give at most {MOST_TRIALS:,}")
    order = itertools.product(axes["seeds"], axes["learning_rate_multipliers"], recipes, batches, axes["optimizers"])
    return [
        Trial(optimizer, batch, recipe, float(multiplier), seed)
        for seed, multiplier, recipe, batch, optimizer in order
    ]  # fmt: skip


def _recipe(path: Path, recipe: str) -> str:
    """Resolve a recipe file relative to the sweep file."""
    beside = path.parent / recipe
    return str(beside) if recipe.endswith(".toml") and beside.is_file() else recipe


def _expected_values(axis: str) -> str:
    if axis == "batch_sizes":
        return "whole numbers, or lists of them for one in each phase"
    return "texts in quotes" if AXES[axis] == (str,) else "whole numbers" if axis == "seeds" else "numbers"


def _safe(recipe: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", Path(recipe).stem)
