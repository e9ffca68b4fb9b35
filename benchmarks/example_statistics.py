"""The example stream of a corpus beside google-research/bert's `create_pretraining_data.py`.

BERT's walk is written out below, one document after another with a running generator, from its published rules; the
figures of a whole pass of ours stand beside it, with the difference in standard errors of the two.

    python benchmarks/example_statistics.py CORPUS --length 128
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lambert.batches.pairs import PairSource
from lambert.corpus.store import Corpus, Split
from lambert.corpus.vocabulary import special_tokens

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


def by_bert(split: Split, length: int, vocabulary_size: int) -> Figures:
    """Examples as `create_instances_from_document` and `create_masked_lm_predictions` make them."""
    rng = random.Random(12345)
    lengths = np.diff(split.sentence_offsets).tolist()
    bounds = split.document_offsets.tolist()
    documents = [lengths[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
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
    document, room = documents[number], length - 3
    target = rng.randint(2, room) if rng.random() < 0.1 else room
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
            while a + b > room:
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
        shown = rows.token_ids.reshape(-1)[rows.hidden.places]
        masks = np.bincount(rows.hidden.places // rows.token_ids.shape[1], minlength=len(rows.lengths))
        figures.length += rows.lengths.tolist()
        figures.a_length += (rows.second_segment_starts - 2).tolist()
        figures.random_next += rows.is_random_next.tolist()
        figures.masks += masks.tolist()
        figures.is_mask += (shown == pairs.special.mask).tolist()
        figures.is_kept += (shown == rows.hidden.labels).tolist()
    return figures


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    corpus = Corpus.open(arguments.corpus)
    split = corpus.split("train")
    pairs = PairSource(
        split,
        special_tokens(corpus.tokenizer()),
        vocabulary_size=corpus.vocabulary_size,
        sequence_length=arguments.length,
        seed=arguments.seed,
        phase=1,
    )
    ours, theirs = by_lambert(pairs), by_bert(split, arguments.length, corpus.vocabulary_size)
    print(f"{'':34} {'lambert':>12} {'bert':>12} {'difference in standard errors':>30}")
    rows = [_compared("examples a pass", len(ours.length), len(theirs.length), math.sqrt(len(theirs.length)))]
    for name, field_ in (
        ("tokens an example", "length"),
        ("tokens of A", "a_length"),
        ("share with a random next", "random_next"),
        ("masked words an example", "masks"),
        ("masked words shown as [MASK]", "is_mask"),
        ("masked words left in place", "is_kept"),
    ):
        a, b = np.array(getattr(ours, field_), float), np.array(getattr(theirs, field_), float)
        error = math.sqrt(a.var() / len(a) + b.var() / len(b))
        rows.append(_compared(name, float(a.mean()), float(b.mean()), error))
    for share in (10, 50, 90):
        a, b = np.percentile(ours.length, share), np.percentile(theirs.length, share)
        rows.append(_compared(f"tokens an example, {share}th percentile", float(a), float(b), None))
    machine = f"{platform.machine()}, numpy {np.__version__}"
    print(json.dumps({"benchmark": "example_statistics", "machine": machine, "rows": rows}))


def _compared(case: str, ours: float, theirs: float, error: float | None) -> dict[str, object]:
    off = None if not error else (ours - theirs) / error
    print(f"{case:34} {ours:12.4f} {theirs:12.4f} {'' if off is None else f'{off:30.2f}'}")
    return {"case": case, "ours": ours, "rival": "google-research/bert", "theirs": theirs, "standard_errors": off}


if __name__ == "__main__":
    main()
