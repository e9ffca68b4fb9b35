"""The resolved configuration of a run: written to `recipe.toml`, and compared before a resume.

A new setting gets as its default what runs did before it, for their recipes lack it (`recorded.py`).
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import tomli_w

from lambert import __version__
from lambert.data.objective import BERT_OBJECTIVE, ObjectiveConfig
from lambert.errors import UserError, unknown_name
from lambert.model.architectures import architecture_of, recorded_config, with_rope_theta
from lambert.model.bert import BertConfig
from lambert.runlog.schema import RECIPE_FILE
from lambert.training.config.clashes import clashes
from lambert.training.config.phase_config import PhaseConfig
from lambert.training.config.precision import Precision
from lambert.training.config.recorded import refuse_unknown_settings, with_defaults
from lambert.utils.io import SETTINGS_BYTES, read_bytes, write_text

REDUCE_DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainingConfig:
    """One pre-training run. On one kind of machine, these fields and the corpus determine every bit of the result."""

    model_name: str
    """Preset, `LAYERSxHIDDEN`, or the folder's model when continuing one."""
    model: BertConfig
    """Size and dropout."""
    optimizer: str
    """One of `optimizers.OPTIMIZERS`."""
    samples: int
    """Sequences in all phases together, full batches only."""
    phases: tuple[PhaseConfig, ...]
    """Length, batch size, steps and learning rate of every phase."""
    micro_batch_sizes: tuple[int, ...]
    """Sequences in one forward pass, by phase."""
    corpus_fingerprint: str
    """SHA-256 of the corpus contents."""
    seed: int = 0
    """Seed of every random draw."""
    examples: ObjectiveConfig = BERT_OBJECTIVE
    """Sentence pairs or windows, and masking."""
    packs: bool = False
    """Pack short examples into one row; the loss is equal up to rounding, dropout masks differ."""
    precision: Precision = Precision.FLOAT32
    """Precision of the forward and backward pass."""
    reduce_dtype: str = "float32"
    """dtype of the gradients in the all-reduce."""
    deterministic: bool = False
    """Same bits for any world size."""
    no_compile: bool = False
    """Do not compile the blocks on a GPU; compiled ones differ in rounding and dropout masks."""
    threads: int = 0
    """Threads of each rank, fixed in a deterministic run; 0 leaves them open."""
    initial_weights: str = ""
    """SHA-256 of the initial weights; empty for random initialization."""
    weight_decay: float = 0.01
    """λ, on matrices and embeddings only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of both moments."""
    epsilon: float = 1e-6
    """ε in m̂ / (√v̂ + ε)."""
    adamw_lr_ratio: float = 1.0
    """AdamW's learning rate beside another optimizer, as a fraction of that one's."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights, which is evaluated and exported; 0 is without one."""
    max_grad_norm: float = 1.0
    """Largest L2 norm of the whole gradient, as in BERT; 0 turns clipping off."""

    def __post_init__(self) -> None:
        if self.reduce_dtype not in REDUCE_DTYPES:
            raise unknown_name("gradient precision", self.reduce_dtype, REDUCE_DTYPES)
        if self.deterministic and self.reduce_dtype != "float32":
            raise UserError(
                "a deterministic run reduces gradients in float32",
                remedy="Leave out `reduce_dtype` or `deterministic=True`",
            )
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed {self.seed}", remedy="Give a whole number from 0 to 2^63 - 1")
        for phase, micro_batch in zip(self.phases, self.micro_batch_sizes, strict=True):
            if micro_batch < 1:
                raise UserError(f"micro-batch size {micro_batch}", remedy="Give a whole number of sequences from 1")
            if phase.sequence_length > self.model.maximum_positions:
                raise UserError(
                    f"sequence length {phase.sequence_length} is longer than the model's "
                    f"{self.model.maximum_positions} positions",
                    remedy="Choose shorter sequences",
                )
            with_rope_theta(self.model, phase.global_rope_theta)

    @property
    def total_steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.step_count for phase in self.phases)

    def model_at(self, step: int) -> BertConfig:
        """The model's configuration in `step`, counted from 1; in step 0 that of the first."""
        ends = itertools.accumulate(phase.step_count for phase in self.phases)
        phase = next((phase for phase, end in zip(self.phases, ends, strict=True) if step <= end), self.phases[-1])
        return with_rope_theta(self.model, phase.global_rope_theta)

    @property
    def tokens(self) -> int:
        """Tokens of all phases, padding included."""
        return sum(phase.tokens for phase in self.phases)

    def as_tables(self) -> dict[str, Any]:
        """Tables for TOML, with the formula and provenance of each number."""
        tables = asdict(self)
        tables["precision"] = self.precision.value
        # TOML has no null, which is the default of what can be None
        for part in ("model", "examples"):
            tables[part] = {name: value for name, value in tables[part].items() if value is not None}
        tables["model"] = {"architecture": architecture_of(self.model), **tables["model"]}
        phases = [{**asdict(phase), "samples": phase.samples, "tokens": phase.tokens} for phase in self.phases]
        tables["phases"] = [{name: value for name, value in one.items() if value is not None} for one in phases]
        return tables

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> Self:
        """The configuration that `as_tables` of this or an earlier version describes.

        Raises:
            UserError: a setting is missing, unknown or out of range.
        """
        try:
            known = [field.name for field in fields(cls)]
            own = {name: value for name, value in with_defaults(tables, cls).items() if name in known}
            return cls(
                **own
                | {
                    "model": recorded_config(own["model"]),
                    "phases": tuple(PhaseConfig.from_table(phase) for phase in own["phases"]),
                    "micro_batch_sizes": tuple(own["micro_batch_sizes"]),
                    "examples": ObjectiveConfig(**own["examples"]),
                    "precision": Precision(own["precision"]),
                    "betas": tuple(own["betas"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the recipe of a run with a missing or invalid field {error}",
                remedy="Give a run that this version of lambert can resume",
            ) from None


def write_recipe(run: Path, settings: TrainingConfig, *, command: str = "") -> None:
    """Write `run/recipe.toml` atomically: the settings and the command line."""
    write_tables(run, {"command": command, "lambert": __version__, **settings.as_tables()})


def write_tables(run: Path, tables: Mapping[str, Any]) -> None:
    """Write `run/recipe.toml` atomically, from tables that hold the command and the version too."""
    write_text(run / RECIPE_FILE, tomli_w.dumps(tables))


def refuse_other_config(run: Path, settings: TrainingConfig) -> None:
    """Check that `run/recipe.toml` holds the same settings; micro-batches may differ unless the run is deterministic.

    Raises:
        UserError: the settings differ (lists each difference), or the file cannot be read.
    """
    recorded = _recorded(run)
    refuse_differences(recorded, settings, f"{run} holds a run", version=str(recorded.get("lambert", "")))


def refuse_differences(recorded: Mapping[str, Any], settings: TrainingConfig, whose: str, *, version: str = "") -> None:
    """Check tables of `TrainingConfig.as_tables` against `settings`. A setting that they lack counts as its default.

    Args:
        whose: where the tables come from, as the beginning of the message.
        version: of the lambert that wrote them; empty where unknown.

    Raises:
        UserError: they differ (lists the arguments), or have settings of another version of lambert.
    """
    ignored = () if settings.deterministic else ("micro_batch_sizes",)
    current = tomllib.loads(tomli_w.dumps(settings.as_tables()))
    refuse_unknown_settings(recorded, current, whose, version)
    found = clashes(with_defaults(recorded, TrainingConfig), current, ignored=ignored)
    if found:
        raise UserError(
            f"{whose} with other settings: {', '.join(found)}",
            remedy="Give the settings it was started with to resume, another `out`, or `fresh=True` to start over",
        )


def read_settings(run: Path) -> TrainingConfig:
    """The settings of the run in a folder.

    Raises:
        UserError: it holds no run, or one that this version cannot resume.
    """
    recorded = _recorded(run)
    config = TrainingConfig.from_tables(recorded)
    refuse_differences(recorded, config, f"{run} holds a run", version=str(recorded.get("lambert", "")))
    return config


@dataclass(frozen=True)
class Recorded:
    """Values that a resumed run takes over."""

    micro_batch_sizes: tuple[int, ...]
    threads: int


def recorded_choices(run: Path) -> Recorded | None:
    """The choices of the run in this folder; None without a run or a readable recipe."""
    try:
        recipe = _recorded(run)
        return Recorded(tuple(int(size) for size in recipe["micro_batch_sizes"]), int(recipe.get("threads", 0)))
    except (UserError, ValueError, KeyError, TypeError):
        return None


def _recorded(run: Path) -> dict[str, Any]:
    path = run / RECIPE_FILE
    try:
        return tomllib.loads(read_bytes(path, SETTINGS_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read: {error}",
            remedy="Delete it, and the same command writes it again if the run has a checkpoint; or add `fresh=True`",
        ) from None
