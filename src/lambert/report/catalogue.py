"""The curves of a page, each of one figure over all runs, in reading order; one without data is left out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """One chart of lines. What a run lacks is left out: `figures` says which of the options it has data for."""

    name: str
    """Unique on the page; the chart's y scale is the blank "$y:name"."""
    column: str
    """Of the table of steps."""
    title: str
    y_title: str
    caption: str
    smoothed: bool = True
    """The column is there once for each level of smoothing."""
    band: bool = False
    """Lowest and highest behind the line, and the values without smoothing."""
    evaluated: bool = False
    """The table of evaluations has the same column, drawn as dots."""
    marked: bool = False
    """What befell the runs, at the top."""
    beside: str = ""
    """Another column of the table of steps, drawn wide and pale."""
    beside_caption: str = ""
    reference: str = ""
    """A figure of the last evaluation to compare with, drawn as a dashed line."""
    reference_caption: str = ""
    from_zero: bool = False
    y_format: str = "~r"
    tall: bool = False


CURVES = (
    Curve(
        "loss", "mlm_loss", "MLM loss", "nats per masked token", "Lower is better.", band=True,
        evaluated=True, marked=True, tall=True, reference="unigram_loss",
        reference_caption=" Dashed: what guessing from word frequencies alone reaches. Held-out text has all hidden"
        " words masked; training leaves a tenth of them in place, which is easier.",
    ),
    Curve(
        "accuracy", "mlm_accuracy", "MLM accuracy", "masked words guessed right", "Higher is better.",
        evaluated=True, from_zero=True, y_format=".0%", reference="unigram_accuracy",
        reference_caption=" Dashed: always guessing the commonest word.",
    ),
    Curve(
        "next-sentence", "nsp_accuracy", "NSP accuracy", "pairs judged right",
        "Does the second sentence follow the first?", evaluated=True, y_format=".0%",
        reference="nsp_majority_accuracy", reference_caption=" Dashed: always giving the commoner answer.",
    ),
    Curve(
        "learning-rate", "learning_rate", "Learning rate", "learning rate", "As it was in each step.", smoothed=False,
        from_zero=True, beside="recipe_rate", beside_caption=" Wide and pale behind it: what the recipe says.",
    ),
    Curve(
        "gradient-norm", "gradient_norm", "Gradient norm", "L2 norm, before clipping",
        "Of the whole gradient of the global batch.", band=True, from_zero=True,
    ),
    Curve(
        "tokens-per-second", "tokens_per_second", "Tokens per second", "tokens / s",
        "All processes together; real tokens only, padding is not counted.", from_zero=True, y_format="~s",
    ),
    Curve(
        "mfu", "mfu", "Utilisation", "share of what large products reach",
        "Forward and backward products over real tokens, against large products in the same number format, measured"
        " before training.", from_zero=True, y_format=".0%",
    ),
)  # fmt: skip
