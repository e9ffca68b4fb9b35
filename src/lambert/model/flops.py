"""Floating-point operations of training, counted as the field does: two for each multiplication in a product.

The backward pass costs twice the forward pass; what recomputation and padding add is not counted, so that mfu
tells how fast a model learns rather than how busy a device is (Chowdhery et al. 2022, appendix B, "model FLOPs").
"""

from __future__ import annotations

from lambert.model.bert import BertConfig


def training_flops(config: BertConfig, *, tokens: int, sequences: int, masked_tokens: int) -> float:
    """FLOPs of the forward and backward passes over real tokens.

    Args:
        tokens: real tokens of all sequences, which are taken to be of equal length.
        sequences: how many there are; `masked_tokens` of them are scored against the whole vocabulary.
    """
    hidden, layers = config.hidden_size, config.layers
    per_token = layers * (8 * hidden**2 + 4 * hidden * config.feed_forward_size)
    attention = layers * 4 * hidden * tokens * (tokens / max(1, sequences))
    heads = masked_tokens * 2 * hidden * (hidden + config.vocabulary_size) + sequences * 2 * hidden**2
    return 3.0 * (tokens * per_token + attention + heads)
