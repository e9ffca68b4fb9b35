"""From sample numbers to padded tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lambert.corpus.store import Corpus
from lambert.data.dataloader import SampleStream, as_batch, example_source
from lambert.data.dataset import Rows
from lambert.data.mask_schedule import MaskSchedule
from lambert.data.masking import max_predictions
from lambert.data.objective import ObjectiveConfig


def stream(corpus: Corpus) -> SampleStream:
    return SampleStream(example_source(corpus, "train", sequence_length=64, seed=0, phase=1))


def test_a_batch_holds_its_examples_and_padding(small_corpus: Corpus) -> None:
    pairs = stream(small_corpus).examples
    by_length = np.argsort(pairs.rows(0, np.arange(len(pairs))).lengths)
    chosen = by_length[[0, -1, *range(10, 14)]]  # rows of unequal length
    examples = [pairs.example(0, int(index)) for index in chosen]
    batch = as_batch([pairs.rows(0, chosen[:1]), pairs.rows(0, chosen[1:])], special=pairs.special)
    rows, width = batch.token_ids.shape
    assert rows == 6 and width % 8 == 0
    assert batch.attention_mask is not None
    assert batch.real_tokens == sum(len(e.token_ids) for e in examples) == int(batch.attention_mask.sum())
    flat = batch.token_ids.flatten()
    offset = 0
    for row, example in enumerate(examples):
        length = len(example.token_ids)
        assert batch.token_ids[row, :length].tolist() == example.token_ids.tolist()
        assert batch.token_ids[row, length:].eq(pairs.special.pad).all()
        assert batch.segment_ids[row, : example.second_segment_start].eq(0).all()
        assert batch.segment_ids[row, example.second_segment_start : length].eq(1).all()
        count = len(example.masked_positions)
        here = batch.masked_positions[offset : offset + count]
        assert flat[here].tolist() == example.token_ids[example.masked_positions].tolist()
        assert batch.masked_labels[offset : offset + count].tolist() == example.masked_labels.tolist()
        assert batch.next_sentence_labels[row].item() == int(example.is_random_next)
        offset += count
    assert batch.counts() == {"mlm": offset, "mask": int((flat == pairs.special.mask).sum()), "nsp": 6}


def test_no_mask_when_nothing_is_padded(small_corpus: Corpus) -> None:
    pairs = stream(small_corpus).examples
    full = np.flatnonzero(pairs.rows(0, np.arange(len(pairs))).lengths == 64)[:3]
    assert as_batch([pairs.rows(0, full)], special=pairs.special).attention_mask is None


def test_portions_do_not_matter(small_corpus: Corpus) -> None:
    whole = stream(small_corpus).batch(0, 24)
    other = stream(small_corpus)
    rows = [other.batch(start, 6).token_ids for start in (18, 0, 12, 6)]  # in another order, too
    for place, part in zip((18, 0, 12, 6), rows, strict=True):
        width = part.shape[1]
        assert torch.equal(whole.token_ids[place : place + 6, :width], part)


def test_a_pass_shows_every_example_once_and_the_next_masks_afresh(small_corpus: Corpus) -> None:
    samples = stream(small_corpus)
    count = len(samples.examples)
    spy: list[tuple[int, int]] = []
    rows, example = samples.examples.rows, samples.examples.example

    def record(epoch: int, indices: np.ndarray) -> Rows:
        spy.extend((epoch, int(index)) for index in indices)
        return rows(epoch, indices)

    samples.examples.rows = record  # type: ignore[method-assign]
    samples.batch(0, count)
    samples.batch(count - 3, 10)  # over the border of two passes
    assert sorted(index for _, index in spy[:count]) == list(range(count))
    assert [epoch for epoch, _ in spy[count:]] == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert spy[count : count + 3] == spy[count - 3 : count]
    first, second = example(0, 5), example(1, 5)
    assert not np.array_equal(first.masked_positions, second.masked_positions)


FALLING = MaskSchedule(0.4, 0.1, total_steps=60, first_step=11, last_step=60, batch_size=8)


@pytest.mark.parametrize("schedule", [None, FALLING])
@pytest.mark.parametrize("masking", ["token", "whole_word", "span"])
@pytest.mark.parametrize(
    ("pairing", "packs", "fixed"), [("nsp", False, True), ("sop", True, False), ("none", False, False)]
)
def test_many_batches_at_once_are_those_made_one_by_one(
    small_corpus: Corpus, masking: str, pairing: str, packs: bool, fixed: bool, schedule: MaskSchedule | None
) -> None:
    """Of any sizes, with rows of other widths than their neighbours', and past the end of an epoch."""
    objective = ObjectiveConfig(pairing=pairing, masking=masking)
    source = example_source(small_corpus, "train", sequence_length=128, seed=1, phase=1, objective=objective)
    stream = SampleStream(source, packs=packs, fixed_shapes=fixed, mask_schedule=schedule)
    widths = set()
    for first, counts in ((0, [1] * 30), (7, [5, 1, 9]), (len(source) - 6, [4, 4]), (2, [20])):
        starts = [first + sum(counts[:at]) for at in range(len(counts))]
        for made, start, count in zip(stream.batches(first, counts), starts, counts, strict=True):
            one = stream.batch(start, count)
            widths.add(source.rows(0, stream.order(start, count)[0][1]).token_ids.shape[1])
            assert made.parts()[1] == one.parts()[1] and made.parts()[0].keys() == one.parts()[0].keys()
            assert all(torch.equal(tensor, one.parts()[0][name]) for name, tensor in made.parts()[0].items())
    assert min(widths) <= 64 < max(widths)


@pytest.mark.parametrize("masking", ["token", "span"])
def test_each_sample_has_the_masked_fraction_of_its_step(small_corpus: Corpus, masking: str) -> None:
    """Restated from lengths and steps. The example is that of another fraction, and masks the same tokens first."""
    objective = ObjectiveConfig(pairing="none", masking=masking, mlm_probability=0.4, mlm_probability_end=0.1)
    source = example_source(small_corpus, "train", sequence_length=64, seed=0, phase=1, objective=objective)
    stream = SampleStream(source, mask_schedule=FALLING)
    count = len(source) + 9
    for sample in (0, 7, 8, 100, len(source) - 1, len(source), count):
        fraction = 0.4 - 0.3 * (10 + sample // 8) / 60
        batch = stream.batch(sample, 1)
        wanted = max(1, min(round(batch.real_tokens * fraction), round(10 * fraction / 0.15)))
        assert batch.masked_tokens == wanted
        text = batch.token_ids.flatten().clone()
        text[batch.masked_positions] = batch.masked_labels
        ((epoch, index),) = stream.order(sample, 1)
        other = source.rows(epoch, index)
        original = other.token_ids.reshape(-1).copy()
        original[other.masked.positions] = other.masked.labels
        assert text.tolist() == original.tolist()
        if masking == "token":
            assert set(batch.masked_positions.tolist()) <= set(other.masked.positions.tolist())


@pytest.mark.parametrize(("start", "end"), [(0.4, 0.1), (0.1, 0.4)])
def test_batches_of_one_shape_have_room_for_the_largest_fraction_of_the_phase(
    small_corpus: Corpus, start: float, end: float
) -> None:
    source = example_source(small_corpus, "train", sequence_length=64, seed=0, phase=1)
    schedule = MaskSchedule(start, end, total_steps=60, first_step=11, last_step=30, batch_size=8)
    stream = SampleStream(source, fixed_shapes=True, mask_schedule=schedule)
    shapes = {tuple(stream.batch(8 * step, 8).masked_labels.shape) for step in range(20)}
    largest = start + (end - start) * (10 if start > end else 29) / 60
    assert shapes == {(8 * max_predictions(64, largest),)}
