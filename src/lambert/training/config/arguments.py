"""What is asked of a run, from the command line or from Python. Imports nothing heavy: `lambert --help` reads it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from lambert.data.objective import BERT_OBJECTIVE, ObjectiveConfig
from lambert.errors import UserError, unknown_name
from lambert.training.config.trainer_options import TrainerOptions


@dataclass(frozen=True, kw_only=True)
class RecipeArguments:
    """What decides the weights of a run. None and () are left to the recipe; each docstring is the option's help."""

    batch_size: tuple[int, ...] = ()
    """Sequences in a global batch: one number for all phases, or one for each. Memory does not limit it."""
    model: str | None = None
    """Layers × hidden size: tiny 2×128, mini 4×256, small 4×512, medium 8×512, base 12×768, large 24×1024, or by hand
    LAYERSxHIDDEN such as 6x384; base unless the recipe has another."""
    epochs: float | None = None
    """Epochs over the corpus, all phases together. Give this or `samples`, or a recipe that has its own steps."""
    samples: int | None = None
    """Sequences to train on, all phases together."""
    sequence_lengths: tuple[int, ...] = ()
    """Tokens in a sequence, one number for each phase: 128 512 unless the recipe has others."""
    phase_fractions: tuple[float, ...] = ()
    """Fraction of the samples in each phase: .9 .1 where there are two."""
    optimizer: str | None = None
    """lamb, adamw, lars, lans or muon; lamb unless the recipe has another."""
    recipe: str = "sqrt"
    """sqrt: everything from the batch size; paper: the LAMB paper's runs; nvidia, lans-54-minutes, bert-2018, roberta,
    academic-budget, mosaic: published recipes; or a TOML file, or a run (docs/recipes.md)."""
    learning_rate: float | None = None
    """Peak learning rate of all phases; from the batch size otherwise."""
    learning_rate_multiplier: float = 1.0
    """Multiplies the recipe's peak learning rate of every phase, to see whether it is the best."""
    warmup_ratio: float | None = None
    """Fraction of each phase's steps that warm up, 0 to 1; from the batch size otherwise."""
    dropout: float | None = None
    """Dropout probability of hidden units and attention weights; .1 unless the recipe has another."""
    pairs: str | None = None
    """Sentence-pair objective. nsp: does B follow A (BERT); sop: are A and B in order (ALBERT); none: one segment,
    windows of documents; nsp unless the recipe has another."""
    masking: str | None = None
    """What is masked as one: token (BERT), whole_word, or span (SpanBERT); token otherwise."""
    mlm_probability: float | None = None
    """Fraction of the tokens that are masked; .15 unless the recipe has another."""
    pack: bool = False
    """Pack several short examples into one row; for text of short documents."""
    seed: int = 0
    """Seed of every random draw."""
    micro_batch_size: int | None = None
    """Sequences in one forward pass in the first phase, and proportionally fewer in longer ones; otherwise the fastest
    that fits is measured, and remembered."""
    precision: str = "auto"
    """auto, float32, bfloat16-autocast or bfloat16-master; auto takes bfloat16 only where the hardware gains, on a CPU
    bfloat16-master. bfloat16 on a GPU is untested on GPU."""
    init_from: Path | None = None
    """Run or Hugging Face BERT folder whose weights are the start; `model` is then ignored."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "sequence_lengths", "phase_fractions"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, Iterable) else (value,))
        if self.init_from is not None:
            object.__setattr__(self, "init_from", Path(self.init_from))

    @classmethod
    def of(cls, **options: Any) -> Self:
        """The arguments with these options.

        Raises:
            UserError: an option is unknown (the nearest one is named) or out of its range.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown_name("argument", name, known)
        return cls(**options)

    @property
    def initial_model_folder(self) -> Path | None:
        """The Hugging Face folder that `init_from` means.

        Raises:
            UserError: there is none.
        """
        from lambert.model.huggingface import model_folder  # which imports torch

        return None if self.init_from is None else model_folder(self.init_from)

    @property
    def examples(self) -> ObjectiveConfig:
        """What is hidden and asked."""
        given = {"pairing": self.pairs, "masking": self.masking, "mlm_probability": self.mlm_probability}
        return replace(BERT_OBJECTIVE, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class TrainingArguments(RecipeArguments, TrainerOptions):
    """Everything that can be asked of a run: what decides its weights, and how it is carried out."""

    fresh: bool = False
    """Start from scratch, deleting the run that `out` holds."""
    threads: int = 0
    """Threads of each process; 0 takes all cores, or what a deterministic run began with (1 at first)."""
    deterministic: bool = False
    """End in the same bits on 1, 2, 4, … ranks; takes log2(micro-batches of a rank) + 1 gradients of memory."""
    reduce_dtype: str = "float32"
    """float32 or bfloat16: the dtype of gradients in the all-reduce between ranks."""
    timeout_minutes: float = 10.0
    """How long a rank waits for one that does not answer, minutes."""
    probe_seconds: float = 5.0
    """Time each phase's steps for so many seconds before the run, at most a fiftieth of them, and predict its time and
    memory; the actual figures are logged beside that at the end. 0 skips it."""

    def __post_init__(self) -> None:
        RecipeArguments.__post_init__(self)
        TrainerOptions.__post_init__(self)
        if not 0 <= self.threads <= 4_096:
            raise UserError(f"{self.threads} threads", remedy="Give a whole number from 0 to 4,096")
        if not 0 < self.timeout_minutes <= 10_000:
            raise UserError(f"a timeout of {self.timeout_minutes} minutes", remedy="Give a number above 0")
        check_probe_seconds(self.probe_seconds)


def command_line(name: str, options: Any, **more: Any) -> str:
    """The `lambert` command that asks for the same as a dataclass of options; default values are left out.

    So is `fresh`: who repeats a recorded command wants to resume, not to delete.
    """
    words = ["lambert", name]
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    given = {field: value for field, value in given.items() if value != _default(options, field)} | more
    for field, value in given.items():
        if field in ("json", "fresh"):
            continue
        values = [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]
        words += [f"--{field.replace('_', '-')}"] + ([] if value is True else values)
    return shlex.join(words)


def _default(options: Any, name: str) -> Any:
    return next(field.default for field in fields(options) if field.name == name)


def check_probe_seconds(seconds: float) -> None:
    """Refuse a probe of negative or endless time.

    Raises:
        UserError: names the range.
    """
    if not 0 <= seconds <= 3_600:
        raise UserError(f"a probe of {seconds} seconds", remedy="Give 0 to 3,600")
