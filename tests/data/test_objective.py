"""Sentence order, windows without pairs, whole words and spans, against what their papers say."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from lambert.corpus.build import build_corpus
from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import load_vocabulary
from lambert.corpus.vocabulary import SPECIAL
from lambert.data.dataloader import SampleStream, example_source
from lambert.data.dataset import ExampleSource, Rows
from lambert.data.masking import continuations, prediction_counts
from lambert.data.objective import ObjectiveConfig
from lambert.errors import UserError


@pytest.fixture(scope="module")
def corpus_of_pieces(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Words of one to four pieces."""
    folder = tmp_path_factory.mktemp("pieces")
    syllables = ["ka", "##lo", "##mi", "##ra", "te", "su", "ni"]
    (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in [*SPECIAL, *syllables, "."]), encoding="utf-8")
    random = np.random.default_rng(0)
    ends = ["".join(random.choice(["lo", "mi", "ra"], count)) for count in range(4) for _ in range(20)]
    words = [random.choice(["ka", "te", "su", "ni"]) + end for end in ends]
    documents = ["\n".join(" ".join(random.choice(words, 8)) + "." for _ in range(12)) for _ in range(40)]
    (folder / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    build_corpus([folder / "text.txt"], folder / "corpus", vocab=folder / "vocab.txt", validation_fraction=0.1)
    return Corpus.open(folder / "corpus")


def source(corpus: Corpus, *, length: int = 64, seed: int = 0, **kind: object) -> ExampleSource:
    return example_source(
        corpus,
        "train",
        sequence_length=length,
        seed=seed,
        phase=1,
        objective=ObjectiveConfig(**kind),  # type: ignore[arg-type]
    )


def unmasked(rows: Rows) -> np.ndarray:
    ids = rows.token_ids.copy()
    ids.reshape(-1)[rows.masked.positions] = rows.masked.labels
    return ids


def all_rows(examples: ExampleSource, epoch: int = 0) -> Rows:
    return examples.rows(epoch, np.arange(len(examples)))


def test_sentence_order_parts_a_run_and_swaps_half(small_corpus: Corpus) -> None:
    examples = source(small_corpus, pairing="sop", length=256)
    split = small_corpus.split("train")
    text = " ".join(map(str, split.tokens(0, split.token_count)))
    rows = all_rows(examples)
    ids = unmasked(rows)
    assert rows.is_random_next is not None
    whole = 0
    for row, (length, second) in enumerate(zip(rows.lengths, rows.second_segment_starts, strict=True)):
        a, b = ids[row, 1 : second - 1], ids[row, second : length - 1]
        assert len(a) and len(b)
        if length < 256:  # nothing was cut off
            ordered = np.concatenate([b, a] if rows.is_random_next[row] else [a, b])
            assert " ".join(map(str, ordered)) in text
            whole += 1
    assert whole > 10
    swapped = np.concatenate([examples.rows(p, np.arange(len(examples))).is_random_next for p in range(20)])  # type: ignore[arg-type]
    assert abs(swapped.mean() - 0.5) < 3 * math.sqrt(0.25 / len(swapped))


def test_windows_are_the_whole_text_once(small_corpus: Corpus) -> None:
    examples = source(small_corpus, pairing="none", length=32)
    split = small_corpus.split("train")
    rows = all_rows(examples)
    ids = unmasked(rows)
    seen = np.concatenate([ids[row, 1 : length - 1] for row, length in enumerate(rows.lengths)])
    assert np.array_equal(seen, split.tokens(0, split.token_count))
    assert (ids[:, 0] == examples.special.classify).all()
    assert (ids[np.arange(len(ids)), rows.lengths - 1] == examples.special.separate).all()
    ends = split.sentence_offsets[split.document_offsets]
    documents = [math.ceil((b - a) / 30) for a, b in pairwise(ends)]
    assert len(examples) == sum(documents)


def test_windows_ask_nothing_about_the_next(small_corpus: Corpus) -> None:
    batch = SampleStream(source(small_corpus, pairing="none")).batch(0, 6)
    assert batch.counts().keys() == {"mlm", "mask"} and batch.counts()["mlm"] == len(batch.masked_labels)
    assert len(batch.next_sentence_labels) == 0
    assert not batch.segment_ids.any()


def pieces_of_words(corpus: Corpus, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(hidden [N, W], goes on with the word before it [N, W]), from the ids before masking."""
    hidden = np.zeros(rows.token_ids.shape, bool)
    hidden.reshape(-1)[rows.masked.positions] = True
    goes_on = continuations(corpus.tokenizer())[unmasked(rows)]
    goes_on[:, 1] = False
    inside = np.minimum(rows.second_segment_starts, rows.token_ids.shape[1] - 1)
    goes_on[np.arange(len(goes_on)), inside] = False
    return hidden, goes_on


@pytest.mark.parametrize("masking", ["whole_word", "span"])
def test_words_are_hidden_whole(corpus_of_pieces: Corpus, masking: str) -> None:
    examples = source(corpus_of_pieces, masking=masking)
    broken = seen = 0
    for epoch in range(4):
        rows = all_rows(examples, epoch)
        hidden, goes_on = pieces_of_words(corpus_of_pieces, rows)
        continued = goes_on[:, 1:]
        broken += int((continued & (hidden[:, 1:] != hidden[:, :-1])).sum())
        seen += int((continued & hidden[:, 1:]).sum())
        counts = prediction_counts(rows.lengths, 64)
        assert (hidden.sum(1) >= 1).all()
        if masking == "span":
            assert np.array_equal(hidden.sum(1), counts)
        else:
            over = hidden.sum(1) > counts  # only where no word fits
            assert over.mean() < 0.05
            assert hidden.sum(1).mean() > 0.9 * counts.mean()
    assert seen > 100
    # The budget may cut the last span of an example short, nothing else breaks a word.
    assert broken == 0 if masking == "whole_word" else broken < 0.2 * seen


def test_spans_are_longer_than_chance_and_share_their_fate(small_corpus: Corpus) -> None:
    def runs(masking: str) -> tuple[float, float]:
        """Mean length of a run of hidden places, and how often two neighbours in one are alike in being [MASK]."""
        rows = all_rows(source(small_corpus, masking=masking, length=256))
        hidden = np.zeros(rows.token_ids.shape, bool)
        hidden.reshape(-1)[rows.masked.positions] = True
        starts = hidden[:, 1:] & ~hidden[:, :-1]
        shown = rows.token_ids == small_corpus.tokenizer().token_to_id("[MASK]")
        neighbours = hidden[:, 1:] & hidden[:, :-1]
        alike = (shown[:, 1:] == shown[:, :-1])[neighbours].mean()
        return float(hidden.sum() / starts.sum()), float(alike)

    pieces, alike_by_piece = runs("token")
    spans, alike_by_span = runs("span")
    assert pieces < 1.4 and spans > 3
    assert alike_by_piece < 0.75 and alike_by_span > 0.85


@pytest.mark.parametrize("masking", ["token", "whole_word", "span"])
def test_fates_are_80_10_10_and_the_share_can_be_chosen(small_corpus: Corpus, masking: str) -> None:
    examples = source(small_corpus, masking=masking, mlm_probability=0.3, length=128)
    masks = shown_as_mask = tokens = 0
    for epoch in range(12):
        rows = all_rows(examples, epoch)
        shown = rows.token_ids.reshape(-1)[rows.masked.positions]
        masks += len(shown)
        shown_as_mask += int((shown == examples.special.mask).sum())
        tokens += int(rows.lengths.sum())
    assert 0.26 < masks / tokens < 0.31
    spread = 3 * math.sqrt(0.16 / masks) * (3 if masking == "span" else 1)  # the pieces of a span go together
    assert abs(shown_as_mask / masks - 0.8) < spread


@pytest.mark.parametrize(
    "kind", [{"pairing": "pairs"}, {"masking": "letters"}, {"mlm_probability": 0.0}, {"mlm_probability": 1.0}]
)
def test_unknown_kinds_are_refused(kind: dict[str, object]) -> None:
    with pytest.raises(UserError):
        ObjectiveConfig(**kind)  # type: ignore[arg-type]


def test_words_need_a_vocabulary_that_marks_them(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]) + "\n")
    with pytest.raises(UserError, match="##"):
        continuations(load_vocabulary(tmp_path / "vocab.txt", cased=False))
