"""How many parameters a model has, by arithmetic."""

from __future__ import annotations

from lambert.model.bert import BertConfig


def parameter_count(config: BertConfig) -> int:
    """Parameters of the pre-training model, tied ones counted once.

    Computed arithmetically: a model on the meta device would import PyTorch's compiler, which takes two seconds.
    """
    hidden, wide, vocabulary = config.hidden_size, config.feed_forward_size, config.vocabulary_size
    if not config.has_biases:  # ModernBERT
        block = 4 * hidden**2 + 3 * hidden * wide + 2 * hidden
        heads = hidden**2 + hidden + vocabulary  # the first block has one norm, and there is a last one
        untied = 0 if config.tied_decoder else vocabulary * hidden
        return vocabulary * hidden + hidden + config.layers * block + heads + untied
    norm, square = 2 * hidden, hidden * hidden + hidden
    embeddings = (vocabulary + config.maximum_positions + config.segment_types) * hidden + norm
    block = 4 * square + norm + 2 * hidden * wide + wide + hidden + norm
    heads = square + (square + norm + vocabulary) + (2 * hidden + 2)  # pooler, MLM, NSP
    untied = 0 if config.tied_decoder else vocabulary * hidden
    return embeddings + config.layers * block + heads + untied
