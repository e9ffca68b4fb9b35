"""Texts → sentence vectors, with a model alone: no other library is needed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from lambert.corpus.tokenizer_files import load_vocabulary
from lambert.corpus.vocabulary import special_tokens
from lambert.embeddings.pooling import SentencePooling, pooling_of
from lambert.embeddings.tables import first_few
from lambert.errors import UserError
from lambert.finetune.model import check_fit
from lambert.finetune.seeds import shuffled
from lambert.model.architectures import encoder
from lambert.model.bert import BertConfig
from lambert.model.huggingface import load_model, model_folder
from lambert.training.distributed.process_group import init_process_group
from lambert.training.malloc import apply_allocator_settings
from lambert.utils.tokenizer_calls import encode

log = logging.getLogger("lambert")
_TEXTS_AT_ONCE = 1_024
_BATCH_TOKENS = 1 << 14
"""Most tokens of a forward pass, unless a single text has more."""
_LEAST_TOKENS = 3
MOST = 2**32 - 1
"""The largest number taken for a size or a seed: NumPy's and PyTorch's generators know no larger seed."""

Progress = Callable[[int, int, float], None]
"""(texts done, texts in all, seconds)."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Sentence vectors, and what was read for them."""

    vectors: NDArray[np.float32]
    """[texts, H], in the order of the texts."""
    pooling: str
    normalized: bool
    sequence_length: int
    """Longest text in tokens, [CLS] and [SEP] included."""
    tokens: int
    """Of all texts, after truncation."""
    truncated: int
    """Texts that were longer."""
    empty: int
    """Texts without a token but [CLS] and [SEP]."""
    seconds: float


class _EncoderOnly(nn.Module):
    """An encoder as a folder without heads has it."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder(config)


@dataclass(frozen=True)
class SentenceEncoderModel:
    """A model, its tokenizer, and how it pools."""

    module: _EncoderOnly
    tokenizer: Tokenizer
    pooling: SentencePooling
    sequence_length: int

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        sequence_length: int | None = None,
        cased: bool = False,
    ) -> SentenceEncoderModel:
        """The model of a run, of a Hugging Face folder, or of one of sentence-transformers.

        Raises:
            UserError: it cannot be read, has no tokenizer, or the sequences do not fit it.
        """
        folder = model_folder(path)
        how = pooling_of(folder, mode=pooling, normalize=normalize)
        tokenizer = load_vocabulary(folder, cased=cased)
        module, _ = load_model(folder, _EncoderOnly)
        positions = module.config.maximum_positions
        length = min(how.sequence_length or positions, positions) if sequence_length is None else sequence_length
        if length < _LEAST_TOKENS:
            raise UserError(f"`sequence_length` = {length}", remedy=f"Give a whole number from {_LEAST_TOKENS}")
        check_fit(module, tokenizer, length)
        return cls(module.eval(), tokenizer, how, length)


def embed(
    model: str | Path,
    texts: Sequence[str],
    *,
    pooling: str | None = None,
    normalize: bool | None = None,
    sequence_length: int | None = None,
    batch_size: int = 64,
    cased: bool = False,
    device: torch.device | None = None,
) -> NDArray[np.float32]:
    """Sentence vectors [texts, hidden size], float32, in the order of the texts::

        vectors = lambert.embed("runs/mine", ["the first text", "the second"])

    They are those that `transformers` and sentence-transformers compute from the same folder, but for rounding. A
    special token that is written in a text, such as [SEP], is read as that token, as there.

    Args:
        model: a run, a Hugging Face folder, or one of sentence-transformers.
        texts: each at most `sequence_length` tokens; what is longer is truncated, and a warning says how many.
        pooling: `mean` over all real tokens, or `cls`. None: what the folder says; the mean where it says nothing.
        normalize: whether vectors get length 1, so that their dot product is the cosine. None: as the folder says.
        sequence_length: longest text in tokens, special tokens included; None: as the folder says, at most the
            model's positions.
        batch_size: texts of a forward pass: speed and memory.
        cased: how to read a folder that has only a `vocab.txt` and does not say.
        device: None chooses the GPU where there is one (untested on GPU).

    Raises:
        UserError: the model cannot be read, or there is no text.
    """
    opened = SentenceEncoderModel.open(
        Path(model), pooling=pooling, normalize=normalize, sequence_length=sequence_length, cased=cased
    )
    return embedded(opened, texts, batch_size=batch_size, device=device).vectors


def embedded(
    model: SentenceEncoderModel,
    texts: Sequence[str],
    *,
    batch_size: int = 64,
    device: torch.device | None = None,
    progress: Progress | None = None,
    quiet: bool = False,
) -> Embeddings:
    """See `embed`.

    Args:
        quiet: do not warn of truncated and empty texts.

    Raises:
        UserError: there is no text, or this is one of several processes.
    """
    if isinstance(texts, str) or not len(texts):
        raise UserError("no texts to embed", remedy="Give a list of at least one text")
    if batch_size < 1:
        raise UserError(f"`batch_size` = {batch_size}", remedy="Give a whole number from 1")
    processes = init_process_group()
    apply_allocator_settings()
    if processes.world_size > 1:
        raise UserError(f"embedding was started in {processes.world_size} processes", remedy="Start it in one")
    began = time.monotonic()
    sequences, truncated = _token_ids(model, texts)
    empty = [text for text, ids in zip(texts, sequences, strict=True) if len(ids) == 2]
    device = device or processes.device
    model.module.to(device)
    vectors = np.empty((len(texts), model.module.config.hidden_size), dtype=np.float32)
    done = 0
    for indices in _batches([len(ids) for ids in sequences], batch_size):
        vectors[indices] = _vectors(model, [sequences[index] for index in indices], device)
        done += len(indices)
        if progress is not None:
            progress(done, len(texts), time.monotonic() - began)
    _refuse_not_finite(vectors)
    result = Embeddings(
        vectors=vectors,
        pooling=model.pooling.mode,
        normalized=model.pooling.normalize,
        sequence_length=model.sequence_length,
        tokens=sum(map(len, sequences)),
        truncated=truncated,
        empty=len(empty),
        seconds=time.monotonic() - began,
    )
    if not quiet:
        _warn(result, empty)
    return result


def _token_ids(model: SentenceEncoderModel, texts: Sequence[str]) -> tuple[list[NDArray[np.int32]], int]:
    """The ids of each text, [CLS] and [SEP] included, and the number of texts that were truncated."""
    separate, sequences, truncated = special_tokens(model.tokenizer).separate, [], 0
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        for encoding in encode(model.tokenizer, texts[start : start + _TEXTS_AT_ONCE], special=True):
            ids = np.array(encoding.ids, dtype=np.int32)
            if len(ids) > model.sequence_length:
                ids, truncated = ids[: model.sequence_length].copy(), truncated + 1
                ids[-1] = separate
            sequences.append(ids)
    return sequences, truncated


def _batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of texts of similar length. The longest come first, so that memory runs out at once or not at all; the
    others in any order, so that the time left can be told.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches, first = [], 0
    while first < len(order):
        rows = min(batch_size, max(1, _BATCH_TOKENS // lengths[order[first]]))
        batches.append(order[first : first + rows])
        first += rows
    return [batches[0], *(batches[1 + place] for place in shuffled(len(batches) - 1, (0,)))]


@torch.no_grad()
def _vectors(
    model: SentenceEncoderModel, sequences: Sequence[NDArray[np.int32]], device: torch.device
) -> NDArray[np.float32]:
    lengths = torch.tensor([len(ids) for ids in sequences])
    width = -(-int(lengths.max()) // 8) * 8
    width = min(width, model.module.config.maximum_positions)
    token_ids = torch.full((len(sequences), width), special_tokens(model.tokenizer).pad)
    for row, ids in enumerate(sequences):
        token_ids[row, : len(ids)] = torch.from_numpy(ids)
    mask = torch.arange(width) < lengths[:, None]
    token_ids, on_device = token_ids.to(device), mask.to(device)
    hidden = model.module.encoder(token_ids, torch.zeros_like(token_ids), on_device, real_tokens=int(lengths.sum()))
    pooled: NDArray[np.float32] = model.pooling.pool(hidden, on_device).cpu().numpy()
    return pooled


def _refuse_not_finite(vectors: NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise UserError(
            f"the model makes vectors with NaN or infinity of {len(bad):,} texts, of text {bad[0] + 1:,} first",
            remedy="Its weights are damaged, or its training diverged: give another model or checkpoint",
        )


def _warn(result: Embeddings, empty: Sequence[str]) -> None:
    if result.truncated:
        log.warning(
            f"{result.truncated:,} of {len(result.vectors):,} texts have more than {result.sequence_length} tokens: "
            "their rest is not read"
        )
    if empty:
        log.warning(
            f"{len(empty):,} of {len(result.vectors):,} texts have no tokens ({first_few(empty)}): their vectors are "
            "those of [CLS] and [SEP] alone"
        )
