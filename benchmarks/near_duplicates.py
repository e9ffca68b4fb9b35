"""Near-duplicates found here and by datasketch, on the documents of a corpus and as many copies with words changed.

Both use 112 hashes in 14 bands of 8 over runs of five tokens. Of the planted copies, whose true likeness is computed,
it is counted which are found. Theirs takes part where it is installed: `pip install datasketch`.

    python benchmarks/near_duplicates.py CORPUS --documents 2000
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lambert.corpus.near_duplicates import BANDS, MIN_SIMILARITY, ROWS, SHINGLE_TOKENS, near_duplicates
from lambert.corpus.store import Corpus

LONGEST = 2_000


def documents_with_copies(corpus: Corpus, count: int) -> list[Any]:
    """`count` documents, and after them one copy of each in which a share of the tokens was drawn anew."""
    split, draw = corpus.split("train"), np.random.default_rng(7)
    bounds = split.sentence_offsets[split.document_offsets]
    pairs = list(pairwise(bounds.tolist()))[:count]
    originals = [split.tokens(start, min(stop, start + LONGEST)) for start, stop in pairs]
    copies = []
    for tokens in originals:
        copy = tokens.copy()
        changed = draw.random(len(copy)) < draw.choice([0.005, 0.01, 0.02, 0.04, 0.1])
        copy[changed] = draw.integers(1_000, corpus.vocabulary_size, int(changed.sum()))
        copies.append(copy)
    return originals + copies


def runs_of(tokens: Any) -> set[bytes]:
    """Runs of five tokens."""
    values = tokens.astype(np.uint16)
    return {values[at : at + SHINGLE_TOKENS].tobytes() for at in range(max(1, len(values) - SHINGLE_TOKENS + 1))}


def here(documents: list[Any]) -> list[bool]:
    """Which of the documents nearly repeat an earlier one."""
    offsets = np.cumsum([0, *map(len, documents)])
    shard: Any = SimpleNamespace(
        tokens=np.concatenate(documents),
        sentence_offsets=offsets,
        document_offsets=np.arange(len(offsets)),
        hashes=np.arange(len(documents), dtype=np.uint64),
    )
    return (near_duplicates([shard]) != np.arange(len(documents))).tolist()  # type: ignore[no-any-return]


def datasketch(documents: list[Any]) -> list[bool]:
    """The same with datasketch: a document is kept unless its bands and its MinHash say that it is near a kept one."""
    library = importlib.import_module("datasketch")
    index = library.MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    marks, hashes = [], {}
    for number, tokens in enumerate(documents):
        minhash = library.MinHash(num_perm=BANDS * ROWS)
        minhash.update_batch(list(runs_of(tokens)))
        near = any(hashes[key].jaccard(minhash) >= MIN_SIMILARITY for key in index.query(minhash))
        marks.append(near)
        if not near:
            index.insert(number, minhash)
            hashes[number] = minhash
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--documents", type=int, default=2_000)
    options = parser.parse_args()
    documents = documents_with_copies(Corpus.open(options.corpus), options.documents)
    half = len(documents) // 2
    sets = [runs_of(tokens) for tokens in documents]
    likeness = np.array([len(a & b) / len(a | b) for a, b in zip(sets[:half], sets[half:], strict=True)])
    tokens = sum(map(len, documents))
    methods: dict[str, Callable[[list[Any]], list[bool]]] = {"lambert": here}
    if importlib.util.find_spec("datasketch"):
        methods["datasketch"] = datasketch
    figures: dict[str, Any] = {"machine": platform.processor(), "documents": len(documents), "tokens": tokens}
    print(f"{'':12}{'M tokens/s':>12}{'found >= .85':>14}{'.8 to .85':>12}{'wrongly found':>15}")
    for name, find in methods.items():
        began = time.perf_counter()
        marks = np.array(find(documents))
        seconds = time.perf_counter() - began
        marks = marks[half:]
        sure, edge = likeness >= 0.85, (likeness >= MIN_SIMILARITY) & (likeness < 0.85)
        found = {
            "million_tokens_a_second": tokens / seconds / 1e6,
            "found_from_85": float(marks[sure].mean()),
            "found_at_edge": float(marks[edge].mean()),
            "wrong": int(marks[likeness < MIN_SIMILARITY].sum()),
        }
        figures[name] = found
        print(
            f"{name:12}{found['million_tokens_a_second']:12.2f}{100 * found['found_from_85']:12.1f} %"
            f"{100 * found['found_at_edge']:10.1f} %{found['wrong']:15}"
        )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
