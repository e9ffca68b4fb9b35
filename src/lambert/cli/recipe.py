"""The options that decide a run, which `plan` and `pretrain` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lambert.cli.subcommand import Verb, say
from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.corpus.store import Corpus
    from lambert.training.config.arguments import Request
    from lambert.training.config.training_config import RunSettings


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(Verb):
    """The options that `plan` and `pretrain` share."""

    batch_size: tuple[int, ...] = ()
    """Sequences in a global batch: one number for all phases, or one for each. Memory does not limit it."""
    model: str | None = None
    """Layers × hidden size: tiny 2×128, mini 4×256, small 4×512, medium 8×512, base 12×768, large 24×1024, or by hand
    LAYERSxHIDDEN such as 6x384; base unless the recipe has another."""
    epochs: float | None = None
    """Passes over the corpus, all phases together. Give this or --samples, or a recipe that has its own steps."""
    samples: int | None = None
    """Sequences to train on, all phases together."""
    sequence_lengths: tuple[int, ...] = ()
    """Tokens in a sequence, one number for each phase: 128 512 unless the recipe has others."""
    phase_shares: tuple[float, ...] = ()
    """Of the samples, one for each phase: .9 .1 where there are two."""
    optimizer: str | None = None
    """lamb, adamw, lars, lans or muon; lamb unless the recipe has another."""
    recipe: str = "sqrt"
    """sqrt: everything from the batch size; paper: the LAMB paper's runs; nvidia, lans-54-minutes, bert-2018, roberta,
    academic-budget, mosaic: those of others; or a TOML file, or a run (docs/recipes.md)."""
    learning_rate: float | None = None
    """Peak learning rate of all phases; from the batch size otherwise."""
    learning_rate_multiplier: float = 1.0
    """Times the recipe's peak learning rate of every phase, to see whether it is the best."""
    warmup_share: float | None = None
    """Share of each phase's steps that warm up, 0 to 1; from the batch size otherwise."""
    dropout: float | None = None
    """Probability of dropping a hidden unit or an attention weight; .1 unless the recipe has another."""
    pairs: str | None = None
    """nsp: does B follow A (BERT); sop: are A and B in order (ALBERT); none: one segment, windows of documents; nsp
    unless the recipe has another."""
    masking: str | None = None
    """What is hidden as one: word pieces (BERT), whole words, or spans of words (SpanBERT); pieces otherwise."""
    mask_share: float | None = None
    """Share of the tokens that are hidden; .15 unless the recipe has another."""
    pack: bool = False
    """Put several short examples into one row; for text of short documents."""
    seed: int = 0
    """Start of every random draw."""
    micro_batch_size: int | None = None
    """Sequences that go through the model at once in the first phase, and proportionally fewer in the second;
    the fastest that fits is found by trying otherwise, and remembered."""
    precision: str = "auto"
    """auto, float32, bfloat16-autocast or bfloat16-master; auto takes bfloat16 only where the hardware gains, on a CPU
    bfloat16-master. bfloat16 on a GPU is untested on GPU."""
    init_from: Path | None = None
    """Run or Hugging Face BERT folder whose weights are continued; --model is then not looked at."""

    @property
    def weights_folder(self) -> Path | None:
        """The Hugging Face folder that --init-from means."""
        from lambert.model.huggingface import model_folder

        return None if self.init_from is None else model_folder(self.init_from)

    def request(self) -> Request:
        """What is asked for, before anything is resolved."""
        from lambert.training.config.arguments import Request

        return Request(
            model=self.model,
            batch_sizes=self.batch_size,
            epochs=self.epochs,
            samples=self.samples,
            sequence_lengths=self.sequence_lengths,
            phase_shares=self.phase_shares,
            optimizer=self.optimizer,
            recipe=self.recipe,
            learning_rate=self.learning_rate,
            learning_rate_multiplier=self.learning_rate_multiplier,
            warmup_share=self.warmup_share,
            dropout=self.dropout,
            pairs=self.pairs,
            masking=self.masking,
            mask_share=self.mask_share,
            packs=self.pack,
            seed=self.seed,
            micro_batch_size=self.micro_batch_size,
            init_from=self.weights_folder,
        )

    def say_recipe(self) -> None:
        """Where the numbers of a recipe that is not the rule come from, and what to know before relying on them."""
        from lambert.training.config.arguments import with_recipe

        _, recipe = with_recipe(self.request())
        if recipe.source:
            say(f"recipe    {recipe.name}: {recipe.source}")
        for note in recipe.notes:
            say(f"note      {note}")

    def say_limits(self, settings: RunSettings) -> None:
        """How far a run by the rule is from those that the rule was published for."""
        from lambert.training.config.recipe_io import BY_RULE
        from lambert.training.config.scaling_rules import beyond_the_published

        if self.recipe in BY_RULE and self.init_from is None:
            for note in beyond_the_published(settings.phases, settings.model.hidden_size):
                say(f"note      {note}")

    def settings(self, corpus: Corpus | None) -> RunSettings:
        """Everything resolved."""
        from lambert.planning.hardware import inspect_hardware
        from lambert.training.config.precision import resolve_precision
        from lambert.training.config.resolve import resolve_settings

        hardware = inspect_hardware()
        precision = resolve_precision(
            self.precision, bfloat16_gains=hardware.bfloat16_gains, on_cpu=hardware.device == "cpu"
        )
        return resolve_settings(self.request(), corpus, precision=precision)


def check_probe_seconds(seconds: float) -> None:
    """Refuse a probe of no or endless time.

    Raises:
        UserError: says what can be given.
    """
    if not 0 <= seconds <= 3_600:
        raise UserError(f"a probe of {seconds} seconds", remedy="Give 0 to 3,600")
