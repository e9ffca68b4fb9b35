"""Figures about a corpus, counted by hand on a small one."""

from __future__ import annotations

import numpy as np
import pytest

from lambert.corpus import inspection
from lambert.corpus.build import build_corpus
from lambert.corpus.inspection import Lengths, text_statistics
from lambert.corpus.store import Corpus
from lambert.data.inspection import example_statistics, sample_examples
from lambert.data.objective import ObjectiveConfig

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Thirty documents of three sentences, one of which stands in all; two documents twice; one unknown letter."""
    folder = tmp_path_factory.mktemp("inspected")
    documents = [
        f"{' '.join(WORDS)} number {n}.\nthis sentence stands in every one of the documents.\n{WORDS[n % 10]} ends."
        for n in range(30)
    ]
    documents += [documents[0], documents[1]]
    documents[5] += "\n\u4e2d."
    (folder / "a.txt").write_text("\n\n".join(documents), encoding="utf-8")
    (folder / "vocab.txt").write_text(
        "\n".join(
            [
                "[PAD]",
                "[UNK]",
                "[CLS]",
                "[SEP]",
                "[MASK]",
                *WORDS,
                *["number", "this", "sentence", "stands", "in", "every", "of", "the", "documents", "ends", "."],
                *"0123456789",
                *(f"##{d}" for d in "0123456789"),
            ]
        )
    )
    build_corpus([folder / "a.txt"], folder / "out", vocab=folder / "vocab.txt", validation_fraction=0.2)
    return Corpus.open(folder / "out")


def test_counts_by_hand(corpus: Corpus) -> None:
    facts = text_statistics(corpus)
    train, held_out = facts["splits"]["train"], facts["splits"]["held_out"]
    assert train["documents"] + held_out["documents"] == 32
    assert facts["counts"]["unknown_characters"] == 1
    assert train["tokens_per_sentence"]["quantiles"]["0"] == 2  # the unknown letter and its full stop
    assert train["sentences_per_document"]["quantiles"]["50"] == 3
    copies = train["documents"] - len(set(corpus.split("train").document_hashes.tolist()))
    assert facts["duplicates"]["documents"] == copies
    # Of two telling sentences a document, the second is always the same one.
    distinct = train["documents"] - copies
    assert facts["duplicates"]["sentences_counted"] == 2 * train["documents"]
    assert facts["duplicates"]["sentences"] == 2 * train["documents"] - (distinct + 1)
    assert facts["overlap"] == {
        "held_out_documents_in_training": 0,
        "held_out_documents_near_training": 0,
        "held_out_sentences_in_training": held_out["documents"],
        "held_out_sentences_counted": 2 * held_out["documents"],
    }
    assert facts["repeated_sentences"][0] == {
        "sentence": "this sentence stands in every one of the documents.",
        "count": train["documents"],
    }


def test_the_size_of_blocks_changes_nothing(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = text_statistics(corpus)
    monkeypatch.setattr(inspection, "_BLOCK_SENTENCES", 7)
    assert text_statistics(corpus) == whole


def test_lengths() -> None:
    lengths = Lengths.of(np.array([1, 2, 3, 4, 8, 9]))
    assert lengths.mean == 4.5
    assert lengths.histogram == [(1, 1), (2, 2), (4, 1), (8, 2)]
    assert (lengths.quantiles["0"], lengths.quantiles["50"], lengths.quantiles["100"]) == (1, 3, 9)
    assert Lengths.of(np.zeros(0, np.int64)).histogram == []


@pytest.mark.parametrize("pairing", ["nsp", "sop", "none"])
def test_realised_rates_stand_beside_their_targets(corpus: Corpus, pairing: str) -> None:
    kind = ObjectiveConfig(pairing=pairing)
    at32, at64 = example_statistics(corpus, kind, (32, 64))
    assert (at32["sequence_length"], at64["sequence_length"]) == (32, 64)
    assert at32["examples_per_epoch"] == at32["examples_measured"] == sum(count for _, count in at32["histogram"])
    assert at32["mlm_probability"]["target"] == 0.15 and abs(at32["mlm_probability"]["actual"] - 0.15) < 0.05
    assert abs(sum(at32[name]["actual"] for name in ("as_mask", "as_original", "as_random")) - 1) < 0.02
    assert ("is_random_next" in at32) == (pairing != "none")
    assert 0 < at32["fill"] <= 1


def test_sample_examples(corpus: Corpus) -> None:
    examples = sample_examples(corpus, ObjectiveConfig(), 32)
    assert len(examples) == 10
    assert examples == sample_examples(corpus, ObjectiveConfig(), 32)
    assert all(example["text"].startswith("[CLS] ") and example["masked"] for example in examples)
