"""The unigram baseline: predicts each token by its frequency alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class UnigramBaseline:
    """Unigram model from the token counts [V] of the training text, with add-one smoothing."""

    def __init__(self, token_counts: NDArray[np.int64]) -> None:
        smoothed = token_counts.astype(np.float64) + 1
        self.log_probabilities: NDArray[np.float64] = np.log(smoothed / smoothed.sum())
        """Log probabilities [V], natural logarithm."""
        self._most_frequent = int(token_counts.argmax())

    def loss_on(self, token_counts: NDArray[np.int64]) -> float:
        """Mean loss on a text with these token counts [V], nats."""
        return float(-(token_counts / max(1, token_counts.sum())) @ self.log_probabilities)

    def loss_sum(self, labels: NDArray[np.int64]) -> float:
        """Sum of −log p over `labels`, nats."""
        return float(-self.log_probabilities[labels].sum())

    def correct(self, labels: NDArray[np.int64]) -> int:
        """Number of labels equal to the most frequent token."""
        return int((labels == self._most_frequent).sum())
