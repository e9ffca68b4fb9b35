"""Arguments of a run, from the command line or Python. Imports nothing heavy: `lambert --help` reads it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from lambert.data.objective import BERT_OBJECTIVE, ObjectiveConfig
from lambert.errors import UserError, unknown_name
from lambert.training.config.lr_scheduler import LR_SCHEDULER_TYPES
from lambert.training.config.trainer_options import TrainerOptions
from lambert.utils.formatting import path_word, shell_command


@dataclass(frozen=True, kw_only=True)
class RecipeArguments:
    """Arguments that determine the weights. None or () is the recipe's choice; each docstring is the option's help."""

    batch_size: tuple[int, ...] = ()
    """Sequences in a global batch: one number for all phases, or one for each. Not limited by memory."""
    model: str | None = None
    """Layers × hidden size: tiny 2×128, mini 4×256, small 4×512, medium 8×512, base 12×768, large 24×1024, or
    LAYERSxHIDDEN such as 6x384. Default: the recipe's, else base."""
    architecture: str | None = None
    """bert or modernbert (Warner et al. 2024). Default: the recipe's, else that of `init_from`, else bert."""
    epochs: float | None = None
    """Epochs over the corpus, all phases together."""
    samples: int | None = None
    """Sequences to train on, all phases together."""
    hours: float | None = None
    """Hours to train on this machine, where neither `epochs`, `samples` nor a recipe says how long. Default: 1."""
    sequence_lengths: tuple[int, ...] = ()
    """Tokens in a sequence, one number for each phase. Default: the recipe's, else 128 512."""
    phase_fractions: tuple[float, ...] = ()
    """Fraction of the samples in each phase. Default for two phases: .9 .1."""
    optimizer: str | None = None
    """lamb, adamw, stableadamw, lars, lans, muon, lamb+adamw (LAMB for hidden matrices, AdamW for all else; so with
    lars+adamw and lans+adamw), adam-hyperball or muon-hyperball. Default: the recipe's, else adamw with `init_from`,
    muon for fewer than 15,625 steps of at most 2,048 sequences, else lamb."""
    recipe: str = "sqrt"
    """sqrt: derives everything from the batch size; paper: the LAMB paper's BERT-Large runs; nvidia, lans-54-minutes,
    bert-2018, roberta, academic-budget, mosaicbert, gpt-bert-100m, gpt-bert-10m, hplt-bert, modernbert, ettin,
    nexterabert, neobert, optibert: published recipes; or a TOML file, or a run (docs/recipes.md)."""
    learning_rate: float | None = None
    """Peak learning rate of all phases. Default: derived from the batch size; with `init_from`, that for continuing."""
    learning_rate_multiplier: float = 1.0
    """Multiplies the peak learning rate of every phase, to tune it."""
    warmup_ratio: float | None = None
    """Warm-up as a fraction of each phase's steps, 0 to 1. Default: derived from the batch size."""
    lr_scheduler_type: str | None = None
    """linear, cosine, constant_with_warmup or warmup_stable_decay: what follows the warm-up in each phase. Default: the
    recipe's, else linear."""
    decay_ratio: float = 0.1
    """Decay as a fraction of all steps of a schedule with warmup_stable_decay, of all samples with `decay_from`."""
    dropout: float | None = None
    """Dropout probability of hidden units and attention weights. Default: the recipe's, else that of `init_from`,
    else .1."""
    attention_dropout: float | None = None
    """Dropout probability of attention weights, where it is another. On a GPU 0 leaves the choice between all attention
    kernels (untested on GPU)."""
    pairs: str | None = None
    """Sentence-pair objective. nsp: does B follow A (BERT); sop: are A and B in order (ALBERT); none: one segment,
    windows of documents. Default: the recipe's, else nsp."""
    masking: str | None = None
    """Masking unit: token (BERT), whole_word, or span (SpanBERT). Default: the recipe's, else token."""
    mlm_probability: float | None = None
    """Fraction of tokens that are masked. Default: the recipe's, else .15."""
    mlm_probability_end: float | None = None
    """Fraction at the end of the run, where it is another: it changes on a line over the steps. Default: the
    recipe's."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, such as .999: evaluations and exports take the average.
    Default: the recipe's, else none."""
    pack: bool = False
    """Pack several short examples into one row; for corpora of short documents."""
    seed: int = 0
    """Seed of every random draw."""
    micro_batch_size: int | None = None
    """Sequences in one forward pass of the first phase; fewer in phases with longer sequences. Default: 4,096 tokens,
    or as many as fit the machine's memory."""
    tune: bool = False
    """Time micro-batch sizes and take the fastest: for a machine without other work."""
    precision: str = "auto"
    """auto, float32, bfloat16-autocast or bfloat16-master; auto is bfloat16-master where bfloat16 is faster, on a GPU
    from the A100 on (untested on GPU), else float32."""
    init_from: Path | None = None
    """Model to continue: a run, a Hugging Face BERT folder, or a name on the Hub such as
    google-bert/bert-base-uncased (docs/continue.md). `model` is then ignored."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "sequence_lengths", "phase_fractions"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, Iterable) else (value,))
        if self.init_from is not None:
            object.__setattr__(self, "init_from", Path(self.init_from))
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed {self.seed}", remedy="Give a whole number from 0 to 2^63 - 1")
        if self.lr_scheduler_type is not None and self.lr_scheduler_type not in LR_SCHEDULER_TYPES:
            raise unknown_name("learning-rate schedule", self.lr_scheduler_type, LR_SCHEDULER_TYPES)
        if not 0 < self.decay_ratio < 1:
            raise UserError(
                f"`decay_ratio` = {self.decay_ratio:g}", remedy="Give a number between 0 and 1, such as 0.1"
            )
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise UserError(
                f"`ema_decay` = {self.ema_decay:g}", remedy="Give a number from 0 to below 1, such as 0.999"
            )
        if self.hours is not None and not 0 < self.hours < 100_000:
            raise UserError(f"`hours` = {self.hours:g}", remedy="Give a number above 0, such as 0.5")

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Build the arguments from options by name.

        Raises:
            UserError: an option is unknown (suggests the nearest one) or out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown_name("argument", name, known)
        return cls(**options)

    @property
    def initial_model_folder(self) -> Path | None:
        """The Hugging Face folder of `init_from`; fetched where it is a name on the Hub.

        Raises:
            UserError: it does not exist or cannot be fetched.
        """
        from lambert.model.huggingface import model_folder  # which imports torch

        return None if self.init_from is None else model_folder(self.init_from)

    @property
    def examples(self) -> ObjectiveConfig:
        """Masking and sentence-pair objective."""
        given: dict[str, Any] = {
            "pairing": self.pairs,
            "masking": self.masking,
            "mlm_probability": self.mlm_probability,
            "mlm_probability_end": self.mlm_probability_end,
        }
        return replace(BERT_OBJECTIVE, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class TrainingArguments(RecipeArguments, TrainerOptions):
    """All arguments of a run: those that determine the weights, and those for execution."""

    decay_from: Path | None = None
    """Run with a constant rate, or one of its checkpoints (RUN/checkpoints/step-N), to train on from with a learning
    rate that decays; takes its settings (docs/recipes.md)."""
    fresh: bool = False
    """Start from scratch and delete the run in `out`."""
    threads: int = 0
    """Threads of each rank; 0 uses all cores, or in a deterministic run the number it started with (1 at first)."""
    deterministic: bool = False
    """Same bits on 1, 2, 4, … ranks; needs memory for log2(micro-batches of a rank) + 1 gradients."""
    reduce_dtype: str = "float32"
    """float32 or bfloat16: the dtype of gradients in the all-reduce between ranks."""
    no_compile: bool = False
    """On a GPU, do not compile the blocks with torch.compile (untested on GPU). On a CPU nothing is compiled so."""
    timeout_minutes: float = 10.0
    """Timeout of a collective between ranks, minutes."""
    probe_seconds: float = 5.0
    """Seconds to measure steps of each phase before the run (at most 1/50 of the steps), to predict time and memory.
    The end of the run logs the actual values next to the prediction. 0 skips it."""

    def __post_init__(self) -> None:
        RecipeArguments.__post_init__(self)
        TrainerOptions.__post_init__(self)
        if self.decay_from is not None:
            object.__setattr__(self, "decay_from", Path(self.decay_from))
            self._check_decay_from()
        most = most_threads()
        if not 0 <= self.threads <= most:
            raise UserError(f"{self.threads} threads", remedy=f"Give a whole number from 0 to {most:,}")
        if not 0 < self.timeout_minutes <= 10_000:
            raise UserError(f"a timeout of {self.timeout_minutes} minutes", remedy="Give a number above 0")
        check_probe_seconds(self.probe_seconds)

    def _check_decay_from(self) -> None:
        own = ("batch_size", "sequence_lengths", "decay_ratio", "micro_batch_size")
        choices = [field for field in fields(RecipeArguments) if field.name not in own]
        if given := [f"`{field.name}`" for field in choices if getattr(self, field.name) != field.default]:
            raise UserError(
                f"{' and '.join(given)} beside `decay_from`, which takes the run's",
                remedy=f"Leave out {' and '.join(given)}; `batch_size`, `sequence_lengths`, `decay_ratio` can be given",
            )
        if len(self.batch_size) > 1 or len(self.sequence_lengths) > 1:
            raise UserError(
                "several phases beside `decay_from`, which adds one",
                remedy="Give one number for `batch_size` and for `sequence_lengths`",
            )


def most_threads() -> int:
    """Most threads of a process: four for each core of the machine, or 64. Thousands end in a crash."""
    return max(64, 4 * (os.cpu_count() or 1))


NOT_RECORDED = {"recorded": False}
"""Metadata of fields that are no part of a run, such as where else it is shown."""


def command_line(name: str, options: Any, **more: Any) -> str:
    """`command_words` as one line for a shell, to be recorded: without the fields that are no part of a run."""
    return shell_command(*command_words(name, options, recorded=True, **more))


def command_words(name: str, options: Any, *, recorded: bool = False, **more: Any) -> list[str]:
    """The words of the `lambert` command for a dataclass of options; omits default values.

    Omits `fresh` too: repeating a recorded command should resume the run, not delete it.
    """
    parts = ["lambert", name]
    known = [field for field in fields(options) if field.metadata.get("recorded", True) or not recorded]
    given = {field.name: getattr(options, field.name) for field in known}
    given = {field: value for field, value in given.items() if value != _default(options, field)} | more
    for field, value in given.items():
        if field in ("json", "fresh"):
            continue
        flag = f"--{field.replace('_', '-')}"
        if isinstance(value, str) and value.startswith("-"):
            parts.append(f"{flag}={value}")
            continue
        values = value if isinstance(value, (list, tuple)) else [] if value is True else [value]
        parts += [flag, *map(path_word, values)]
    return parts


def _default(options: Any, name: str) -> Any:
    return next(field.default for field in fields(options) if field.name == name)


def is_open(arguments: RecipeArguments) -> bool:
    """Whether nothing says how long the run is, so that a proposal says it."""
    return arguments.recipe == "sqrt" and arguments.samples is None and arguments.epochs is None


def check_probe_seconds(seconds: float) -> None:
    """Check the duration of the probe.

    Raises:
        UserError: it is out of range.
    """
    if not 0 <= seconds <= 3_600:
        raise UserError(f"a probe of {seconds} seconds", remedy="Give 0 to 3,600")
