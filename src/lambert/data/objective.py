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

    def __post_init__(self) -> None:
        for name, value, valid in (("pairs", self.pairing, PAIRINGS), ("masking", self.masking, MASKINGS)):
            if value not in valid:
                raise UserError(f"`{name}` is {value!r}", remedy=f"Choose one of {', '.join(valid)}")
        if not 0 < self.mlm_probability < 1:
            raise UserError(
                f"`mlm_probability` is {self.mlm_probability}", remedy="Give a number between 0 and 1; BERT's is 0.15"
            )


BERT_OBJECTIVE = ObjectiveConfig()
