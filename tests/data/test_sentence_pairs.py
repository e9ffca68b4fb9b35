"""Examples against BERT's semantics: structure, next-sentence labels, lengths and masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambert.corpus.store import Corpus
from lambert.corpus.vocabulary import SpecialTokens
from lambert.data.counter_rng import CounterRNG
from lambert.data.dataset import Example
from lambert.data.masking import max_predictions, prediction_counts
from lambert.data.segmentation import target_tokens
from lambert.data.sentence_pairs import PairSource, removed_tokens


def source(corpus: Corpus, *, length: int = 64, seed: int = 0, phase: int = 1, split: str = "train") -> PairSource:
    return PairSource(corpus, split, sequence_length=length, seed=seed, phase=phase)


def unmasked(example: Example) -> np.ndarray:
    ids = example.token_ids.copy()
    ids[example.masked_positions] = example.masked_labels
    return ids


def segments(example: Example, special: SpecialTokens) -> tuple[list[int], list[int]]:
    ids, start = unmasked(example), example.second_segment_start
    assert ids[0] == special.classify and ids[start - 1] == special.separate and ids[-1] == special.separate
    return ids[1 : start - 1].tolist(), ids[start:-1].tolist()


def places(text: list[int], tokens: list[int]) -> list[int]:
    """Where `text` occurs in `tokens`."""
    return [i for i in range(len(tokens) - len(text) + 1) if tokens[i : i + len(text)] == text]


def test_an_example_is_two_segments_of_the_corpus(small_corpus: Corpus) -> None:
    pairs = source(small_corpus)
    split = small_corpus.split("train")
    tokens = split.tokens(0, split.token_count).tolist()
    document_of = np.repeat(
        np.arange(split.document_count),
        np.diff(split.sentence_offsets[split.document_offsets]),
    )
    seen = {True: 0, False: 0}
    for index in range(len(pairs)):
        example = pairs.example(0, index)
        assert len(example.token_ids) <= 64
        a, b = segments(example, pairs.special)
        assert a and b
        a_documents = {document_of[place] for place in places(a, tokens)}
        b_documents = {document_of[place] for place in places(b, tokens)}
        assert a_documents and b_documents
        seen[example.is_random_next] += 1
        if not example.is_random_next:
            assert a_documents & b_documents
        elif len(b) > 5:
            assert b_documents - a_documents
    assert min(seen.values()) > 10


def test_b_follows_a_when_it_is_not_random(small_corpus: Corpus) -> None:
    pairs = source(small_corpus, length=512)
    split = small_corpus.split("train")
    tokens = split.tokens(0, split.token_count).tolist()
    checked = 0
    for index in range(len(pairs)):
        example = pairs.example(0, index)
        a, b = segments(example, pairs.special)
        if not example.is_random_next and len(a) + len(b) < 500:  # nothing was cut off
            assert places(a + b, tokens)
            checked += 1
    assert checked > 5


def bounds(pairs: PairSource) -> tuple[np.ndarray, np.ndarray]:
    return pairs.segmentation.bounds(np.arange(len(pairs)))


def target_of_runs(pairs: PairSource, first: np.ndarray) -> np.ndarray:
    documents = np.searchsorted(pairs.split.document_offsets, first, side="right") - 1
    return target_tokens(documents, pairs.sequence_length - 3, seed=pairs.seed, phase=pairs.phase)


def test_the_cut_covers_every_sentence_once(small_corpus: Corpus) -> None:
    """Sentences that lose their place to a random partner are put back: the next run begins with them."""
    sentences = np.concatenate([np.arange(a, b) for a, b in zip(*bounds(source(small_corpus)), strict=True)])
    assert np.array_equal(sentences, np.arange(small_corpus.split("train").sentence_count))


def test_runs_end_where_bert_ends_them(small_corpus: Corpus) -> None:
    """The greedy rule written out: a run with its own B ends at the target or at the end of its document, one with a
    partner at any sentence before that."""
    pairs = source(small_corpus)
    split = small_corpus.split("train")
    lengths = np.diff(split.sentence_offsets)
    ends = set(split.document_offsets.tolist())
    first, stop = bounds(pairs)
    alone = 0
    for begin, end, target, partner in zip(
        first, stop, target_of_runs(pairs, first), pairs.segmentation.is_random_next, strict=True
    ):
        before_last = lengths[begin : end - 1].sum()
        total = before_last + lengths[end - 1]
        assert before_last < target
        if partner:
            alone += 1
        else:
            assert end - begin >= 2
            assert total >= target or end in ends
    assert 0 < alone < len(pairs)


def test_half_of_the_runs_that_have_a_choice_need_a_partner(small_corpus: Corpus) -> None:
    """A lone sentence has no next one: the share of random partners is a little over one half, as in BERT."""
    partners, lone = [], []
    for seed in range(30):
        pairs = source(small_corpus, seed=seed)
        first, _ = bounds(pairs)
        offsets, documents = pairs.split.sentence_offsets, pairs.split.document_offsets
        end = documents[np.searchsorted(documents, first, side="right")]
        whole = np.searchsorted(offsets, offsets[first] + target_of_runs(pairs, first), side="left")
        lone.append(np.clip(whole, first + 1, end) - first == 1)
        partners.append(pairs.segmentation.is_random_next)
    forced, partner = np.concatenate(lone), np.concatenate(partners)
    assert partner[forced].all()
    free = partner[~forced]
    assert abs(free.mean() - 0.5) < 3 * math.sqrt(0.25 / len(free))


def test_a_keeps_any_number_of_its_sentences(small_corpus: Corpus) -> None:
    """BERT draws where A ends evenly from the sentences of the run but the last."""
    shares = []
    for seed in range(30):
        pairs = source(small_corpus, length=128, seed=seed)
        first, stop = bounds(pairs)
        offsets, documents = pairs.split.sentence_offsets, pairs.split.document_offsets
        end = documents[np.searchsorted(documents, first, side="right")]
        whole = np.searchsorted(offsets, offsets[first] + target_of_runs(pairs, first), side="left")
        count = np.clip(whole, first + 1, end) - first
        chosen = pairs.segmentation.is_random_next & (count > 2)
        shares += (((stop - first)[chosen] - 1) / (count[chosen] - 2)).tolist()
    assert abs(np.mean(shares) - 0.5) < 3 * np.std(shares) / math.sqrt(len(shares))
    assert min(shares) == 0 and max(shares) == 1


def test_short_targets_are_a_tenth_of_the_documents() -> None:
    drawn = target_tokens(np.arange(20_000), 61, seed=3, phase=1)
    share = 0.1 * 59 / 60
    assert abs(np.mean(drawn < 61) - share) < 3 * math.sqrt(share * (1 - share) / len(drawn))
    short = drawn[drawn < 61]
    assert short.min() == 2 and abs(short.mean() - 31) < 3 * 17 / math.sqrt(len(short))


def test_masks_are_fifteen_per_cent_in_80_10_10(small_corpus: Corpus) -> None:
    pairs = source(small_corpus, length=128)
    special = pairs.special
    fates = {"mask": 0, "kept": 0, "other": 0}
    for epoch in range(6):
        for index in range(len(pairs)):
            example = pairs.example(epoch, index)
            expected = min(20, max(1, round(0.15 * len(example.token_ids))))
            assert len(example.masked_positions) == expected
            assert np.all(np.diff(example.masked_positions) > 0)
            assert not np.isin(example.masked_labels, [special.classify, special.separate]).any()
            shown = example.token_ids[example.masked_positions]
            fates["mask"] += int((shown == special.mask).sum())
            fates["kept"] += int((shown == example.masked_labels).sum())
            fates["other"] += int(((shown != special.mask) & (shown != example.masked_labels)).sum())
    total = sum(fates.values())
    random_hits = 0.1 * 1 / small_corpus.vocabulary_size  # a random word can be the right one, or [MASK]
    for fate, share in (
        ("mask", 0.8 + random_hits),
        ("kept", 0.1 + random_hits),
        ("other", 0.1 - 2 * random_hits),
    ):
        assert abs(fates[fate] / total - share) < 3 * math.sqrt(share * (1 - share) / total), fate


def test_at_most_20_and_80_predictions() -> None:
    assert (max_predictions(128), max_predictions(512)) == (20, 80)
    assert prediction_counts(np.array([3, 10, 100, 128]), 128).tolist() == [1, 2, 15, 19]
    assert prediction_counts(np.array([512]), 512).tolist() == [77]


def test_an_example_is_a_pure_function_of_its_name(small_corpus: Corpus) -> None:
    pairs, again = source(small_corpus), source(small_corpus)
    for index in (5, 0, 17):
        ours, theirs = pairs.example(2, index), again.example(2, index)
        assert np.array_equal(ours.token_ids, theirs.token_ids)
        assert np.array_equal(ours.masked_positions, theirs.masked_positions)


@pytest.mark.parametrize("changed", ["pass", "seed", "phase"])
def test_each_part_of_the_name_matters(small_corpus: Corpus, changed: str) -> None:
    pairs = source(small_corpus)
    other = source(small_corpus, seed=int(changed == "seed"), phase=1 + int(changed == "phase"))
    count = min(len(pairs), len(other))
    same = [
        np.array_equal(pairs.example(0, i).masked_positions, other.example(int(changed == "pass"), i).masked_positions)
        for i in range(count)
    ]
    assert np.mean(same) < 0.2


@given(a=st.integers(1, 400), b=st.integers(1, 400), max_text_tokens=st.integers(5, 200))
def test_truncation_leaves_the_lengths_bert_leaves(a: int, b: int, max_text_tokens: int) -> None:
    expected_a, expected_b = a, b
    while expected_a + expected_b > max_text_tokens:  # BERT's truncate_seq_pair, token by token
        if expected_a > expected_b:
            expected_a -= 1
        else:
            expected_b -= 1
    from_a, from_b = removed_tokens(np.array([a]), np.array([b]), max_text_tokens)
    assert (a - from_a[0], b - from_b[0]) == (expected_a, expected_b)


@pytest.mark.parametrize("tosses", [1, 7, 63, 64, 65, 200, 512])
def test_as_many_heads_as_tosses_of_a_coin(tosses: int) -> None:
    """What is taken off goes from front and back, a coin for each token."""
    heads = CounterRNG.of((5,), np.arange(4_000)).coin_flips(0, np.full(4_000, tosses))
    assert heads.min() >= 0 and heads.max() <= tosses
    assert abs(heads.mean() - tosses / 2) < 3.5 * math.sqrt(tosses * 0.25 / len(heads))
    assert abs(heads.var() / (tosses / 4) - 1) < 0.12


def test_what_is_cut_off_comes_from_both_ends(small_corpus: Corpus) -> None:
    pairs = source(small_corpus, length=16)
    split = small_corpus.split("train")
    starts = {int(offset) for offset in split.sentence_offsets}
    rows = pairs.rows(0, np.arange(len(pairs)))
    tokens = split.tokens(0, split.token_count).tolist()
    at_start = 0
    for row in range(len(pairs)):
        a, _ = segments(pairs.example(0, row), pairs.special)
        at_start += any(place in starts for place in places(a, tokens))
    assert 0.2 * len(pairs) < at_start < 0.95 * len(pairs)
    assert (rows.lengths <= 16).all()


def test_many_examples_at_once_are_those_made_alone(small_corpus: Corpus) -> None:
    pairs = source(small_corpus)
    indices = np.array([7, 3, 3, 21, 0])
    rows = pairs.rows(4, indices)
    labels = iter(rows.masked.labels.tolist())
    for row, index in enumerate(indices):
        alone = pairs.example(4, int(index))
        assert rows.token_ids[row, : rows.lengths[row]].tolist() == alone.token_ids.tolist()
        assert (rows.token_ids[row, rows.lengths[row] :] == pairs.special.pad).all()
        assert rows.second_segment_starts[row] == alone.second_segment_start
        assert rows.is_random_next[row] == alone.is_random_next
        assert [next(labels) for _ in alone.masked_labels] == alone.masked_labels.tolist()


def test_every_place_is_masked_as_often_as_another(small_corpus: Corpus) -> None:
    pairs = source(small_corpus, length=64)
    full = np.flatnonzero(pairs.rows(0, np.arange(len(pairs))).lengths == 64)[:40]
    hits = np.zeros(64)
    passes = 60
    for epoch in range(passes):
        rows = pairs.rows(epoch, full)
        full_rows = rows.lengths == 64
        columns = rows.masked.positions % 64
        hits += np.bincount(columns[full_rows[rows.masked.positions // 64]], minlength=64)
    inner = hits[1:-1]
    expected = inner.mean()
    assert hits[0] == hits[-1] == 0
    assert ((inner - expected) ** 2 / expected).sum() < 62 + 4 * math.sqrt(2 * 62)  # chi-square
