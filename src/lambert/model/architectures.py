"""The architectures that can be trained, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lambert.errors import UserError
from lambert.model.bert import BertConfig, BertModel, Encoder
from lambert.model.modernbert import ModernBertConfig, ModernBertModel

CONFIGS: dict[str, type[BertConfig]] = {"bert": BertConfig, "modernbert": ModernBertConfig}
"""Name, as in `model_type` of `config.json`, → the class of its configuration."""


def architecture_of(config: BertConfig) -> str:
    """The name of the architecture."""
    return next(name for name, kind in CONFIGS.items() if kind is type(config))


def config_class(table: Mapping[str, Any]) -> type[BertConfig]:
    """The class of a recorded configuration: `architecture` says which; BERT's where it is missing."""
    return CONFIGS.get(str(table.get("architecture", "bert")), BertConfig)


def recorded_config(table: Mapping[str, Any]) -> BertConfig:
    """The configuration that a table of `TrainingConfig.as_tables` holds.

    Raises:
        TypeError: a setting is missing or unknown.
        UserError: a setting is out of its range.
    """
    return config_class(table)(**{name: value for name, value in table.items() if name != "architecture"})


def with_rope_theta(config: BertConfig, theta: float | None) -> BertConfig:
    """The configuration with another base of the rotary positions in global layers; None keeps it.

    Raises:
        UserError: the architecture has no rotary positions.
    """
    if theta is None:
        return config
    if not isinstance(config, ModernBertConfig):
        raise UserError(
            f"global_rope_theta {theta:g} for {architecture_of(config)}, which has no rotary positions",
            remedy="Leave it out of the recipe, or train a ModernBERT",
        )
    return replace(config, global_rotary_base=theta)


def encoder(config: BertConfig) -> Encoder:
    """The encoder of a configuration, with PyTorch's random weights."""
    return ModernBertModel(config) if isinstance(config, ModernBertConfig) else BertModel(config)
