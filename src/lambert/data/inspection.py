"""Statistics of the examples made from a corpus: fill of the rows, rates against their targets, and some as text."""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lambert.corpus.store import Corpus
from lambert.data.dataloader import example_source
from lambert.data.dataset import ExampleSource, Rows
from lambert.data.masking import MASK_PROBABILITY, RANDOM_PROBABILITY
from lambert.data.objective import ObjectiveConfig
from lambert.data.segmentation import RANDOM_NEXT_PROBABILITY
from lambert.data.sentence_pairs import PairSource
from lambert.data.shuffle import Shuffle
from lambert.utils.tokenizer_family import shown_tokens

MAX_EXAMPLES = 20_000
EXAMPLES_SHOWN = 10

_ROWS_AT_ONCE = 1_024
_SEED, _PHASE = 0, 1


def example_statistics(
    corpus: Corpus, objective: ObjectiveConfig, sequence_lengths: tuple[int, ...]
) -> list[dict[str, Any]]:
    """For each length: examples per epoch, fill of the rows and rates, from an even sample of the first epoch."""
    return [_statistics_at(corpus, objective, length) for length in sequence_lengths]


def sample_examples(corpus: Corpus, objective: ObjectiveConfig, sequence_length: int) -> list[dict[str, Any]]:
    """A few examples as text after masking, with the original tokens."""
    examples = _source(corpus, objective, sequence_length)
    tokenizer = corpus.tokenizer()
    count = min(EXAMPLES_SHOWN, len(examples))
    indices = Shuffle(len(examples), (_SEED,))(np.arange(count))
    return [_as_text(examples, tokenizer, int(index)) for index in indices]


def _source(corpus: Corpus, objective: ObjectiveConfig, length: int) -> ExampleSource:
    return example_source(corpus, "train", sequence_length=length, seed=_SEED, phase=_PHASE, objective=objective)


def _statistics_at(corpus: Corpus, objective: ObjectiveConfig, length: int) -> dict[str, Any]:
    examples = _source(corpus, objective, length)
    count = min(MAX_EXAMPLES, len(examples))
    indices = Shuffle(len(examples), (_SEED,))(np.arange(count))
    parts = [examples.rows(0, indices[start : start + _ROWS_AT_ONCE]) for start in range(0, count, _ROWS_AT_ONCE)]
    lengths = np.concatenate([part.lengths for part in parts])
    labels = np.concatenate([part.masked.labels for part in parts])
    shown = np.concatenate([part.token_ids.reshape(-1)[part.masked.positions] for part in parts])
    is_mask, is_kept = shown == examples.special.mask, shown == labels
    statistics: dict[str, Any] = {
        "sequence_length": length,
        "examples_per_epoch": len(examples),
        "examples_measured": count,
        "tokens_per_example": float(lengths.mean()),
        "fill": float(lengths.sum() / (length * count)),
        "full_rows": float((lengths == length).mean()),
        "histogram": _histogram(lengths, length),
        "masked_tokens_per_example": len(labels) / count,
        "mlm_probability": _against(len(labels) / lengths.sum(), objective.mlm_probability),
        "as_mask": _against(float(is_mask.mean()), MASK_PROBABILITY),
        "as_original": _against(float(is_kept.mean()), 1 - MASK_PROBABILITY - RANDOM_PROBABILITY),
        "as_random": _against(float((~is_mask & ~is_kept).mean()), RANDOM_PROBABILITY),
    }
    if isinstance(examples, PairSource):
        statistics["is_random_next"] = _against(_random_next_rate(parts), RANDOM_NEXT_PROBABILITY)
    return statistics


def _against(actual: float, target: float) -> dict[str, float]:
    return {"actual": float(actual), "target": round(target, 12)}


def _random_next_rate(parts: list[Rows]) -> float:
    return float(np.concatenate([part.is_random_next for part in parts if part.is_random_next is not None]).mean())


def _histogram(lengths: np.ndarray[Any, np.dtype[np.int64]], longest: int) -> list[tuple[int, int]]:
    """(smallest length of the bin, count) in eighths of the longest."""
    edges = np.linspace(0, longest, 9).astype(np.int64)
    counts = np.histogram(lengths, bins=edges)[0]
    return [(int(edge), int(count)) for edge, count in zip(edges[:-1], counts, strict=True)]


def _as_text(examples: ExampleSource, tokenizer: Tokenizer, index: int) -> dict[str, Any]:
    example = examples.example(0, index)
    shown = tokenizer.decode(example.token_ids.tolist(), skip_special_tokens=False)
    masked = shown_tokens(tokenizer, example.masked_labels.tolist())
    return {"text": shown, "masked": masked, "is_random_next": example.is_random_next}
