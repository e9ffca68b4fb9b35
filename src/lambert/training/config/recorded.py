"""Recipes that another version of lambert recorded: settings that it did not have, or that this one does not have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from enum import Enum
from typing import Any

from lambert.data.objective import ObjectiveConfig
from lambert.errors import UserError
from lambert.model.architectures import CONFIGS, config_class
from lambert.training.config.phase_config import PhaseConfig
from lambert.utils.diff import flatten

_PARTS: dict[str, tuple[type[Any], ...]] = {
    "model": tuple(CONFIGS.values()),
    "examples": (ObjectiveConfig,),
    "phases": (PhaseConfig,),
}
"""Tables of a recipe, whose settings may be None and then are left out; what they may be made of."""


def with_defaults(tables: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """The tables with the settings that they lack, at the defaults of the dataclasses.

    The default of a setting is therefore what runs did before it existed.

    Args:
        tables: of `TrainingConfig.as_tables`, perhaps of an earlier version.
        kind: `TrainingConfig`.
    """
    found = {**_defaults(kind), **tables}
    if isinstance(model := found.get("model"), Mapping):
        found["model"] = {"architecture": "bert", **_defaults(config_class(model)), **model}
    if isinstance(examples := found.get("examples"), Mapping):
        found["examples"] = {**_defaults(ObjectiveConfig), **examples}
    if isinstance(phases := found.get("phases"), list) and all(isinstance(phase, Mapping) for phase in phases):
        found["phases"] = [{**_derived(phase), **_defaults(PhaseConfig), **phase} for phase in phases]
    return found


def refuse_unknown_settings(recorded: Mapping[str, Any], current: Mapping[str, Any], whose: str, version: str) -> None:
    """Check that each recorded setting is one of this version.

    Args:
        recorded, current: tables of `TrainingConfig.as_tables`.
        whose: where the recorded ones come from, as the beginning of the message.
        version: of the lambert that wrote them; empty where unknown.

    Raises:
        UserError: there are others, and nobody knows what they change.
    """
    known = {_generic(key) for key in flatten(current)} | {"command", "lambert"}
    known |= {f"{name}.{field.name}" for name, parts in _PARTS.items() for part in parts for field in fields(part)}
    unknown = sorted({_generic(key) for key in flatten(recorded)} - known)
    if unknown:
        own = f"lambert {version}" if version else "the version of lambert that wrote it"
        raise UserError(
            f"{whose} of another version of lambert, with settings that this one does not have: {', '.join(unknown)}",
            remedy=f"Install {own} to resume it, or choose another `out`",
        )


def _generic(key: str) -> str:
    return re.sub(r"^phases\.\d+\.", "phases.", key)


def _defaults(kind: type[Any]) -> dict[str, Any]:
    return {field.name: _plain(field.default) for field in fields(kind) if field.default is not MISSING}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.value if isinstance(value, Enum) else list(value) if isinstance(value, tuple) else value


def _derived(phase: Mapping[str, Any]) -> dict[str, Any]:
    """What each phase records beside its settings, where it can be computed."""
    try:
        samples = int(phase["steps"]["value"]) * phase["batch_size"]
        return {"samples": samples, "tokens": samples * phase["sequence_length"]}
    except (KeyError, TypeError, ValueError):
        return {}
