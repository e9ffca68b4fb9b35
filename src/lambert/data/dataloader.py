"""Global batches as micro-batches of tensors: sample number → example → padded rows.

Shapes: B sequences, S tokens in the longest of them (rounded up), M masked words in all.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lambert.corpus.store import Corpus
from lambert.data.dataset import ExampleSource, Rows
from lambert.data.full_sentences import WindowSource
from lambert.data.masking import Hidden
from lambert.data.objective import BERT_EXAMPLES, ExampleKind
from lambert.data.packing import pack
from lambert.data.sentence_pairs import PairSource
from lambert.data.shuffle import Shuffle

_ORDER_BLOCK = 4_096
_ORDER = 1
"""Sets the draws of the order apart from others that start from the same seed."""


@dataclass(frozen=True)
class PretrainingBatch:
    """What one forward pass of `BertForPreTraining` takes, and its answers."""

    token_ids: Tensor
    """[B, S] int64, 0 in the padding."""
    segment_ids: Tensor
    """[B, S] int64: 0 in A, 1 in B."""
    attention_mask: Tensor | None
    """[B, S] bool, True at real tokens; None when no row is padded."""
    masked_positions: Tensor
    """[M] int64 places in the flattened batch."""
    masked_labels: Tensor
    """[M] int64 ids that stood there."""
    next_sentence_labels: Tensor
    """[B] int64: 0 B follows A, 1 it does not; [0] where examples have no B."""
    real_tokens: int
    """Tokens that are not padding."""
    position_ids: Tensor | None = None
    """[B, S] int64 place of each token in its example; None, as the two that follow, where a row is one example."""
    example_of: Tensor | None = None
    """[B, S] int64 number of the example in the batch, which attends to itself alone; −1 in the padding."""
    first_positions: Tensor | None = None
    """[examples] int64 where each example begins in the flattened batch."""

    def packing(self) -> dict[str, Tensor]:
        """What a model needs to know where rows hold several examples; nothing where they do not."""
        names = ("position_ids", "example_of", "first_positions")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def counts(self) -> dict[str, int]:
        """How many terms each loss sums over in this micro-batch; a loss that is not asked for is left out."""
        counts = {"masked_word": len(self.masked_labels), "next_sentence": len(self.next_sentence_labels)}
        return {kind: count for kind, count in counts.items() if kind == "masked_word" or count}

    def to(self, device: torch.device) -> PretrainingBatch:
        """The same batch on `device`."""
        if device.type == "cpu":
            return self
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
        return replace(self, **moved)


def as_batch(parts: Sequence[Rows], *, pad_id: int, packs: bool = False) -> PretrainingBatch:
    """Rows as one batch of tensors; several parts are padded to the widest of them, or packed where that saves rows."""
    rows = parts[0] if len(parts) == 1 else _joined(parts, pad_id)
    if packs and (packed := pack(rows, pad_id=pad_id)) is not None:
        return PretrainingBatch(
            token_ids=torch.from_numpy(packed.token_ids),
            segment_ids=torch.from_numpy(packed.segment_ids),
            attention_mask=None,
            masked_positions=torch.from_numpy(packed.hidden.places),
            masked_labels=torch.from_numpy(packed.hidden.labels),
            next_sentence_labels=torch.from_numpy(_labels(rows)),
            real_tokens=int(rows.lengths.sum()),
            position_ids=torch.from_numpy(packed.position_ids),
            example_of=torch.from_numpy(packed.example_of),
            first_positions=torch.from_numpy(packed.first_positions),
        )
    width = rows.token_ids.shape[1]
    columns = np.arange(width)
    in_row = columns < rows.lengths[:, None]
    segment_ids = (in_row & (columns >= rows.second_segment_starts[:, None])).astype(np.int64)
    return PretrainingBatch(
        token_ids=torch.from_numpy(rows.token_ids),
        segment_ids=torch.from_numpy(segment_ids),
        attention_mask=None if (rows.lengths == width).all() else torch.from_numpy(in_row),
        masked_positions=torch.from_numpy(rows.hidden.places),
        masked_labels=torch.from_numpy(rows.hidden.labels),
        next_sentence_labels=torch.from_numpy(_labels(rows)),
        real_tokens=int(rows.lengths.sum()),
    )


def _labels(rows: Rows) -> NDArray[np.int64]:
    return np.zeros(0, np.int64) if rows.is_wrong_next is None else rows.is_wrong_next.astype(np.int64)


def _joined(parts: Sequence[Rows], pad_id: int) -> Rows:
    width = max(part.token_ids.shape[1] for part in parts)
    ids, places, rows_before = [], [], 0
    for part in parts:
        own = part.token_ids.shape[1]
        ids.append(np.pad(part.token_ids, ((0, 0), (0, width - own)), constant_values=pad_id))
        row, column = np.divmod(part.hidden.places, own)
        places.append((rows_before + row) * width + column)
        rows_before += len(part.lengths)
    return Rows(
        np.concatenate(ids),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.second_segment_starts for part in parts]),
        Hidden(np.concatenate(places), np.concatenate([part.hidden.labels for part in parts])),
        None if parts[0].is_wrong_next is None else np.concatenate([_labels(part) for part in parts]) == 1,
    )


def example_source(
    corpus: Corpus,
    split_name: str,
    *,
    sequence_length: int,
    seed: int,
    phase: int,
    kind: ExampleKind = BERT_EXAMPLES,
    all_masked: bool = False,
) -> ExampleSource:
    """The examples of one split at one sequence length, as `ExampleSource` describes them."""
    source = WindowSource if kind.pairing == "none" else PairSource
    return source(
        corpus,
        split_name,
        sequence_length=sequence_length,
        seed=seed,
        phase=phase,
        kind=kind,
        all_masked=all_masked,
    )


class SampleStream:
    """The endless, shuffled stream of a phase's samples: each pass shows every example once.

    Sample g is example `shuffle_e(g mod n)` of pass e = g div n, whoever asks and in whatever portions.
    """

    def __init__(self, examples: ExampleSource, *, packs: bool = False) -> None:
        self.examples = examples
        self.packs = packs
        # The order is computed block by block, since a permutation is asked for many positions at once more cheaply.
        self._order_block = functools.lru_cache(maxsize=4)(self._ordered)

    def batch(self, first: int, count: int) -> PretrainingBatch:
        """Samples first … first + count − 1 (from 0) as one batch."""
        parts = [self.examples.rows(number, indices) for number, indices in self.order(first, count)]
        return as_batch(parts, pad_id=self.examples.special.pad, packs=self.packs)

    def order(self, first: int, count: int) -> list[tuple[int, NDArray[np.int64]]]:
        """Which examples samples first … first + count − 1 are: for each pass they lie in, its number and indices."""
        numbers = np.arange(first, first + count)
        parts = []
        for pass_number in range(first // len(self.examples), (first + count - 1) // len(self.examples) + 1):
            positions = numbers[numbers // len(self.examples) == pass_number] % len(self.examples)
            parts.append((pass_number, self._indices(pass_number, positions)))
        return parts

    def _indices(self, pass_number: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which examples stand at `positions` (rising) of a pass."""
        blocks = range(int(positions[0]) // _ORDER_BLOCK, int(positions[-1]) // _ORDER_BLOCK + 1)
        ordered = np.concatenate([self._order_block(pass_number, block) for block in blocks])
        return ordered[positions - blocks[0] * _ORDER_BLOCK]

    def _ordered(self, pass_number: int, block: int) -> NDArray[np.int64]:
        shuffle = Shuffle(len(self.examples), (_ORDER, self.examples.seed, self.examples.phase, pass_number))
        return shuffle(np.arange(block * _ORDER_BLOCK, min((block + 1) * _ORDER_BLOCK, len(self.examples))))
