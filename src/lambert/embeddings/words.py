"""Baselines that know nothing but words: BM25 for retrieval, shared words for similarity."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_K1, _B = 1.2, 0.75  # Robertson and Zaragoza 2009, and Lucene's


def words_of(text: str) -> list[str]:
    """The words of a text in small letters."""
    return _WORD.findall(text.lower())


class Bm25:
    """Okapi BM25 (Robertson and Zaragoza 2009) with Lucene's weights of words, which are above 0."""

    def __init__(self, passages: Sequence[str]) -> None:
        counts = [Counter(words_of(passage)) for passage in passages]
        self._passages = len(passages)
        lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
        self._norms = _K1 * (1 - _B + _B * lengths / max(lengths.mean(), 1.0))
        places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, count in enumerate(counts):
            for word, times in count.items():
                places[word].append((place, times))
        self._places = {word: np.array(found).T for word, found in places.items()}

    def scores(self, query: str) -> NDArray[np.float64]:
        """[passages]: 0 where no word is shared."""
        scores = np.zeros(self._passages)
        for word in words_of(query):
            if (found := self._places.get(word)) is not None:
                there, times = found
                weight = math.log(1 + (self._passages - len(there) + 0.5) / (len(there) + 0.5))
                scores[there] += weight * times * (_K1 + 1) / (times + self._norms[there])
        return scores

    def best(self, query: str, count: int) -> list[tuple[int, float]]:
        """The (passage, score) of the best `count` that share a word, best first; of equals the first."""
        scores = self.scores(query)
        order = np.argsort(-scores, kind="stable")[:count]
        return [(int(place), float(scores[place])) for place in order if scores[place] > 0]


def shared_words(first: str, second: str) -> float:
    """The words of both texts over those of either (Jaccard), 0 to 1."""
    one, other = set(words_of(first)), set(words_of(second))
    return len(one & other) / max(1, len(one | other))
