"""Examples in so much text, beside the corpus that was counted."""

from __future__ import annotations

import pytest

from lambert.errors import UserError
from lambert.planner.corpus_size import examples_of_text, samples_of_text, tokens_of_text

WIKIPEDIA_BYTES = 128.8e6 * 27.1 / 27.35  # what is not held out (docs/results.md)


def test_wikipedia_is_met() -> None:
    assert tokens_of_text(128.8e6) == pytest.approx(27_349_291, rel=1e-3)
    assert examples_of_text(WIKIPEDIA_BYTES, 128) == pytest.approx(282_899, rel=5e-3)
    assert examples_of_text(WIKIPEDIA_BYTES, 512) == pytest.approx(90_533, rel=5e-3)


def test_longer_examples_are_fewer() -> None:
    assert examples_of_text(WIKIPEDIA_BYTES, 32) == pytest.approx(4 * 282_899, rel=5e-3)
    counts = [examples_of_text(1e9, length) for length in (8, 64, 128, 256, 384, 512, 8_192)]
    assert counts == sorted(counts, reverse=True) and counts[-1] > 0


def test_passes_are_those_of_both_phases_together() -> None:
    """As in training: 9/10 of the samples at 128 and 1/10 at 512 make so many passes."""
    samples = samples_of_text(WIKIPEDIA_BYTES, 3, [(128, 0.9), (512, 0.1)])
    assert 0.9 * samples / 282_899 + 0.1 * samples / 90_533 == pytest.approx(3, rel=5e-3)
    assert samples_of_text(WIKIPEDIA_BYTES, 3, [(128, 1.0)]) == pytest.approx(3 * 282_899, rel=5e-3)


@pytest.mark.parametrize(("size", "epochs", "told"), [(0, 1, "0 GB"), (-1e9, 1, "-1 GB"), (1e9, 0, "0 epochs")])
def test_what_cannot_be_is_refused(size: float, epochs: float, told: str) -> None:
    with pytest.raises(UserError, match=told):
        samples_of_text(size, epochs, [(128, 1.0)])
