"""Near-duplicates beside Jaccard's index of every pair, counted by hand on sets of runs of words."""

from __future__ import annotations

import random
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from lambert.corpus import near_duplicates as near
from lambert.corpus.build import build_corpus
from lambert.corpus.inspection import text_statistics
from lambert.corpus.near_duplicates import MIN_SIMILARITY, near_duplicates
from lambert.corpus.store import Corpus
from lambert.errors import UserError

WORDS = [f"{a}{b}" for a in "bcdfghklmnprst" for b in "aeiou"]


def likeness(one: str, other: str) -> float:
    runs = []
    for text in (one, other):
        tokens = text.split()
        runs.append({tuple(tokens[at : at + 5]) for at in range(max(1, len(tokens) - 4))})
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Sixty documents of 3 to 400 words, with copies changed in some places, and some copies."""
    draw = random.Random(5)
    texts = []
    for _ in range(60):
        words = draw.choices(WORDS, k=draw.choice([3, 40, 120, 400]))
        texts.append(" ".join(words))
        for changes in draw.choices([0, 1, 2, 4, 8], k=2):
            changed = list(words)
            for place in draw.choices(range(len(words)), k=min(changes, len(words))):
                changed[place] = draw.choice(WORDS)
            texts.append(" ".join(changed))
    draw.shuffle(texts)
    return texts


def store(folder: Path, texts: list[str], **options: object) -> Corpus:
    folder.mkdir()
    (folder / "a.txt").write_text("\n\n".join(texts[::2]), encoding="utf-8")
    (folder / "b.txt").write_text("\n\n".join(texts[1::2]), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    files = [folder / "a.txt", folder / "b.txt"]
    build_corpus(files, folder / "out", vocab=folder / "vocab.txt", validation_fraction=0.2, **options)  # type: ignore[arg-type]
    return Corpus.open(folder / "out")


def documents_of(corpus: Corpus, *names: str) -> list[str]:
    texts, tokenizer = [], corpus.tokenizer()
    for split in map(corpus.split, names):
        bounds = split.sentence_offsets[split.document_offsets].tolist()
        texts += [tokenizer.decode(split.tokens(*pair).tolist()) for pair in pairwise(bounds)]
    return texts


def by_hand(texts: list[str]) -> list[int]:
    """The first of each group that pairs of enough likeness connect."""
    first = list(range(len(texts)))
    for one, other in combinations(range(len(texts)), 2):
        if likeness(texts[one], texts[other]) >= MIN_SIMILARITY:
            low, high = sorted((first[one], first[other]))
            first = [low if entry == high else entry for entry in first]
    return first


@pytest.mark.parametrize("block", [64, 1 << 18])
def test_beside_every_pair(tmp_path: Path, texts: list[str], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "_BLOCK_TOKENS", block)
    corpus = store(tmp_path / "c", texts)
    expected = by_hand(documents_of(corpus, "train", "held_out"))
    found = near_duplicates([shard for name in ("train", "held_out") for shard in corpus.split(name).shards])
    missed = [place for place, first in enumerate(found) if first == place != expected[place]]
    assert all(found[place] in (expected[place], place) for place in range(len(found)))  # none by chance
    assert len(missed) <= 1  # pairs near the edge, which bands may miss
    assert sum(place != first for place, first in enumerate(expected)) > 40
    assert sum(place == first for place, first in enumerate(expected)) > 60


def test_near_duplicates_leave_the_corpus_and_held_out_text_is_new(tmp_path: Path, texts: list[str]) -> None:
    whole, rest = store(tmp_path / "whole", texts), store(tmp_path / "rest", texts, deduplicate="near")
    everything = documents_of(whole, "train", "held_out")
    firsts = [everything[place] for place in sorted(set(by_hand(everything)))]
    kept = documents_of(rest, "train", "held_out")
    assert set(firsts) <= set(kept) and len(kept) - len(firsts) <= 1
    assert rest.manifest["statistics"]["near_duplicate_documents"] == len(everything) - len(kept)
    assert whole.manifest["statistics"]["near_duplicate_documents"] is None
    before, after = text_statistics(whole), text_statistics(rest)
    assert before["duplicates"]["near_documents"] > before["duplicates"]["documents"] > 0
    assert before["overlap"]["held_out_documents_near_training"] > 0
    assert after["duplicates"]["near_documents"] == after["overlap"]["held_out_documents_near_training"] == 0


def test_a_corpus_of_copies_needs_no_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near._Documents, "similarity", None)
    corpus = store(tmp_path / "c", ["ba be bi bo bu", *["da de di do du"] * 500])
    found = near_duplicates(corpus.split("train").shards + corpus.split("held_out").shards)
    assert len(np.unique(found)) == 2
    assert len(near_duplicates([])) == 0


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`deduplicate` is 'fuzzy'.*none, exact, near"):
        store(tmp_path / "c", ["ba be", "da de"], deduplicate="fuzzy")
