"""Published sizes of BERT by name, and any other size by hand."""

from __future__ import annotations

import re
from dataclasses import replace

from lambert.errors import UserError, unknown_name
from lambert.model.bert import BertConfig

PRESETS: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}
"""Name → (layers, hidden size): base and large from Devlin et al. 2018, the rest from Turc et al. 2019."""

PUBLISHED_START_FROM = 768
"""Hidden size from which a model starts as Devlin et al. published it: truncated normal of deviation 0.02. Narrower
ones start from deviation 1/√H, sinusoidal positions and the text's word frequencies (docs/recipes.md tells why)."""

HEAD_SIZE = 64
"""Every published size has one attention head per 64 hidden units."""


def model_config(name: str, *, vocabulary_size: int, dropout: float = 0.1) -> BertConfig:
    """The configuration called `name`: a preset, or `LAYERSxHIDDEN` such as `6x384`.

    Raises:
        UserError: the name is neither (the nearest preset is offered).
    """
    by_hand = re.fullmatch(r"(\d+)x(\d+)", name)
    if by_hand:
        layers, hidden_size = int(by_hand[1]), int(by_hand[2])
    elif name in PRESETS:
        layers, hidden_size = PRESETS[name]
    else:
        raise unknown_name("model", name, [*PRESETS, "LAYERSxHIDDEN"])
    if hidden_size < 1:
        raise UserError(f"model {name}", remedy="Give a hidden size from 1, such as 6x384")
    return with_start_of_width(
        BertConfig(
            vocabulary_size=vocabulary_size,
            layers=layers,
            hidden_size=hidden_size,
            attention_heads=max(1, hidden_size // HEAD_SIZE),
            feed_forward_size=4 * hidden_size,
            dropout=dropout,
        )
    )


def with_start_of_width(config: BertConfig) -> BertConfig:
    """`config` with the random start that a model of its hidden size gets; Hugging Face folders do not record it."""
    is_narrow = config.hidden_size < PUBLISHED_START_FROM
    return replace(
        config,
        initializer_range=config.hidden_size**-0.5 if is_narrow else 0.02,
        sinusoidal_positions=is_narrow,
        frequency_bias=is_narrow,
    )
