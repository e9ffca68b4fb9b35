"""`lambert embed-train MODEL TEXTS_OR_PAIRS --out FOLDER`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lambert.cli.finetune_progress import fine_tune_progress
from lambert.cli.subcommand import Subcommand, say
from lambert.utils.formatting import duration


@dataclass(frozen=True, kw_only=True)
class EmbedTrain(Subcommand):
    """Train the sentence vectors of a model: by SimCSE on texts, with in-batch negatives on pairs."""

    model_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")]
    """A run, a Hugging Face folder, or one of sentence-transformers."""
    texts: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TEXTS")]
    """File with a text in each line; or JSON lines, CSV, TSV or Parquet with texts or pairs."""
    out: Path
    """New folder, which SentenceTransformer and every command of lambert open."""
    columns: tuple[str, ...] = ()
    """One column of texts, or the two of pairs; otherwise query passage, anchor positive and the like, or text."""
    dev: Path | None = None
    """Pairs to score by, before and after; otherwise a tenth of the texts or pairs is held out."""
    dev_columns: tuple[str, ...] = ()
    """Their two columns, and a third with a similarity where there is one."""
    epochs: int = 1
    """Epochs over the texts or pairs."""
    batch_size: int = 64
    """Texts or pairs in a step; each is told apart from all others of its batch."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW; otherwise 3e-5 for models of width 768 or more, 1e-4 for smaller ones."""
    learning_rates: tuple[float, ...] = ()
    """Peaks to choose from, on a tenth of the texts or pairs."""
    temperature: float = 0.05
    """What cosines are divided by."""
    dropout: float = 0.1
    """Dropout while training; in SimCSE it makes the two vectors of a text."""
    sequence_length: int = 128
    """Longest text in tokens, and where the new folder truncates."""
    pooling: str | None = None
    """mean over all tokens of a text, or cls; otherwise what the folder says, and the mean where it says nothing."""
    normalize: bool = False
    """Let the new folder give vectors of length 1."""
    seed: int = 0
    """Decides order and dropout."""
    cased: bool = False
    """Read a model folder that has only a vocab.txt, and does not say, as cased."""

    def run(self) -> dict[str, Any]:
        """Results: the fields of `ContrastiveResult`."""
        from lambert.embeddings.contrastive import train_embeddings
        from lambert.embeddings.examples import read_scored, read_training

        own = ("json", "model_folder", "texts", "columns", "dev", "dev_columns", "normalize")
        arguments = {name: value for name, value in vars(self).items() if name not in own}
        data = read_training(self.texts, self.columns or None)
        dev = None if self.dev is None else read_scored(self.dev, self.dev_columns or None)
        with fine_tune_progress() as progress:
            result = train_embeddings(
                self.model_folder, data, dev=dev, normalize=self.normalize or None, progress=progress, **arguments
            )
        chosen = result.settings.learning_rate
        for trial in result.trials:
            how = "diverged" if trial.score is None else f"nDCG@10 {trial.score:.2f} of held-out ones"
            say(f"learning rate {trial.learning_rate:g}: {how}{', taken' * (trial.learning_rate == chosen)}")
        kind = "texts" if result.loss == "SimCSE" else "pairs"
        more = f", {result.left_out:,} duplicate or empty ones left out" * (result.left_out > 0)
        say(f"{result.loss} on {result.examples:,} {kind}{more}: {result.steps:,} steps, loss {result.train_loss:.3f}")
        if result.before is None or result.after is None or result.words is None:
            say("too few to hold some out: no scores without --dev")
        else:
            say(f"scores of {result.scored_by}:")
            for title, metrics in (("before", result.before), ("after", result.after), ("words alone", result.words)):
                say(f"  {title:<12}" + "  ".join(f"{name} {value:.2f}" for name, value in metrics.items()))
        say(f"{duration(result.seconds)}; {result.folder}")
        return result.to_dict()
