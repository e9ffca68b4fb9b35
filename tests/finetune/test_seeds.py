"""Student's quantiles against the printed table, and an interval worked out by hand."""

from __future__ import annotations

import pytest

from lambert.finetune.seeds import mean_interval, student_quantile


# Two-sided quantiles as every statistics table prints them (for instance NIST/SEMATECH e-Handbook 1.3.6.7.2).
@pytest.mark.parametrize(
    ("confidence", "freedom", "expected"),
    [
        (0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 3, 3.182), (0.95, 4, 2.776), (0.95, 5, 2.571), (0.95, 9, 2.262),
        (0.95, 10, 2.228), (0.95, 30, 2.042), (0.95, 100, 1.984), (0.99, 4, 4.604), (0.9, 7, 1.895),
    ],
)  # fmt: skip
def test_quantiles_of_the_table(confidence: float, freedom: int, expected: float) -> None:
    assert student_quantile(confidence, freedom) == pytest.approx(expected, abs=6e-4)


def test_the_interval_by_hand() -> None:
    # mean 12, s = 2, t(2) = 4.3027, half width 4.3027 · 2/√3
    assert mean_interval([10.0, 12.0, 14.0]) == pytest.approx((12 - 4.96828, 12 + 4.96828), abs=1e-4)
    assert mean_interval([7.0]) is None
    assert mean_interval([7.0, 7.0]) == (7.0, 7.0)
