"""What an example is made of and how words are hidden: the choices of a run."""

from __future__ import annotations

from dataclasses import dataclass

from lambert.errors import UserError

PAIRINGS = ("nsp", "sop", "none")
MASKINGS = ("pieces", "words", "spans")


@dataclass(frozen=True)
class ExampleKind:
    """The choices; the defaults are BERT's."""

    pairing: str = "nsp"
    """`nsp`: B follows A or comes from another document (Devlin et al. 2018). `sop`: B follows A or stands before it
    (Lan et al. 2019, arXiv 1909.11942). `none`: one segment, a window of a document (Liu et al. 2019, arXiv
    1907.11692)."""
    masking: str = "pieces"
    """What is hidden as one: word `pieces` (BERT), whole `words`, or `spans` of words (Joshi et al. 2019, arXiv
    1907.10529)."""
    mask_share: float = 0.15
    """Share of the tokens that are hidden."""

    def __post_init__(self) -> None:
        for name, value, valid in (("pairing", self.pairing, PAIRINGS), ("masking", self.masking, MASKINGS)):
            if value not in valid:
                raise UserError(f"{name} {value!r}", remedy=f"Choose one of {', '.join(valid)}")
        if not 0 < self.mask_share < 1:
            raise UserError(
                f"a mask share of {self.mask_share}", remedy="Give a number between 0 and 1; BERT's is 0.15"
            )


BERT_EXAMPLES = ExampleKind()
