"""`lambert embed MODEL TEXTS --out VECTORS.npy`"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lambert.cli.finetune_progress import fine_tune_progress
from lambert.cli.subcommand import Subcommand, say
from lambert.utils.formatting import duration
from lambert.utils.io import check_room_for


@dataclass(frozen=True, kw_only=True)
class Embed(Subcommand):
    """Write the sentence vectors of texts: a row for each text."""

    model_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")]
    """A run, a Hugging Face folder, or one of sentence-transformers."""
    texts: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TEXTS")]
    """File with a text in each line, or JSON lines, CSV, TSV or Parquet; - reads lines from standard input."""
    out: Path
    """The .npy file for the vectors: float32 [texts, hidden size], for numpy.load."""
    column: str | None = None
    """Column of JSON lines, CSV, TSV and Parquet with the texts; otherwise text."""
    pooling: str | None = None
    """mean over all tokens of a text, or cls; otherwise what the folder says, and the mean where it says nothing."""
    normalize: bool = False
    """Give vectors length 1, so that their dot product is the cosine."""
    sequence_length: int | None = None
    """Longest text in tokens; otherwise what the folder says, and at most the model's positions."""
    batch_size: int = 64
    """Texts in a forward pass."""
    cased: bool = False
    """Read a model folder that has only a vocab.txt, and does not say, as cased."""

    def run(self) -> dict[str, Any]:
        """Results: `out`, `texts`, `hidden_size`, `pooling`, `normalized`, `sequence_length`, `tokens`, `truncated`,
        `empty`, `seconds`.
        """
        from lambert.embeddings.tables import read_texts
        from lambert.embeddings.vector_file import check_vector_file, write_vectors
        from lambert.embeddings.vectors import SentenceEncoderModel, embedded

        check_vector_file(self.out)
        model = SentenceEncoderModel.open(
            self.model_folder,
            pooling=self.pooling,
            normalize=self.normalize or None,
            sequence_length=self.sequence_length,
            cased=self.cased,
        )
        texts = read_texts(self.texts, self.column)
        needed = 4 * len(texts) * model.module.config.hidden_size
        check_room_for(self.out, needed, what=f"a file of {len(texts):,} vectors")
        with fine_tune_progress() as show:
            found = embedded(model, texts, batch_size=self.batch_size, progress=as_progress(show, str(self.texts)))
        write_vectors(self.out, found.vectors)
        count, hidden_size = found.vectors.shape
        how = f"{found.pooling} of the tokens" if found.pooling == "mean" else "[CLS]"
        say(f"{count:,} vectors of {hidden_size} numbers in {duration(found.seconds)} ({how}); {self.out}")
        return {"out": str(self.out), "texts": count, "hidden_size": hidden_size} | {
            name: value for name, value in vars(found).items() if name != "vectors"
        }


def as_progress(show: Callable[[Any], None], name: str) -> Callable[[int, int, float], None]:
    """Shows (done, total, seconds) of embedding as the progress of an evaluation, until the last."""
    from lambert.finetune.settings import FineTuneProgress

    def progress(done: int, total: int, seconds: float) -> None:
        if done < total:
            show(FineTuneProgress(0, "evaluating", done, total, seconds, run=name))

    return progress
