"""Packed rows hold the same examples, and a model makes the same of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch, SampleStream, example_source
from lambert.data.objective import ObjectiveConfig
from lambert.data.packing import _best_fit, pack
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.training.step.pretraining_loss import pretraining_task


def batches(corpus: Corpus, pairing: str) -> tuple[PretrainingBatch, PretrainingBatch]:
    """The same 24 samples, one a row and packed."""
    kind = ObjectiveConfig(pairing=pairing)
    source = example_source(corpus, "held_out", sequence_length=256, seed=0, phase=1, objective=kind)
    plain, packed = (SampleStream(source, packs=packs).batch(0, 24) for packs in (False, True))
    return plain, packed


@given(st.lists(st.integers(4, 64), min_size=1, max_size=60))
def test_no_two_examples_overlap_and_rows_are_few(lengths: list[int]) -> None:
    row_of, start_of = _best_fit(np.array(lengths), 64)
    taken = np.zeros((len(lengths), 64), int)
    for row, start, length in zip(row_of, start_of, lengths, strict=True):
        assert start + length <= 64
        taken[row, start : start + length] += 1
    assert taken.max() == 1
    used = int(row_of.max()) + 1
    assert (taken.sum(1) > 0).sum() == used
    assert used <= 2 * -(-sum(lengths) // 64)  # at most one row is half empty


def test_rows_hold_the_same_examples(small_corpus: Corpus) -> None:
    source = example_source(small_corpus, "train", sequence_length=256, seed=0, phase=1)
    rows = source.rows(0, np.arange(60))
    packed = pack(rows, pad_id=source.special.pad)
    assert packed is not None and len(packed.token_ids) < 50
    labels = iter(packed.masked.labels)
    places = iter(packed.masked.positions)
    flat = packed.token_ids.reshape(-1)
    for number, (length, second) in enumerate(zip(rows.lengths, rows.second_segment_starts, strict=True)):
        at = np.flatnonzero(packed.sequence_ids == number)
        assert at[0] == packed.first_positions[number] and np.array_equal(at, np.arange(at[0], at[0] + length))
        assert np.array_equal(flat[at], rows.token_ids[number, :length])
        assert np.array_equal(packed.position_ids.reshape(-1)[at], np.arange(length))
        assert np.array_equal(packed.segment_ids.reshape(-1)[at], np.arange(length) >= second)
        for place, label in zip(rows.masked.positions, rows.masked.labels, strict=True):
            if place // rows.token_ids.shape[1] == number:
                assert next(labels) == label
                assert next(places) - at[0] == place % rows.token_ids.shape[1]
    padding = packed.sequence_ids < 0
    assert (packed.token_ids[padding] == source.special.pad).all() and not packed.segment_ids[padding].any()


@pytest.mark.parametrize("pairing", ["nsp", "none"])
@pytest.mark.parametrize(("hidden_size", "kind"), [(32, torch.float64), (128, torch.float32)])  # the second by loops
def test_losses_and_gradients_are_those_of_one_example_a_row(
    small_corpus: Corpus, pairing: str, hidden_size: int, kind: torch.dtype
) -> None:
    plain, packed = batches(small_corpus, pairing)
    assert packed.first_positions is not None and len(packed.token_ids) < len(plain.token_ids)
    assert packed.real_tokens == plain.real_tokens and packed.counts() == plain.counts()
    torch.manual_seed(1)
    config = BertConfig(
        vocabulary_size=small_corpus.vocabulary_size, layers=2, hidden_size=hidden_size, attention_heads=2,
        feed_forward_size=64, dropout=0.0,
    )  # fmt: skip
    model = BertForPreTraining(config).to(kind)
    gradients = []
    for batch in (plain, packed):
        model.zero_grad()
        output = pretraining_task(model, batch)
        losses = {kind: value.item() for kind, value in output.loss_sums.items()}
        (output.loss_sums["mlm"] + output.loss_sums.get("nsp", torch.zeros(()))).backward()
        gradients.append((losses, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (plain_losses, ours), (packed_losses, theirs) = gradients
    assert packed_losses == pytest.approx(plain_losses, rel=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-6  # the keys' bias has a gradient of rounding only


def test_full_rows_are_left_alone(small_corpus: Corpus) -> None:
    source = example_source(small_corpus, "train", sequence_length=16, seed=0, phase=1)
    full = np.flatnonzero(source.rows(0, np.arange(len(source))).lengths == 16)[:8]
    assert pack(source.rows(0, full), pad_id=0) is None
