"""Published sizes of BERT by name, and any other size as LAYERSxHIDDEN."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lambert.errors import UserError, unknown_name
from lambert.model.architectures import CONFIGS
from lambert.model.bert import BertConfig
from lambert.model.modernbert import ModernBertConfig

PRESETS: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}
"""Name → (layers, hidden size): base and large from Devlin et al. 2018, the rest from Turc et al. 2019."""

PUBLISHED_DEVIATION = 0.02
"""Standard deviation of BERT's truncated normal initialization (Devlin et al. 2018, hidden sizes 768 and 1,024)."""
MIN_GAIN = 0.5
"""Lower bound of standard deviation · √(hidden size), so that narrow models keep the scale of their activations. The
published deviation gives 0.55 at 768. Fitted here (docs/recipes.md)."""

HEAD_SIZE = 64
"""Every published size has one attention head per 64 hidden units."""


MODERNBERT_PRESETS = {**PRESETS, "base": (22, 768), "large": (28, 1024)}
"""Name → (layers, hidden size) of ModernBERT: base and large as published (Warner et al. 2024), the rest BERT's."""
_MODERNBERT_FEED_FORWARD = {1024: 2_624}
"""Hidden size → feed-forward size where it is not 3/2 of the hidden size, as in base."""


def model_config(
    name: str, *, vocabulary_size: int, dropout: float | None = None, architecture: str = "bert"
) -> BertConfig:
    """The configuration called `name`: a preset, or `LAYERSxHIDDEN` such as `6x384`.

    Args:
        dropout: None takes the architecture's own: 0.1 of BERT, 0 of ModernBERT.
        architecture: bert or modernbert.

    Raises:
        UserError: the name is neither (the nearest preset is offered), or the architecture is unknown.
    """
    if architecture not in CONFIGS:
        raise unknown_name("architecture", architecture, CONFIGS)
    layers, hidden_size = _size(name, MODERNBERT_PRESETS if architecture == "modernbert" else PRESETS)
    heads = max(1, hidden_size // HEAD_SIZE)
    if architecture == "modernbert":
        wide = _MODERNBERT_FEED_FORWARD.get(hidden_size, -(-3 * hidden_size // 2))
        return ModernBertConfig(vocabulary_size, layers, hidden_size, heads, wide, dropout=dropout or 0.0)
    return BertConfig(
        vocabulary_size=vocabulary_size,
        layers=layers,
        hidden_size=hidden_size,
        attention_heads=heads,
        feed_forward_size=4 * hidden_size,
        dropout=0.1 if dropout is None else dropout,
        initializer_range=max(PUBLISHED_DEVIATION, MIN_GAIN / hidden_size**0.5),
    )


def _size(name: str, presets: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """Layers and hidden size."""
    custom = re.fullmatch(r"(\d+)[x×](\d+)", name)
    if custom:
        layers, hidden_size = int(custom[1]), int(custom[2])
    elif name in presets:
        layers, hidden_size = presets[name]
    else:
        error = unknown_name("model", name, [*presets, "LAYERSxHIDDEN"])
        if "-" in name or "/" in name:  # bert-base-uncased and its like
            raise UserError(
                error.what, remedy=f"{error.remedy}. To continue a published model, name its folder with `init_from`"
            )
        raise error
    if hidden_size < 1:
        raise UserError(f"model {name}", remedy="Give a hidden size from 1, such as 6x384")
    return layers, hidden_size
