"""What was measured on this machine before, so that no run measures it again.

One small JSON file in the user's cache folder: numbers only, a line for each kind of step. A damaged or missing file is
an empty one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lambert.utils.io import SETTINGS_BYTES, read_json, write_text

VARIABLE = "LAMBERT_PROBE_CACHE"
"""Environment variable: another folder, or `off`. Default: `lambert` in the user's cache folder."""
MOST_ENTRIES = 1_000
"""The oldest are forgotten beyond that."""
_FILE = "probes.json"


def cache_folder() -> Path | None:
    """The folder of this user's measurements; None where they are not kept."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen.lower() in ("off", "0"):
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(chosen or f"{base if os.path.isabs(base) else os.path.expanduser('~/.cache')}/lambert")


def probe_key(facts: Mapping[str, Any]) -> str:
    """A digest of everything that a measurement depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def remembered(key: str, count: int) -> tuple[float, ...] | None:
    """The `count` numbers measured under `key`; None if there are none."""
    numbers = _read().get(key)
    if not isinstance(numbers, list) or len(numbers) != count:
        return None
    if not all(isinstance(number, (int, float)) and 0 <= number < math.inf for number in numbers):
        return None
    return tuple(float(number) for number in numbers)


def remember(key: str, numbers: Sequence[float]) -> None:
    """Keep numbers under `key`; where the folder cannot be written, do nothing."""
    folder = cache_folder()
    if folder is None:
        return
    entries = _read()
    entries.pop(key, None)
    entries[key] = list(numbers)
    newest = dict(list(entries.items())[-MOST_ENTRIES:])
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text(folder / _FILE, json.dumps(newest, indent=0))
    except OSError:
        return


def _read() -> dict[str, Any]:
    folder = cache_folder()
    try:
        entries = {} if folder is None else read_json(folder / _FILE, SETTINGS_BYTES)
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}
