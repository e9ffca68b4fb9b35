"""Resolves arguments and a corpus into the training configuration."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lambert.corpus.store import Corpus
from lambert.corpus.vocabulary import special_tokens
from lambert.data.dataloader import example_source
from lambert.data.objective import ObjectiveConfig
from lambert.errors import UserError
from lambert.model.architectures import architecture_of
from lambert.model.bert import BertConfig
from lambert.model.config_file import read_config
from lambert.model.presets import model_config
from lambert.model.weight_files import weights_sha256
from lambert.training.config.arguments import RecipeArguments
from lambert.training.config.lr_scheduler import LRSchedulerChoice
from lambert.training.config.phase import phases_of
from lambert.training.config.phase_config import PhaseConfig
from lambert.training.config.precision import Precision
from lambert.training.config.recipe import Recipe, make_phases, recipe_by_rule
from lambert.training.config.recipe_io import BY_RULE, load_recipe
from lambert.training.config.scaling_rules import (
    PAPER_MIXED_BATCH,
    PAPER_SAMPLES,
    continued_learning_rate,
    peak_learning_rate,
)
from lambert.training.config.starting_model import initial_name, vocabulary_entries
from lambert.training.config.training_config import TrainingConfig
from lambert.training.optimizer import default_weight_decay, is_combined, needs_whole_matrices
from lambert.utils.formatting import shell_command

DEFAULT_MODEL = "base"
SHORT_RUN_STEPS, SHORT_RUN_BATCH = 15_625, 2_048
"""Runs of fewer steps and batches of at most so many sequences: LAMB was not published for them, and Muon ended lower
wherever both ran (docs/results.md)."""
DEFAULT_LENGTHS = (128, 512)
_CHOICES = (
    "model", "architecture", "optimizer", "dropout", "attention_dropout", "pairs", "masking", "mlm_probability",
    "mlm_probability_end", "ema_decay",
)  # fmt: skip
"""Fields of both the arguments and a recipe."""
ARCHITECTURE_CHOICES: dict[str, dict[str, Any]] = {"modernbert": {"pairs": "none", "mlm_probability": 0.3}}
"""What runs of an architecture have if neither the arguments nor the recipe say otherwise, as published."""
MICRO_BATCH_TOKENS = 4_096
"""Default tokens in a micro-batch, padding included: 32 sequences of 128, 8 of 512."""
DEFAULT_VOCABULARY_SIZE = 30_522
"""BERT's vocabulary size, for a plan without a corpus."""


def resolve_config(
    request: RecipeArguments,
    corpus: Corpus | None,
    *,
    precision: Precision = Precision.FLOAT32,
    initial_weights: str | None = None,
) -> TrainingConfig:
    """Resolve the training configuration of `request`.

    Without a corpus (a plan from `samples`) it assumes BERT's vocabulary.

    Args:
        initial_weights: SHA-256 of those of `init_from`; None reads them.

    Raises:
        UserError: unknown names, numbers out of range, or model, corpus and samples that do not match.
    """
    request, recipe = with_recipe(request)
    init_from = request.initial_model_folder
    if initial_weights is None:
        initial_weights = "" if init_from is None else weights_sha256(init_from)
    samples = _samples(request, recipe, corpus)
    optimizer = request.optimizer or _default_optimizer(request, recipe, samples)
    config = _model_config(request, recipe, corpus)
    is_continued = init_from is not None and request.recipe != "paper"
    phases = make_phases(
        recipe,
        samples=samples,
        optimizer=optimizer,
        learning_rate=request.learning_rate,
        learning_rate_multiplier=request.learning_rate_multiplier,
        warmup_ratio=request.warmup_ratio,
        scheduler=_scheduler(request),
        is_continued=is_continued,
        architecture=architecture_of(config),
    )
    if corpus is not None:
        refuse_small_corpus(phases, corpus, seed=request.seed, kind=request.examples, recipe=request.recipe)
    defaults = {name: getattr(recipe, name) for name in ("betas", "epsilon", "max_grad_norm")}
    decay = recipe.weight_decay
    return TrainingConfig(
        model_name=initial_name(request.init_from) or request.model or DEFAULT_MODEL,
        model=config,
        optimizer=optimizer,
        samples=sum(phase.samples for phase in phases),
        phases=phases,
        micro_batch_sizes=micro_batch_sizes(phases, request.micro_batch_size),
        corpus_fingerprint="" if corpus is None else corpus.fingerprint,
        seed=request.seed,
        examples=request.examples,
        packs=request.pack,
        precision=precision,
        ema_decay=request.ema_decay or 0.0,
        initial_weights=initial_weights,
        weight_decay=default_weight_decay(optimizer) if decay is None else decay,
        adamw_lr_ratio=_adamw_lr_ratio(request, phases, optimizer, architecture_of(config), is_continued=is_continued),
        **{name: value for name, value in defaults.items() if value is not None},
    )


def _scheduler(request: RecipeArguments) -> LRSchedulerChoice | None:
    kind = request.lr_scheduler_type
    return None if kind is None else LRSchedulerChoice(kind, request.decay_ratio)


def _adamw_lr_ratio(
    request: RecipeArguments, phases: Sequence[PhaseConfig], optimizer: str, architecture: str, *, is_continued: bool
) -> float:
    """AdamW's rate by its own rule, over that of the optimizer beside it in the first phase; 1 beside Muon, whose rate
    was fitted for both."""
    if optimizer == "muon" or not is_combined(optimizer):
        return 1.0
    first, samples = phases[0], sum(phase.samples for phase in phases)
    if is_continued:
        adamw = continued_learning_rate(samples, first.batch_size, "adamw")
    else:
        adamw = peak_learning_rate(samples, first.batch_size, "adamw", "extrapolated", architecture)
    return request.learning_rate_multiplier * adamw.value / first.peak_learning_rate.value


def _default_optimizer(request: RecipeArguments, recipe: Recipe, samples: int | None) -> str:
    """Muon for short runs by the square-root rule; LAMB for large batches, long runs, shards and other recipes; AdamW,
    with which the literature continues, for trained models."""
    if request.init_from is not None and request.recipe != "paper":
        return "adamw"
    largest = max(recipe.batch_sizes)
    is_short = samples is not None and samples < SHORT_RUN_STEPS * largest and largest <= SHORT_RUN_BATCH
    needs_shards = getattr(request, "shard", False)
    return "muon" if request.recipe == "sqrt" and is_short and not needs_shards else "lamb"


def with_recipe(request: RecipeArguments) -> tuple[RecipeArguments, Recipe]:
    """Fill the request from its recipe; returns both.

    Raises:
        UserError: unknown recipe, arguments that conflict with the recipe's phases, or no batch size.
    """
    shape = {
        "`batch_size`": request.batch_size,
        "`sequence_lengths`": request.sequence_lengths,
        "`phase_fractions`": request.phase_fractions,
    }
    if request.recipe in BY_RULE:
        is_papers = request.recipe == "paper"
        batch_size = request.batch_size or (PAPER_MIXED_BATCH if is_papers else ())
        if not batch_size:
            raise UserError("no batch size", remedy="Give `batch_size`, or a `recipe` that sets it")
        lengths = request.sequence_lengths or DEFAULT_LENGTHS
        recipe = recipe_by_rule(batch_size, lengths, request.phase_fractions, name=request.recipe)
        if is_papers:
            recipe = replace(recipe, samples=PAPER_SAMPLES, model="large")
    else:
        given = [option for option, value in shape.items() if value]
        recipe = load_recipe(request.recipe)
        if given:
            options = " and ".join(given)
            raise UserError(
                f"{options} cannot be combined with the recipe {request.recipe}, which defines its phases",
                remedy=f"Leave out {options}, or write the recipe to a file with `lambert plan --save-recipe FILE`, "
                "change that, and give it as `recipe`",
            )
    samples = request.samples
    if samples is None and request.epochs is None:
        samples = recipe.samples
    filled: dict[str, Any] = {name: _first(getattr(request, name), getattr(recipe, name)) for name in _CHOICES}
    filled["architecture"] = filled["architecture"] or _initial_architecture(request)
    if filled["architecture"] != "bert" and (filled["pairs"] or "none") != "none":
        raise UserError(
            f"`pairs` {filled['pairs']} with {filled['architecture']}, which has no segments and no NSP head",
            remedy="Leave out `pairs`, or train a BERT",
        )
    for name, value in ARCHITECTURE_CHOICES.get(filled["architecture"], {}).items():
        filled[name] = _first(filled[name], value)
    return replace(request, samples=samples, **filled), recipe


def _initial_architecture(request: RecipeArguments) -> str:
    """That of the model that is continued, else BERT."""
    folder = request.initial_model_folder
    return "bert" if folder is None else architecture_of(read_config(folder))


def merged_recipe(request: RecipeArguments, recipe: Recipe) -> Recipe:
    """The recipe with the hyperparameters of `request`; its steps and learning rates stay."""
    given = {name: getattr(request, name) for name in _CHOICES if getattr(request, name) is not None}
    return replace(recipe, **given)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _model_config(request: RecipeArguments, recipe: Recipe, corpus: Corpus | None) -> BertConfig:
    """Size and dropout; without a corpus, BERT's vocabulary."""
    init_from, architecture = request.initial_model_folder, request.architecture or "bert"
    if init_from is not None:
        config = read_config(init_from)
        if architecture_of(config) != architecture:
            raise UserError(
                f"{init_from} is a model of the architecture {architecture_of(config)}, not {architecture}",
                remedy="Leave out `architecture`",
            )
        if request.dropout not in (None, config.dropout):
            config = replace(config, dropout=request.dropout, attention_dropout=None)
        if corpus is not None:
            entries = vocabulary_entries(init_from, corpus)
            config = replace(config, vocabulary_size=max(config.vocabulary_size, entries[1]))
    else:
        vocabulary_size = DEFAULT_VOCABULARY_SIZE if corpus is None else corpus.vocabulary_size
        config = model_config(
            request.model or DEFAULT_MODEL,
            vocabulary_size=vocabulary_size,
            dropout=request.dropout,
            architecture=architecture,
        )
        config = replace(config, maximum_positions=max(config.maximum_positions, *recipe.sequence_lengths))
    if request.attention_dropout is not None:
        config = replace(config, attention_dropout=request.attention_dropout)
    if corpus is not None:
        config = replace(config, pad_token_id=special_tokens(corpus.tokenizer()).pad)
    return config


def micro_batch_sizes(phases: Sequence[PhaseConfig], asked: int | None) -> tuple[int, ...]:
    """Micro-batch size of each phase: as given for the first, with equal tokens in the others."""
    if asked is not None and asked < 1:
        raise UserError(f"micro-batch size {asked}", remedy="Give a whole number of sequences from 1")
    tokens = MICRO_BATCH_TOKENS if asked is None else asked * phases[0].sequence_length
    return tuple(min(phase.batch_size, max(1, tokens // phase.sequence_length)) for phase in phases)


@functools.lru_cache(maxsize=4)  # segmentation reads all sentences, and several callers need it
def examples_per_epoch(
    corpus: Corpus, sequence_lengths: tuple[int, ...], *, seed: int, kind: ObjectiveConfig
) -> tuple[int, ...]:
    """Number of training examples in one epoch, at the sequence length of each phase."""
    return tuple(
        len(example_source(corpus, "train", sequence_length=length, seed=seed, phase=number, objective=kind))
        for number, length in enumerate(sequence_lengths, start=1)
    )


def check_world_size(settings: TrainingConfig, count: int, *, shards: bool = False) -> None:
    """Check that every global batch can be partitioned over `count` ranks.

    Args:
        shards: the model is sharded over the ranks.

    Raises:
        UserError: more ranks than micro-batches, or a number that a deterministic or sharded run does not support.
    """
    if shards and needs_whole_matrices(settings.optimizer):
        raise UserError(
            f"{settings.optimizer} needs whole matrices", remedy="Leave out `shard=True`, or choose another `optimizer`"
        )
    if shards and settings.deterministic:
        raise UserError(
            "the gradient sum of a sharded run depends on the number of ranks, so it is not deterministic",
            remedy="Leave out `shard=True` or `deterministic=True`",
        )
    for number, phase in enumerate(phases_of(settings), start=1):
        micro_batches = phase.micro_batch_count
        if micro_batches < count:
            most = phase.config.batch_size // count
            enough = (
                f"a `micro_batch_size` up to {most:,}" if most else f"`batch_size` {count} and `micro_batch_size` 1"
            )
            raise UserError(
                f"{count} ranks for {micro_batches} micro-batches of phase {number}",
                remedy=f"Give {enough}, or fewer ranks",
            )
        if shards and micro_batches % count:
            raise UserError(
                f"{count} ranks of a sharded model cannot have equal numbers of the {micro_batches} micro-batches of "
                f"phase {number}",
                remedy="With `shard=True` choose a `micro_batch_size` or number of ranks that divides them evenly",
            )
        if settings.deterministic and (count & (count - 1) or micro_batches % count):
            fit = [str(2**k) for k in range(micro_batches.bit_length()) if micro_batches % 2**k == 0]
            raise UserError(
                f"{count} ranks cannot sum {micro_batches} micro-batches of phase {number} in one binary tree",
                remedy=f"With `deterministic=True` start {' or '.join(fit)}, or choose another `micro_batch_size`",
            )


def _samples(request: RecipeArguments, recipe: Recipe, corpus: Corpus | None) -> int | None:
    """Total sequences, None for the recipe's own; `epochs` counts all phases together."""
    has_own_steps = recipe.phases[0].steps is not None
    if request.epochs is not None and request.samples is not None:
        raise UserError("both `epochs` and `samples`", remedy="Give one of them")
    if request.epochs is None:
        if request.samples is None and not has_own_steps:
            raise UserError("the length of the run is not set", remedy="Give either `epochs` or `samples`")
        return request.samples
    if corpus is None:
        raise UserError("`epochs` without a corpus", remedy="Give `corpus`, or `samples` instead")
    if not 0 < request.epochs < math.inf:
        raise UserError(f"{request.epochs} epochs", remedy="Give a number above 0")
    counts = examples_per_epoch(corpus, recipe.sequence_lengths, seed=request.seed, kind=request.examples)
    passes_per_sample = sum(share / count for share, count in zip(recipe.shares, counts, strict=True))
    return round(request.epochs / passes_per_sample)


def refuse_small_corpus(
    phases: Sequence[PhaseConfig], corpus: Corpus, *, seed: int, kind: ObjectiveConfig, recipe: str
) -> None:
    """Check that no batch is larger than an epoch: repeating an example does not enlarge a batch.

    Args:
        recipe: whose phases they are, for the remedy.

    Raises:
        UserError: one is.
    """
    lengths = tuple(phase.sequence_length for phase in phases)
    counts = examples_per_epoch(corpus, lengths, seed=seed, kind=kind)
    remedy = f"Give a `batch_size` up to {min(counts):,} or prepare more text"
    if recipe not in BY_RULE:
        most = dict(zip(lengths, counts, strict=True))
        sizes = " and ".join(f"{count:,} at length {length:,}" for length, count in most.items())
        written = shell_command("lambert", "plan", "--recipe", recipe, "--save-recipe", "FILE")
        remedy = (
            f"Prepare more text, or write the recipe to a file with `{written}`, give its phases a batch_size up to "
            f"{sizes}, and give it as `recipe`"
        )
    for phase, count in zip(phases, counts, strict=True):
        if phase.batch_size > count:
            raise UserError(
                f"a batch of {phase.batch_size:,} is more than the {count:,} examples of length "
                f"{phase.sequence_length} in {corpus.path}",
                remedy=remedy,
            )
