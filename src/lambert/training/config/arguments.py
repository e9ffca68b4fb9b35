"""What a person asks of a run, and the recipe that comes of it: their words first, then the recipe's, then BERT's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lambert.data.objective import BERT_EXAMPLES, ExampleKind
from lambert.errors import UserError
from lambert.training.config.recipe import Recipe, recipe_by_rule
from lambert.training.config.recipe_io import BY_RULE, load_recipe
from lambert.training.config.scaling_rules import PAPER_SAMPLES

DEFAULT_MODEL, DEFAULT_OPTIMIZER, DEFAULT_DROPOUT = "base", "lamb", 0.1
DEFAULT_LENGTHS = (128, 512)
_CHOICES = ("model", "optimizer", "dropout", "pairs", "masking", "mask_share")
"""What both a person and a recipe may say."""


@dataclass(frozen=True)
class Request:
    """What a person asks of `plan` and `pretrain`; None and () are left to the recipe."""

    model: str | None = None
    """Preset or `LAYERSxHIDDEN`; not looked at when `init_from` is given."""
    batch_sizes: tuple[int, ...] = ()
    """One for all phases or one for each."""
    epochs: float | None = None
    """Passes over the corpus in all; this, `samples`, or a recipe that has its own steps."""
    samples: int | None = None
    """Sequences in all."""
    sequence_lengths: tuple[int, ...] = ()
    """One for each phase."""
    phase_shares: tuple[float, ...] = ()
    """Of the samples."""
    optimizer: str | None = None
    recipe: str = "sqrt"
    """`sqrt` or `paper`, the name of a recipe, or a file."""
    learning_rate: float | None = None
    learning_rate_multiplier: float = 1.0
    """Times the recipe's peak of every phase."""
    warmup_share: float | None = None
    dropout: float | None = None
    pairs: str | None = None
    masking: str | None = None
    mask_share: float | None = None
    packs: bool = False
    seed: int = 0
    micro_batch_size: int | None = None
    """At the first phase's length; longer sequences get proportionally fewer."""
    init_from: Path | None = None
    """Hugging Face folder whose weights are continued."""

    def merged(self, recipe: Recipe) -> Recipe:
        """The recipe with what is asked for here in place of what it says; its steps and rates stay its own."""
        given = {name: getattr(self, name) for name in _CHOICES if getattr(self, name) is not None}
        return replace(recipe, **given)

    @property
    def examples(self) -> ExampleKind:
        """What is hidden and asked."""
        given = {"pairing": self.pairs, "masking": self.masking, "mask_share": self.mask_share}
        return replace(BERT_EXAMPLES, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def with_recipe(request: Request) -> tuple[Request, Recipe]:
    """The request with what its recipe says filled in, and the recipe.

    Raises:
        UserError: the recipe is not known, has phases of its own that the request would change, or there is no batch.
    """
    shape = {
        "--batch-size": request.batch_sizes,
        "--sequence-lengths": request.sequence_lengths,
        "--phase-shares": request.phase_shares,
    }
    if request.recipe in BY_RULE:
        if not request.batch_sizes:
            raise UserError("no batch size", remedy="Give --batch-size, or a --recipe that has its own")
        lengths = request.sequence_lengths or DEFAULT_LENGTHS
        recipe = recipe_by_rule(request.batch_sizes, lengths, request.phase_shares, name=request.recipe)
        if request.recipe == "paper":
            recipe = replace(recipe, samples=PAPER_SAMPLES)
    else:
        given = [option for option, value in shape.items() if value]
        recipe = load_recipe(request.recipe)
        if given:
            raise UserError(
                f"{' and '.join(given)} beside the recipe {request.recipe}, which has phases of its own",
                remedy="Leave the option out, or write the recipe to a file with `lambert plan --save-recipe FILE`, "
                "change that, and give it as --recipe",
            )
    samples = request.samples
    if samples is None and request.epochs is None:
        samples = recipe.samples
    filled: dict[str, Any] = {name: _first(getattr(request, name), getattr(recipe, name)) for name in _CHOICES}
    return replace(request, samples=samples, **filled), recipe


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
