"""`lambert fill MODEL "text with [MASK]" …`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from lambert.cli.subcommand import Subcommand, say
from lambert.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Fill(Subcommand):
    """Show the most likely tokens for each [MASK]."""

    only_prints: ClassVar[bool] = True

    model_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")]
    """A run or a Hugging Face BERT folder."""
    text: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    """One or more sentences, each in quotes and with one or more [MASK]."""
    cased: bool = False
    """Read a model folder that has only a vocab.txt, and does not say, as cased."""
    candidates: int = 5
    """Number of candidates for each [MASK]."""

    def run(self) -> dict[str, Any]:
        """Results: `sentences`: a list of `text`, `blanks`: for each [MASK] candidates (`word`, `probability`);
        `unknown`: the words that become [UNK]; `dropped`: characters that give no token.
        """
        from lambert.api.models import filled_texts

        if not self.text:
            raise UserError("no sentence", remedy='Give one or more, such as "the capital of france is [MASK]"')
        sentences = []
        for filled in filled_texts(self.model_folder, self.text, top_k=self.candidates, cased=self.cased):
            if len(self.text) > 1:
                say(filled.text)
            for candidates in filled.blanks:
                say("  ".join(f"{word.word!r} {100 * word.probability:.1f} %" for word in candidates))
            sentences.append(asdict(filled))
        return {"sentences": sentences}
