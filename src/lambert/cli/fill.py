"""`lambert fill MODEL "text with [MASK]"`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lambert.cli.subcommand import Subcommand, say

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True)
class Fill(Subcommand):
    """Show the most likely tokens for each [MASK]."""

    model_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")]
    """A run or a Hugging Face BERT folder."""
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    """A sentence with one or more [MASK]."""
    candidates: int = 5
    """Number of candidates for each [MASK]."""

    def run(self) -> dict[str, Any]:
        """Results: `text`, `blanks`, a list with the candidates (`word`, `probability`) of each [MASK]."""
        from lambert.api.models import fill_mask

        blanks = fill_mask(self.model_folder, self.text, top_k=self.candidates)
        for candidates in blanks:
            say("  ".join(f"{word.word!r} {100 * word.probability:.1f} %" for word in candidates))
        return {"text": self.text, "blanks": [[asdict(word) for word in candidates] for candidates in blanks]}
