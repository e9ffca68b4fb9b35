"""How much memory a run needs, by arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

_BYTES_PER_PARAMETER = 16
"""Weight, gradient and two moments in float32."""
_SAVED_PER_TOKEN_AND_LAYER = 34
"""Values kept for the backward pass per token, layer and hidden unit, in bytes at 2 bytes each (Korthikanti et al.
2022, arXiv 2205.05198, equation 1: sbh·34 + 5·a·s²·b); twice that in float32."""

_GELU_PER_TOKEN = 8
"""Of these, what GELU makes: 4 · H values."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of one process, bytes."""

    state_bytes: int
    """Weights, gradients and moments."""
    activation_bytes: int
    """What one micro-batch keeps for its backward pass, word scores included."""

    @property
    def total_bytes(self) -> int:
        """Both together."""
        return self.state_bytes + self.activation_bytes


def estimate_memory(
    *,
    parameters: int,
    layers: int,
    hidden_size: int,
    attention_heads: int,
    vocabulary_size: int,
    sequences: int,
    sequence_length: int,
    masked_words_per_sequence: int,
    bytes_per_value: int = 4,
    activation_checkpointing: str = "none",
) -> MemoryEstimate:
    """Memory for micro-batches of `sequences` × `sequence_length` tokens.

    Activations follow Korthikanti et al. 2022 (arXiv 2205.05198), equation 1, without its attention-dropout masks;
    the scores of the masked words (sequences · masked words · V) are held three times: scores, their softmax and its
    gradient. Selective activation checkpointing keeps neither the attention weights nor what GELU makes; full keeps the
    input of every layer, and one layer's activations at a time.
    """
    tokens = sequences * sequence_length
    scale = bytes_per_value / 2
    weights = 4 * attention_heads * tokens * sequence_length
    whole = scale * (_SAVED_PER_TOKEN_AND_LAYER * tokens * hidden_size + weights)
    kept = {
        "none": layers * whole,
        "selective": layers * (whole - scale * (weights + _GELU_PER_TOKEN * tokens * hidden_size)),
        "full": layers * bytes_per_value * tokens * hidden_size + whole,
    }[activation_checkpointing]
    scores = 3 * bytes_per_value * sequences * masked_words_per_sequence * vocabulary_size
    return MemoryEstimate(_BYTES_PER_PARAMETER * parameters, round(kept + scores))
