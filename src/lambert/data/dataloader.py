"""Batches of tensors: sample index → example → padded or packed rows.

Shapes: B sequences, S tokens in the longest of them (rounded up), M masked tokens in all. With fixed shapes S is the
sequence length and M what B sequences can have at most.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lambert.corpus.store import Corpus
from lambert.corpus.vocabulary import SpecialTokens
from lambert.data.dataset import ROW_MULTIPLE, ExampleSource, Index, Rows
from lambert.data.full_sentences import WindowSource
from lambert.data.mask_schedule import MaskSchedule
from lambert.data.masking import MaskedTokens, key_bits, max_predictions
from lambert.data.objective import BERT_OBJECTIVE, ObjectiveConfig
from lambert.data.packing import pack
from lambert.data.sentence_pairs import PairSource
from lambert.data.shuffle import Shuffle

IGNORED = -100
"""Label of masked positions that are padding; cross-entropy's default."""
_ORDER_BLOCK = 4_096
_ORDER = 1
"""Separates the draws of the order from others that start from the same seed."""


@dataclass(frozen=True)
class PretrainingBatch:
    """The input of one forward pass of `PreTrainingModel`, and its labels."""

    token_ids: Tensor
    """[B, S] int64, 0 in the padding."""
    segment_ids: Tensor
    """[B, S] int64: 0 in A, 1 in B."""
    attention_mask: Tensor | None
    """[B, S] bool, True at real tokens; None when no row is padded."""
    masked_positions: Tensor
    """[M] int64 in the flattened batch; 0 in the padding."""
    masked_labels: Tensor
    """[M] int64 original ids; `IGNORED` in the padding."""
    next_sentence_labels: Tensor
    """[B] int64: 0 if B follows A, else 1; [0] where examples have no B."""
    real_tokens: int
    """Tokens that are not padding."""
    position_ids: Tensor | None = None
    """[B, S] int64 position of each token in its example; this and the next two are None unless rows are packed."""
    sequence_ids: Tensor | None = None
    """[B, S] int64 number of the example in the batch, for block-diagonal attention; −1 in the padding."""
    first_positions: Tensor | None = None
    """[examples] int64 where each example begins in the flattened batch."""
    is_mask: Tensor | None = None
    """[M] bool: [MASK] stands at the masked position, neither the token itself nor a random one, nor padding."""
    masked_padding: int = 0
    """How many of M are padding, at the end; their label is `IGNORED`."""

    def packing(self) -> dict[str, Tensor]:
        """The model's arguments for packed rows; empty where rows are single examples."""
        names = ("position_ids", "sequence_ids", "first_positions")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def masked_tokens(self) -> int:
        """Masked tokens that are not padding."""
        return len(self.masked_labels) - self.masked_padding

    def counts(self) -> dict[str, int]:
        """Number of terms of each loss in this micro-batch; a loss that the objective lacks is left out.

        `mask` is the part of `mlm` at [MASK] tokens.
        """
        counts = {"mlm": self.masked_tokens}
        if self.is_mask is not None:
            counts["mask"] = int(self.is_mask.sum())
        if len(self.next_sentence_labels):
            counts["nsp"] = len(self.next_sentence_labels)
        return counts

    def padded(self, length: int, masked_tokens: int) -> PretrainingBatch:
        """The same rows with `length` tokens each, and with at least so many masked tokens; not for packed rows.

        No loss or count includes the padding.
        """
        assert self.sequence_ids is None
        rows, own = self.token_ids.shape
        columns, more = max(0, length - own), max(0, masked_tokens - len(self.masked_labels))
        token_ids, segment_ids, positions = self.token_ids, self.segment_ids, self.masked_positions
        in_row = torch.ones(rows, own, dtype=torch.bool) if self.attention_mask is None else self.attention_mask
        if columns:
            token_ids, segment_ids, in_row = (
                functional.pad(each, (0, columns)) for each in (token_ids, segment_ids, in_row)
            )
            positions = positions + positions // own * columns
        return replace(
            self,
            token_ids=token_ids,
            segment_ids=segment_ids,
            attention_mask=in_row,
            masked_positions=functional.pad(positions, (0, more)),
            masked_labels=functional.pad(self.masked_labels, (0, more), value=IGNORED),
            is_mask=None if self.is_mask is None else functional.pad(self.is_mask, (0, more)),
            masked_padding=self.masked_padding + more,
        )

    def to(self, device: torch.device) -> PretrainingBatch:
        """The same batch on `device`."""
        if device.type == "cpu":
            return self
        batch = self.pin_memory() if device.type == "cuda" else self
        return batch._each(lambda own: own.to(device, non_blocking=True))

    def pin_memory(self) -> PretrainingBatch:
        """The same batch in page-locked memory, from which a GPU copies while the host works."""
        return self._each(lambda tensor: tensor.pin_memory())

    def clone(self) -> PretrainingBatch:
        """The same batch in memory of its own."""
        return self._each(torch.clone)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Its tensors and its numbers by name; a tensor that it lacks is left out."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        return tensors, {name: value for name, value in given.items() if name not in tensors}

    def _each(self, change: Callable[[Tensor], Tensor]) -> PretrainingBatch:
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in self.parts()[0].items()}
        return replace(self, **changed)


def as_batch(parts: Sequence[Rows], *, special: SpecialTokens, packs: bool = False) -> PretrainingBatch:
    """Rows as one batch of tensors; several parts are padded to the widest, or packed where that saves rows."""
    rows = parts[0] if len(parts) == 1 else _joined(parts, special.pad)
    if packs and (packed := pack(rows, pad_id=special.pad)) is not None:
        return PretrainingBatch(
            token_ids=torch.from_numpy(packed.token_ids),
            segment_ids=torch.from_numpy(packed.segment_ids),
            attention_mask=None,
            masked_positions=torch.from_numpy(packed.masked.positions),
            masked_labels=torch.from_numpy(packed.masked.labels),
            next_sentence_labels=torch.from_numpy(_labels(rows)),
            real_tokens=int(rows.lengths.sum()),
            position_ids=torch.from_numpy(packed.position_ids),
            sequence_ids=torch.from_numpy(packed.sequence_ids),
            first_positions=torch.from_numpy(packed.first_positions),
            is_mask=_is_mask(packed.token_ids, packed.masked, special),
        )
    width = rows.token_ids.shape[1]
    columns = np.arange(width)
    in_row = columns < rows.lengths[:, None]
    segment_ids = (in_row & (columns >= rows.second_segment_starts[:, None])).astype(np.int64)
    return PretrainingBatch(
        token_ids=torch.from_numpy(rows.token_ids),
        segment_ids=torch.from_numpy(segment_ids),
        attention_mask=None if (rows.lengths == width).all() else torch.from_numpy(in_row),
        masked_positions=torch.from_numpy(rows.masked.positions),
        masked_labels=torch.from_numpy(rows.masked.labels),
        next_sentence_labels=torch.from_numpy(_labels(rows)),
        real_tokens=int(rows.lengths.sum()),
        is_mask=_is_mask(rows.token_ids, rows.masked, special),
    )


def _is_mask(token_ids: NDArray[np.int64], masked: MaskedTokens, special: SpecialTokens) -> Tensor:
    return torch.from_numpy(token_ids.reshape(-1)[masked.positions] == special.mask)


def _labels(rows: Rows) -> NDArray[np.int64]:
    return np.zeros(0, np.int64) if rows.is_random_next is None else rows.is_random_next.astype(np.int64)


def _joined(parts: Sequence[Rows], pad_id: int) -> Rows:
    width = max(part.token_ids.shape[1] for part in parts)
    ids, positions, rows_before = [], [], 0
    for part in parts:
        own = part.token_ids.shape[1]
        ids.append(np.pad(part.token_ids, ((0, 0), (0, width - own)), constant_values=pad_id))
        row, column = np.divmod(part.masked.positions, own)
        positions.append((rows_before + row) * width + column)
        rows_before += len(part.lengths)
    return Rows(
        np.concatenate(ids),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.second_segment_starts for part in parts]),
        MaskedTokens(np.concatenate(positions), np.concatenate([part.masked.labels for part in parts])),
        None if parts[0].is_random_next is None else np.concatenate([_labels(part) for part in parts]) == 1,
    )


def example_source(
    corpus: Corpus,
    split_name: str,
    *,
    sequence_length: int,
    seed: int,
    phase: int,
    objective: ObjectiveConfig = BERT_OBJECTIVE,
    all_masked: bool = False,
    index: Index | None = None,
) -> ExampleSource:
    """The examples of one split at one sequence length, as `ExampleSource` describes them."""
    source: Callable[..., ExampleSource] = PairSource if objective.has_pairs else WindowSource
    return source(
        corpus,
        split_name,
        sequence_length=sequence_length,
        seed=seed,
        phase=phase,
        objective=objective,
        all_masked=all_masked,
        index=index,
    )


class SampleStream:
    """The endless, shuffled stream of a phase's samples: each epoch has every example once.

    Sample g is example `shuffle_e(g mod n)` of epoch e = g div n, regardless of the caller and of batch boundaries.

    Args:
        packs: pack short examples where that saves rows.
        fixed_shapes: give all batches of as many rows the same shapes, for devices that compile for each shape. Packed
            rows keep their own.
        mask_schedule: the masked fraction of each sample; that of the objective when None.
    """

    def __init__(
        self,
        examples: ExampleSource,
        *,
        packs: bool = False,
        fixed_shapes: bool = False,
        mask_schedule: MaskSchedule | None = None,
    ) -> None:
        self.examples = examples
        self.mask_schedule = mask_schedule
        self.packs, self.fixed_shapes = packs, fixed_shapes
        # The order is computed in blocks: many positions of a permutation at once are cheaper.
        self._order_block = functools.lru_cache(maxsize=4)(self._ordered)

    def batch(self, first: int, count: int) -> PretrainingBatch:
        """Samples first … first + count − 1 (from 0) as one batch."""
        return self._batch(self._rows(first, count))

    def batches(self, first: int, counts: Sequence[int]) -> list[PretrainingBatch]:
        """Batches of `counts` samples, one after another from sample `first` on: those of `batch`, in less time.

        What is computed for many examples at once is computed for all of them.
        """
        starts = list(itertools.accumulate(counts, initial=first))[:-1]
        length, count = len(self.examples), sum(counts)
        is_one_epoch = first // length == (first + count - 1) // length
        if len(counts) == 1 or not is_one_epoch or self.examples.objective.masking == "whole_word":
            return [self.batch(start, count) for start, count in zip(starts, counts, strict=True)]
        (rows,) = self._rows(first, count)
        parts = [rows.part(start - first, start - first + count) for start, count in zip(starts, counts, strict=True)]
        made = []
        for start, count, part in zip(starts, counts, parts, strict=True):
            is_same = key_bits(part.token_ids.shape[1]) == key_bits(rows.token_ids.shape[1])
            made.append(self._batch([part]) if is_same else self.batch(start, count))
        return made

    def _batch(self, parts: Sequence[Rows]) -> PretrainingBatch:
        batch = as_batch(parts, special=self.examples.special, packs=self.packs)
        if not self.fixed_shapes or self.packs:
            return batch
        length, schedule = self.examples.sequence_length, self.mask_schedule
        largest = self.examples.objective.mlm_probability if schedule is None else schedule.largest
        per_row = max_predictions(length, largest)
        return batch.padded(-(-length // ROW_MULTIPLE) * ROW_MULTIPLE, len(batch.token_ids) * per_row)

    def _rows(self, first: int, count: int) -> list[Rows]:
        """The examples of samples first … first + count − 1, of each epoch together."""
        epochs = self.order(first, count)
        if self.mask_schedule is None:
            return [self.examples.rows(number, indices) for number, indices in epochs]
        bounds = np.cumsum([len(indices) for _, indices in epochs])[:-1]
        fractions = np.split(self.mask_schedule.fractions(first, count), bounds)
        return [
            self.examples.rows(number, indices, own) for (number, indices), own in zip(epochs, fractions, strict=True)
        ]

    def order(self, first: int, count: int) -> list[tuple[int, NDArray[np.int64]]]:
        """The examples of samples first … first + count − 1, as (epoch, indices) pairs."""
        numbers = np.arange(first, first + count)
        parts = []
        for epoch in range(first // len(self.examples), (first + count - 1) // len(self.examples) + 1):
            positions = numbers[numbers // len(self.examples) == epoch] % len(self.examples)
            parts.append((epoch, self._indices(epoch, positions)))
        return parts

    def _indices(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The examples at `positions` (rising) of an epoch."""
        blocks = range(int(positions[0]) // _ORDER_BLOCK, int(positions[-1]) // _ORDER_BLOCK + 1)
        ordered = np.concatenate([self._order_block(epoch, block) for block in blocks])
        return ordered[positions - blocks[0] * _ORDER_BLOCK]

    def _ordered(self, epoch: int, block: int) -> NDArray[np.int64]:
        shuffle = Shuffle(len(self.examples), (_ORDER, self.examples.seed, self.examples.phase, epoch))
        return shuffle(np.arange(block * _ORDER_BLOCK, min((block + 1) * _ORDER_BLOCK, len(self.examples))))
