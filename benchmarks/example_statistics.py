"""The example stream of a corpus beside google-research/bert's `create_pretraining_data.py`.

BERT's walk is written out below, one document after another with a running generator, from its published rules; a whole
pass of ours stands beside it. Both are repeated with several seeds, since a long document with a short target moves all
figures at once; the difference is given in standard errors over the seeds.

    python benchmarks/example_statistics.py CORPUS --length 128
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lambert.corpus.store import Corpus, Split
from lambert.data.sentence_pairs import PairSource

ROWS_AT_ONCE = 1_024


@dataclass
class Figures:
    """One number an example of each kind."""

    length: list[int] = field(default_factory=list)
    a_length: list[int] = field(default_factory=list)
    random_next: list[int] = field(default_factory=list)
    masks: list[int] = field(default_factory=list)
    is_mask: list[int] = field(default_factory=list)
    is_kept: list[int] = field(default_factory=list)


def by_bert(split: Split, length: int, vocabulary_size: int, seed: int) -> Figures:
    """Examples as `create_instances_from_document` and `create_masked_lm_predictions` make them."""
    rng = random.Random(seed)
    lengths = np.diff(split.sentence_offsets).tolist()
    bounds = split.document_offsets.tolist()
    documents = [lengths[a:b] for a, b in itertools.pairwise(bounds)]
    figures = Figures()
    for number in range(len(documents)):
        _walk(documents, number, length, rng, figures, vocabulary_size)
    return figures


def _walk(
    documents: list[list[int]],
    number: int,
    length: int,
    rng: random.Random,
    figures: Figures,
    vocabulary_size: int,
) -> None:
    document, max_text_tokens = documents[number], length - 3
    target = rng.randint(2, max_text_tokens) if rng.random() < 0.1 else max_text_tokens
    chunk: list[int] = []
    i = 0
    while i < len(document):
        chunk.append(document[i])
        if i == len(document) - 1 or sum(chunk) >= target:
            a_end = rng.randint(1, len(chunk) - 1) if len(chunk) >= 2 else 1
            a = sum(chunk[:a_end])
            is_random = len(chunk) == 1 or rng.random() < 0.5
            if is_random:
                other = number
                for _ in range(10):
                    other = rng.randint(0, len(documents) - 1)
                    if other != number:
                        break
                b = 0
                for j in range(rng.randint(0, len(documents[other]) - 1), len(documents[other])):
                    b += documents[other][j]
                    if b >= target - a:
                        break
                i -= len(chunk) - a_end  # the sentences not used are put back
            else:
                b = sum(chunk[a_end:])
            while a + b > max_text_tokens:
                a, b = (a - 1, b) if a > b else (a, b - 1)
            _record(figures, a, b, is_random, length, rng, vocabulary_size)
            chunk = []
        i += 1


def _record(
    figures: Figures, a: int, b: int, is_random: bool, length: int, rng: random.Random, vocabulary_size: int
) -> None:
    masks = min(round(length * 20 / 128), max(1, round((a + b + 3) * 0.15)))
    figures.length.append(a + b + 3)
    figures.a_length.append(a)
    figures.random_next.append(is_random)
    figures.masks.append(masks)
    for _ in range(masks):
        is_mask = rng.random() < 0.8
        figures.is_mask.append(is_mask)
        figures.is_kept.append(not is_mask and (rng.random() < 0.5 or rng.randrange(vocabulary_size) == 0))


def by_lambert(pairs: PairSource) -> Figures:
    """One whole pass of ours."""
    figures = Figures()
    for start in range(0, len(pairs), ROWS_AT_ONCE):
        rows = pairs.rows(0, np.arange(start, min(start + ROWS_AT_ONCE, len(pairs))))
        shown = rows.token_ids.reshape(-1)[rows.masked.positions]
        masks = np.bincount(rows.masked.positions // rows.token_ids.shape[1], minlength=len(rows.lengths))
        figures.length += rows.lengths.tolist()
        figures.a_length += (rows.second_segment_starts - 2).tolist()
        assert rows.is_random_next is not None
        figures.random_next += rows.is_random_next.tolist()
        figures.masks += masks.tolist()
        figures.is_mask += (shown == pairs.special.mask).tolist()
        figures.is_kept += (shown == rows.masked.labels).tolist()
    return figures


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=8, help="how often each is repeated")
    arguments = parser.parse_args()
    corpus = Corpus.open(arguments.corpus)
    split, size = corpus.split("train"), corpus.vocabulary_size
    ours, theirs = [], []
    for seed in range(arguments.seeds):
        pairs = PairSource(corpus, "train", sequence_length=arguments.length, seed=seed, phase=1)
        ours.append(summary(by_lambert(pairs)))
        theirs.append(summary(by_bert(split, arguments.length, size, seed)))
    print(f"{'':38} {'lambert':>12} {'bert':>12} {'difference in standard errors':>30}")
    rows = [_compared(case, [one[case] for one in ours], [one[case] for one in theirs]) for case in ours[0]]
    machine = f"{platform.machine()}, numpy {np.__version__}"
    print(json.dumps({"benchmark": "example_statistics", "machine": machine, "rows": rows}))


def summary(figures: Figures) -> dict[str, float]:
    """The figures of one pass."""
    return {
        "examples a pass": len(figures.length),
        "tokens an example": float(np.mean(figures.length)),
        "tokens an example, 10th percentile": float(np.percentile(figures.length, 10)),
        "tokens an example, 25th percentile": float(np.percentile(figures.length, 25)),
        "tokens an example, 50th percentile": float(np.percentile(figures.length, 50)),
        "tokens of A": float(np.mean(figures.a_length)),
        "share with a random next": float(np.mean(figures.random_next)),
        "masked words an example": float(np.mean(figures.masks)),
        "masked words shown as [MASK]": float(np.mean(figures.is_mask)),
        "masked words left in place": float(np.mean(figures.is_kept)),
    }


def _compared(case: str, ours: list[float], theirs: list[float]) -> dict[str, object]:
    a, b = np.array(ours), np.array(theirs)
    error = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))
    off = (a.mean() - b.mean()) / error if error else 0.0
    print(f"{case:38} {a.mean():12.4f} {b.mean():12.4f} {off:30.2f}")
    row = {"case": case, "ours": a.mean(), "rival": "google-research/bert", "theirs": b.mean(), "spread": error}
    return row | {"standard_errors": off}


if __name__ == "__main__":
    main()
