"""What the examples made from a corpus look like: how full rows are, realised rates against their targets, and some to
read."""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lambert.corpus.store import Corpus
from lambert.data.dataloader import example_source
from lambert.data.dataset import ExampleSource, Rows
from lambert.data.masking import KEPT_AS_MASK, REPLACED_BY_RANDOM
from lambert.data.objective import ExampleKind
from lambert.data.sentence_pairs import PairSource
from lambert.data.shuffle import Shuffle

MOST_EXAMPLES = 20_000
EXAMPLES_TO_READ = 10

_ROWS_AT_ONCE = 1_024
_SEED, _PHASE = 0, 1


def example_facts(corpus: Corpus, kind: ExampleKind, sequence_lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """For each length: examples a pass, fill of the rows, realised rates, from an even sample of the first pass."""
    return [_facts_at(corpus, kind, length) for length in sequence_lengths]


def examples_to_read(corpus: Corpus, kind: ExampleKind, sequence_length: int) -> list[dict[str, Any]]:
    """A few examples as text, hidden words as [MASK] or what stands there, with the words that were hidden."""
    examples = _source(corpus, kind, sequence_length)
    tokenizer = corpus.tokenizer()
    count = min(EXAMPLES_TO_READ, len(examples))
    indices = Shuffle(len(examples), (_SEED,))(np.arange(count))
    return [_as_text(examples, tokenizer, int(index)) for index in indices]


def _source(corpus: Corpus, kind: ExampleKind, length: int) -> ExampleSource:
    return example_source(corpus, "train", sequence_length=length, seed=_SEED, phase=_PHASE, kind=kind)


def _facts_at(corpus: Corpus, kind: ExampleKind, length: int) -> dict[str, Any]:
    examples = _source(corpus, kind, length)
    count = min(MOST_EXAMPLES, len(examples))
    indices = Shuffle(len(examples), (_SEED,))(np.arange(count))
    parts = [examples.rows(0, indices[start : start + _ROWS_AT_ONCE]) for start in range(0, count, _ROWS_AT_ONCE)]
    lengths = np.concatenate([part.lengths for part in parts])
    labels = np.concatenate([part.hidden.labels for part in parts])
    shown = np.concatenate([part.token_ids.reshape(-1)[part.hidden.places] for part in parts])
    is_mask, is_kept = shown == examples.special.mask, shown == labels
    facts: dict[str, Any] = {
        "sequence_length": length,
        "examples_a_pass": len(examples),
        "examples_measured": count,
        "tokens_an_example": float(lengths.mean()),
        "fill": float(lengths.sum() / (length * count)),
        "full_rows": float((lengths == length).mean()),
        "histogram": _histogram(lengths, length),
        "masked_words_an_example": len(labels) / count,
        "mask_share": _against(len(labels) / lengths.sum(), kind.mask_share),
        "shown_as_mask": _against(float(is_mask.mean()), KEPT_AS_MASK),
        "kept": _against(float(is_kept.mean()), 1 - KEPT_AS_MASK - REPLACED_BY_RANDOM),
        "replaced": _against(float((~is_mask & ~is_kept).mean()), REPLACED_BY_RANDOM),
    }
    if isinstance(examples, PairSource):
        facts["does_not_follow"] = _against(_wrong_share(parts), 0.5)
    return facts


def _against(realised: float, target: float) -> dict[str, float]:
    return {"realised": float(realised), "target": round(target, 12)}


def _wrong_share(parts: list[Rows]) -> float:
    return float(np.concatenate([part.is_wrong_next for part in parts if part.is_wrong_next is not None]).mean())


def _histogram(lengths: np.ndarray[Any, np.dtype[np.int64]], longest: int) -> list[tuple[int, int]]:
    """(least length of the bin, how many) in eighths of the longest."""
    edges = np.linspace(0, longest, 9).astype(np.int64)
    counts = np.histogram(lengths, bins=edges)[0]
    return [(int(edge), int(count)) for edge, count in zip(edges[:-1], counts, strict=True)]


def _as_text(examples: ExampleSource, tokenizer: Tokenizer, index: int) -> dict[str, Any]:
    example = examples.example(0, index)
    shown = tokenizer.decode(example.token_ids.tolist(), skip_special_tokens=False)
    hidden = [tokenizer.id_to_token(int(label)) for label in example.masked_labels]
    return {"text": shown, "hidden": hidden, "does_not_follow": example.is_wrong_next}
