"""The pre-training objective: what an example is made of and how tokens are masked."""

from __future__ import annotations

from dataclasses import dataclass

from lambert.errors import UserError

PAIRINGS = ("nsp", "sop", "none")
MASKINGS = ("token", "whole_word", "span")


@dataclass(frozen=True)
class ObjectiveConfig:
    """How examples are made; the defaults are BERT's.

    Raises:
        UserError: an unknown name, or a probability that is not between 0 and 1.
    """

    pairing: str = "nsp"
    """`nsp`, next-sentence prediction: B follows A or comes from another document (Devlin et al. 2018). `sop`,
    sentence-order prediction: B follows A or precedes it (Lan et al. 2019, arXiv 1909.11942). `none`: one segment, a
    window of a document (Liu et al. 2019, arXiv 1907.11692)."""
    masking: str = "token"
    """What is masked as one: a `token` (BERT), a `whole_word`, or a `span` of words (Joshi et al. 2019, arXiv
    1907.10529)."""
    mlm_probability: float = 0.15
    """Fraction of the tokens that are masked."""
    mlm_probability_end: float | None = None
    """What that fraction falls or rises to, on a line over the steps of the run (`MaskSchedule`); None keeps it."""

    def __post_init__(self) -> None:
        for name, value, valid in (("pairs", self.pairing, PAIRINGS), ("masking", self.masking, MASKINGS)):
            if value not in valid:
                raise UserError(f"`{name}` is {value!r}", remedy=f"Choose one of {', '.join(valid)}")
        for name in ("mlm_probability", "mlm_probability_end"):
            fraction = getattr(self, name)
            if fraction is not None and not 0 < fraction < 1:
                raise UserError(f"`{name}` is {fraction}", remedy="Give a number between 0 and 1; BERT's is 0.15")

    @property
    def has_pairs(self) -> bool:
        """Whether an example has two segments, and a label of the two."""
        return self.pairing != "none"

    @property
    def largest_mlm_probability(self) -> float:
        """The larger one of both ends."""
        return max(self.mlm_probability, self.mlm_probability_end or 0.0)


BERT_OBJECTIVE = ObjectiveConfig()
