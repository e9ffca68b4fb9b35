"""`config.json` of a ModernBERT: their settings as ours and back. What is not computed here is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.model.modernbert import ModernBertConfig

FIELDS = {
    "vocabulary_size": "vocab_size",
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "attention_heads": "num_attention_heads",
    "feed_forward_size": "intermediate_size",
    "maximum_positions": "max_position_embeddings",
    "dropout": "embedding_dropout",
    "attention_dropout": "attention_dropout",
    "layer_norm_epsilon": "norm_eps",
    "initializer_range": "initializer_range",
    "pad_token_id": "pad_token_id",
    "tied_decoder": "tie_word_embeddings",
    "classifier_dropout": "classifier_dropout",
    "local_window": "local_attention",
}
"""Our field → theirs, of the same meaning and type. For the kinds of layers and the rotary bases see `more_fields`."""
REQUIRED: dict[str, tuple[Any, ...]] = {
    "hidden_activation": ("gelu",),
    "norm_bias": (False,),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "decoder_bias": (True,),
    "classifier_bias": (False,),
    "classifier_activation": ("gelu",),
    "classifier_pooling": ("cls",),
    "rope_scaling": (),
}
"""What this encoder computes; any other value means another model."""
WITHOUT_EFFECT = {
    *("deterministic_flash_attn", "sparse_prediction", "sparse_pred_ignore_index", "reference_compile"),
    *("repad_logits_with_grad", "initializer_cutoff_factor", "cls_token_id", "position_embedding_type"),
    *("mlp_dropout", "layer_types", "rope_parameters", "global_attn_every_n_layers"),
    *("global_rope_theta", "local_rope_theta", "layer_norm_eps", "causal_mask", "is_causal"),
}
"""Without effect, or read by `more_fields`."""
_DEFAULTS = {"full_attention": 160_000.0, "sliding_attention": 10_000.0}
_GLOBAL, _LOCAL = _DEFAULTS


def more_fields(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that `FIELDS` does not hold: which layers are global, and the two rotary bases.

    Raises:
        UserError: they are not those of a ModernBERT that this encoder computes.
    """
    dropout = settings.get("embedding_dropout", 0.0)
    if settings.get("mlp_dropout", 0.0) != dropout:
        raise _other(path, f"mlp_dropout is {settings['mlp_dropout']!r}, embedding_dropout {dropout!r}")
    bases = dict(_DEFAULTS)
    for kind, old in ((_GLOBAL, "global_rope_theta"), (_LOCAL, "local_rope_theta")):
        bases[kind] = settings.get(old, bases[kind])
    ropes = settings.get("rope_parameters", {})
    for kind, rope in ropes.items() if isinstance(ropes, Mapping) else ():
        if kind not in bases or not isinstance(rope, Mapping) or rope.get("rope_type", "default") != "default":
            raise _other(path, f"rope_parameters has {kind!r}: {rope!r}")
        bases[kind] = rope.get("rope_theta", bases[kind])
    for kind, base in bases.items():
        if isinstance(base, bool) or not isinstance(base, (int, float)):
            raise _other(path, f"the rotary base of {kind} is {base!r}")
    return {
        "global_every": _global_every(path, settings),
        "global_rotary_base": float(bases[_GLOBAL]),
        "local_rotary_base": float(bases[_LOCAL]),
    }


def _global_every(path: Path, settings: Mapping[str, Any]) -> int:
    kinds = settings.get("layer_types")
    if kinds is None:
        every = settings.get("global_attn_every_n_layers", 3)
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise _other(path, f"global_attn_every_n_layers is {every!r}")
        return int(every)
    if isinstance(kinds, list) and kinds:
        every = next((layer for layer, kind in enumerate(kinds) if layer and kind == _GLOBAL), len(kinds))
        if kinds == layer_types(len(kinds), every) and len(kinds) == settings.get("num_hidden_layers"):
            return every
    raise _other(path, f"layer_types is {kinds!r}, not {_GLOBAL!r} in every n-th layer from the first")


def layer_types(layers: int, every: int) -> list[str]:
    """`layer_types` as `transformers` writes it."""
    return [_LOCAL if layer % every else _GLOBAL for layer in range(layers)]


def settings_of(config: ModernBertConfig, architecture: str) -> dict[str, Any]:
    """The content of `config.json`, as `transformers` 5 writes it and 4.48 reads it.

    Args:
        architecture: name of the class in `transformers`.
    """
    attention = config.dropout if config.attention_dropout is None else config.attention_dropout
    return {
        "architectures": [architecture],
        "model_type": "modernbert",
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        "attention_dropout": attention,
        "classifier_dropout": config.classifier_dropout or 0.0,
        "mlp_dropout": config.dropout,
        **{name: values[0] for name, values in REQUIRED.items() if values},
        "global_attn_every_n_layers": config.global_every,
        "layer_types": layer_types(config.layers, config.global_every),
        "global_rope_theta": config.global_rotary_base,
        "local_rope_theta": config.local_rotary_base,
        "rope_parameters": {
            _GLOBAL: {"rope_type": "default", "rope_theta": config.global_rotary_base},
            _LOCAL: {"rope_type": "default", "rope_theta": config.local_rotary_base},
        },
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    }


def _other(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}", remedy="Give a model of the ModernBERT family as published")
