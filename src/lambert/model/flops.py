"""Floating-point operations of training: two for each multiply-add of a matmul.

The backward pass counts twice the forward pass. Recomputation and padding are not counted ("model FLOPs", Chowdhery et
al. 2022, appendix B), so that MFU measures progress, not how busy a device is.
"""

from __future__ import annotations

from lambert.model.bert import BertConfig


def training_flops(config: BertConfig, *, tokens: int, sequences: int, masked_tokens: int) -> float:
    """FLOPs of the forward and backward passes over real tokens.

    Args:
        tokens: real tokens of all sequences, which are assumed to be of equal length.
        masked_tokens: tokens with MLM logits over the whole vocabulary.
    """
    hidden, layers = config.hidden_size, config.layers
    feed_forward_maps = 2 if config.has_biases else 3  # ModernBERT's GeGLU has a gate
    per_token = layers * (8 * hidden**2 + 2 * feed_forward_maps * hidden * config.feed_forward_size)
    attention = layers * 4 * hidden * tokens * (tokens / max(1, sequences))
    heads = masked_tokens * 2 * hidden * (hidden + config.vocabulary_size) + sequences * 2 * hidden**2
    return 3.0 * (tokens * per_token + attention + heads)
