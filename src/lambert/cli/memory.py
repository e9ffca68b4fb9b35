"""What memory a run's micro-batches need: its settings, put to the arithmetic of `planning`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lambert.planning.memory import MemoryEstimate
    from lambert.training.config.training_config import RunSettings


def memory_of(settings: RunSettings, index: int, size: int, checkpointing: str = "none") -> int:
    """Bytes that a process needs for micro-batches of `size` sequences of a phase."""
    return memory_parts(settings, index, size, checkpointing).total_bytes


def memory_parts(settings: RunSettings, index: int, size: int, checkpointing: str = "none") -> MemoryEstimate:
    """The same, state and activations apart."""
    from lambert.data.masking import maximum_predictions
    from lambert.planning.memory import estimate_memory
    from lambert.training.config.precision import Precision
    from lambert.training.config.resolve import parameter_count

    model, length = settings.model, settings.phases[index].sequence_length
    return estimate_memory(
        parameters=parameter_count(model),
        layers=model.layers,
        hidden_size=model.hidden_size,
        attention_heads=model.attention_heads,
        vocabulary_size=model.vocabulary_size,
        sequences=size,
        sequence_length=length,
        masked_words_per_sequence=maximum_predictions(length),
        bytes_per_value=4 if settings.precision is Precision.FLOAT32 else 2,
        activation_checkpointing=checkpointing,
    )
