"""Examples against BERT's semantics: structure, next-sentence labels, lengths and masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambert.batches.masking import maximum_predictions, prediction_count
from lambert.batches.pairs import Example, PairSource, _truncate
from lambert.corpus.store import Corpus
from lambert.corpus.vocabulary import SpecialTokens, special_tokens


def source(corpus: Corpus, *, length: int = 64, seed: int = 0, phase: int = 1, split: str = "train") -> PairSource:
    return PairSource(
        corpus.split(split),
        special_tokens(corpus.tokenizer()),
        vocabulary_size=corpus.vocabulary_size,
        sequence_length=length,
        seed=seed,
        phase=phase,
    )


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


def test_the_cut_covers_every_sentence_once(small_corpus: Corpus) -> None:
    pairs = source(small_corpus)
    sentences = np.concatenate([np.arange(a, b) for a, b in zip(pairs._first, pairs._stop, strict=True)])
    assert np.array_equal(sentences, np.arange(small_corpus.split("train").sentence_count))


def test_runs_end_where_bert_ends_them(small_corpus: Corpus) -> None:
    """The greedy rule written out: a run ends at the target or at the end of its document."""
    pairs = source(small_corpus)
    split = small_corpus.split("train")
    lengths = np.diff(split.sentence_offsets)
    ends = set(split.document_offsets.tolist())
    for first, stop, target in zip(pairs._first, pairs._stop, pairs._target, strict=True):
        total = 0
        for sentence in range(first, stop):
            assert total < target
            total += lengths[sentence]
        assert total >= target or stop in ends


def test_random_next_share_is_a_little_over_half(small_corpus: Corpus) -> None:
    pairs = source(small_corpus)
    singles = np.mean(pairs._stop - pairs._first == 1)
    expected = singles + (1 - singles) * 0.5  # a lone sentence has no next one
    labels = [pairs.example(e, i).is_random_next for e in range(5) for i in range(len(pairs))]
    error = math.sqrt(0.25 / len(labels))
    assert abs(np.mean(labels) - expected) < 3 * error


def test_short_targets_are_a_tenth_of_the_documents(small_corpus: Corpus) -> None:
    shares = []
    for seed in range(60):
        pairs = source(small_corpus, seed=seed)
        document = np.searchsorted(small_corpus.split("train").document_offsets, pairs._first, side="right")
        targets = dict(zip(document.tolist(), pairs._target.tolist(), strict=True))
        shares += [target < 61 for target in targets.values()]
    assert abs(np.mean(shares) - 0.1 * 59 / 60) < 3 * math.sqrt(0.09 / len(shares))


def test_masks_are_fifteen_per_cent_in_80_10_10(small_corpus: Corpus) -> None:
    pairs = source(small_corpus, length=128)
    special = pairs.special
    fates = {"mask": 0, "kept": 0, "other": 0}
    for pass_number in range(6):
        for index in range(len(pairs)):
            example = pairs.example(pass_number, index)
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
    assert (maximum_predictions(128), maximum_predictions(512)) == (20, 80)
    assert [prediction_count(n, 128) for n in (3, 10, 100, 128)] == [1, 2, 15, 19]
    assert prediction_count(512, 512) == 77


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


@given(a=st.integers(1, 400), b=st.integers(1, 400), room=st.integers(5, 200), seed=st.integers(0, 99))
def test_truncation_leaves_the_lengths_bert_leaves(a: int, b: int, room: int, seed: int) -> None:
    expected_a, expected_b = a, b
    while expected_a + expected_b > room:  # BERT's truncate_seq_pair, token by token
        if expected_a > expected_b:
            expected_a -= 1
        else:
            expected_b -= 1
    first, second = np.arange(a, dtype=np.uint16), np.arange(b, dtype=np.uint16)
    cut_a, cut_b = _truncate(first, second, room, np.random.default_rng(seed))
    assert (len(cut_a), len(cut_b)) == (expected_a, expected_b)
    for cut in (cut_a, cut_b):
        assert np.array_equal(cut, np.arange(cut[0], cut[0] + len(cut)) if len(cut) else cut)


def test_truncation_takes_from_both_ends_evenly() -> None:
    first = np.arange(100, dtype=np.uint16)
    starts = [_truncate(first, first[:10], 60, np.random.default_rng(seed))[0][0] for seed in range(400)]
    assert abs(np.mean(starts) - 25) < 3 * math.sqrt(50 * 0.25 / 400)
