"""Memory by arithmetic, against the published formula worked by hand."""

from __future__ import annotations

from lambert.planning.memory import estimate_memory


def test_the_formula_by_hand() -> None:
    estimate = estimate_memory(
        parameters=1_000,
        layers=2,
        hidden_size=8,
        attention_heads=2,
        vocabulary_size=50,
        sequences=3,
        sequence_length=16,
        masked_words_per_sequence=2,
        bytes_per_value=2,
    )
    assert estimate.state_bytes == 16_000
    # Korthikanti et al.: s·b·h·34 a layer, and 4·a·s²·b for scores and probabilities; then 3 · (3·2·50) word scores.
    assert estimate.activation_bytes == 2 * (16 * 3 * 8 * 34 + 4 * 2 * 16**2 * 3) + 3 * 2 * 300


def test_it_grows_with_the_micro_batch_alone() -> None:
    def total(sequences: int) -> int:
        return estimate_memory(
            parameters=10**6,
            layers=4,
            hidden_size=64,
            attention_heads=1,
            vocabulary_size=1_000,
            sequences=sequences,
            sequence_length=128,
            masked_words_per_sequence=20,
        ).total_bytes

    assert total(16) - total(8) == total(24) - total(16) > 0
