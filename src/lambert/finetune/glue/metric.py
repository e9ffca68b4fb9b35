"""GLUE's metrics from the libraries that its own scripts use: scikit-learn and SciPy (the extra `glue`).

All are times 100. A metric that is undefined, such as the correlation with constant predictions, is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from lambert.errors import UserError


def check_installed() -> None:
    """Raises UserError where the extra is missing."""
    if find_spec("sklearn") is None or find_spec("scipy") is None:
        raise UserError(
            "GLUE's metrics need the packages scikit-learn and scipy, which are not installed",
            remedy="Install them with: pip install 'lambert-bert[glue]'",
        )


def compute_metrics(names: Sequence[str], labels: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """Metric → its value, 0 to 100 (correlations −100 to 100)."""
    assert len(labels) == len(predictions) > 0
    return {name: 100 * _metric(name, np.asarray(labels), np.asarray(predictions)) for name in names}


def _metric(name: str, labels: Any, predictions: Any) -> float:
    from scipy import stats
    from sklearn import metrics

    if name in ("pearson", "spearman", "matthews") and min(np.ptp(labels), np.ptp(predictions)) == 0:
        return 0.0  # of one value nothing is told apart
    if name in ("pearson", "spearman"):
        correlation = stats.pearsonr if name == "pearson" else stats.spearmanr
        value = float(correlation(predictions, labels).statistic)
        return value if math.isfinite(value) else 0.0
    if name == "f1":
        return float(metrics.f1_score(labels, predictions, zero_division=0.0))
    if name == "matthews":
        return float(metrics.matthews_corrcoef(labels, predictions))
    return float(metrics.accuracy_score(labels, predictions))
