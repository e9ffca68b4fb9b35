"""`lambert embed-eval MODEL --dev PAIRS`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lambert.cli.subcommand import Subcommand, say_lines


@dataclass(frozen=True, kw_only=True)
class EmbedEval(Subcommand):
    """Score the sentence vectors of a model by pairs or NanoBEIR, beside random weights and words alone."""

    model_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")]
    """A run, a Hugging Face folder, or one of sentence-transformers."""
    dev: Path | None = None
    """JSON lines, CSV, TSV or Parquet with pairs of a query and its passage, or of texts with a similarity."""
    dev_columns: tuple[str, ...] = ()
    """The two columns of pairs, and a third with the similarity; otherwise sentence1 sentence2 score, query passage
    and the like."""
    nano_beir: tuple[str, ...] = ()
    """Datasets of NanoBEIR, fetched from the Hub: msmarco, nq, scifact and others, or all."""
    pooling: str | None = None
    """mean over all tokens of a text, or cls; otherwise what the folder says, and the mean where it says nothing."""
    sequence_length: int | None = None
    """Longest text in tokens; otherwise what the folder says, and at most the model's positions."""
    batch_size: int = 64
    """Texts in a forward pass."""
    seed: int = 0
    """Of the random weights."""
    cased: bool = False
    """Read a model folder that has only a vocab.txt, and does not say, as cased."""

    def run(self) -> dict[str, Any]:
        """Results: `scores`, a list of the fields of `EmbeddingScores`."""
        from lambert.embeddings.examples import read_scored
        from lambert.embeddings.scores import evaluate_embeddings

        own = ("json", "model_folder", "dev", "dev_columns")
        arguments = {name: value for name, value in vars(self).items() if name not in own}
        scored = None if self.dev is None else read_scored(self.dev, self.dev_columns or None)
        found = evaluate_embeddings(self.model_folder, scored, **arguments)
        for scores in found:
            say_lines(scores.lines())
        return {"scores": [scores.to_dict() for scores in found]}
