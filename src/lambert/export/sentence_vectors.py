"""A model in the layout of sentence-transformers, opened again by that library (the extra `embed`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lambert.corpus.tokenizer_files import probe_lines
from lambert.embeddings.library import library_model, plain_folder, quiet, save_for_library
from lambert.embeddings.vectors import SentenceEncoderModel, embedded
from lambert.errors import UserError

_TEXTS = 64
_TOLERANCE = 1e-3
"""Of the largest number in the vectors."""


def write_for_sentence_transformers(
    folder: Path, out: Path, *, pooling: str | None = None, cased: bool = False
) -> SentenceEncoderModel:
    """Write the encoder of a Hugging Face folder into the folder `out`, which `SentenceTransformer(out)` opens.

    It is opened again, by that library and by lambert, and must give the vectors that lambert computes from `folder`.

    Args:
        pooling: `mean` or `cls`; None: as `folder` says, and the mean where it says nothing.
        cased: how to read a folder that has only a `vocab.txt` and does not say.

    Raises:
        UserError: the model cannot be read, or vectors differ.
    """
    from sentence_transformers import SentenceTransformer

    model = SentenceEncoderModel.open(folder, pooling=pooling, cased=cased)
    device = torch.device("cpu")
    positions = model.module.config.maximum_positions
    with quiet(), plain_folder(folder, model.tokenizer, positions=positions) as plain:
        save_for_library(library_model(plain, model, device)[0].auto_model, model, out)
        lines = probe_lines(model.tokenizer)[:_TEXTS]
        expected = embedded(model, lines, device=device, quiet=True).vectors
        again = embedded(SentenceEncoderModel.open(out), lines, device=device, quiet=True).vectors
        theirs = SentenceTransformer(str(out), device="cpu").encode(lines, show_progress_bar=False)
    for name, found in (("lambert", again), ("sentence-transformers", theirs)):
        difference = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
        if not difference <= _TOLERANCE:
            raise UserError(
                f"{name} reads other vectors from the export (by {difference:.2g})",
                remedy="Use other versions of transformers and sentence-transformers",
            )
    return model
