"""Differences between two tables of settings, as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one: `{"model": {"layers": 2}}` → `{"model.layers": 2}`; tables in a list count from 1."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = [(str(number), item) for number, item in enumerate(value, start=1)]
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat |= flatten(item, f"{prefix}.{key}" if prefix else key)
    return flat


def differences(
    recorded: Mapping[str, Any],
    current: Mapping[str, Any],
    *,
    ignored: Callable[[str], bool] = lambda key: False,
    show: Callable[[Any], str] = str,
) -> list[str]:
    """One line for each key of the flattened tables whose values differ, sorted by key.

    Args:
        ignored: keys that may differ.
        show: a value as text.
    """
    there, now = flatten(recorded), flatten(current)
    return [
        f"{key}: {show(there.get(key, 'nothing'))} there, {show(now.get(key, 'nothing'))} now"
        for key in sorted(there.keys() | now.keys())
        if there.get(key) != now.get(key) and not ignored(key)
    ]
