"""`lambert fill MODEL "text with [MASK]"`"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lambert.cli.subcommand import Verb, say
from lambert.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from lambert.model.heads import BertForPreTraining


@dataclass(frozen=True, kw_only=True)
class Fill(Verb):
    """Show the words a model would put in place of [MASK]."""

    model_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")]
    """A run, or any Hugging Face BERT folder."""
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    """A sentence with one or more [MASK]."""
    candidates: int = 5
    """Words shown for each blank."""

    def run(self) -> dict[str, Any]:
        """Results: `text`, `blanks`, a list with the candidates (`word`, `probability`) of each [MASK]."""
        from lambert.model.fill import fill_masks

        model, tokenizer = open_model(self.model_folder)
        blanks = fill_masks(model, tokenizer, self.text, candidates=self.candidates)
        for words in blanks:
            say("  ".join(f"{word.word!r} {100 * word.probability:.1f} %" for word in words))
        return {"text": self.text, "blanks": [[asdict(word) for word in words] for words in blanks]}


def open_model(path: Path) -> tuple[BertForPreTraining, Tokenizer]:
    """Model and tokenizer of a run or a Hugging Face folder."""
    from lambert.corpus.vocabulary import load_vocabulary
    from lambert.model.heads import BertForPreTraining
    from lambert.model.huggingface import load_model, model_folder

    folder = model_folder(path)
    model, report = load_model(folder, BertForPreTraining)
    missing = [name for name in report.freshly_initialised if name.startswith("masked_word_head.")]
    if missing:
        raise UserError(
            f"{folder} has no masked-word head ({', '.join(missing)})",
            remedy="Give a model that was pre-trained, with its heads",
        )
    return model, load_vocabulary(folder, cased=False)
