"""One segment without a sentence-pair objective: documents as windows of tokens, by index.

Only the masks are random, and only the number of windows before each document is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lambert.corpus.store import Corpus
from lambert.data.counter_rng import CounterRNG
from lambert.data.dataset import ExampleSource, Index, SegmentSpans


class WindowSource(ExampleSource):
    """[CLS] A [SEP]: each document in windows of equal length, the last one shorter."""

    special_per_example = 2

    def __init__(self, corpus: Corpus, split_name: str, *, index: Index | None = None, **options: Any) -> None:
        super().__init__(corpus, split_name, **options)
        if index is not None:
            self._bounds, self._windows_before = index["bounds"], index["windows_before"]
            return
        self._bounds = self.split.sentence_offsets[self.split.document_offsets]
        windows = -(-np.diff(self._bounds) // self.max_text_tokens)
        self._windows_before = np.concatenate([[0], np.cumsum(windows)])

    def __len__(self) -> int:
        return int(self._windows_before[-1])

    def index(self) -> Index:
        return {"bounds": self._bounds, "windows_before": self._windows_before}

    def spans(self, indices: NDArray[np.int64], draws: CounterRNG) -> SegmentSpans:
        document = np.searchsorted(self._windows_before, indices, side="right") - 1
        start = self._bounds[document] + (indices - self._windows_before[document]) * self.max_text_tokens
        stop = np.minimum(start + self.max_text_tokens, self._bounds[document + 1])
        return SegmentSpans(start, stop, stop, stop, None)
