"""Cached results: one file for each finished fine-tuning, so that the same command does not repeat it.

A file records what its fine-tuning was made from: digests of model and examples, and every setting that changes the
weights or the predictions. Metrics are not cached but computed again, so a metric or a threshold can change without
training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.finetune.files import MAX_TEXT_BYTES, write_json
from lambert.model.weight_files import weight_files
from lambert.utils.diff import differences, flatten
from lambert.utils.hub import CONFIG_FILE, TOKENIZER_FILES
from lambert.utils.io import file_sha256, read_json

CACHE_FOLDER = "cache"
FORMAT = 4
"""Of a cache file. A file of another format counts as missing."""
_MODEL_FILES = (CONFIG_FILE, *TOKENIZER_FILES)


@dataclass(frozen=True)
class FineTuneResult:
    """The outcome of one fine-tuning: everything that its metrics are computed from."""

    seed: int
    learning_rate: float | None
    """Peak; None: the default."""
    predictions: dict[str, Any]
    """What the task predicts for the development examples; empty after a divergence."""
    train_loss: float | None = None
    """None after a divergence."""
    steps: int = 0
    train_sequences: int = 0
    dev_sequences: int = 0
    seconds: float = 0.0
    problem: str | None = None
    """Why it diverged."""
    curve: list[list[float]] = field(default_factory=list)
    """Of the training loss, as in `TrainSummary`; empty in files of before it was kept."""


class ResultCache:
    """The finished fine-tunings in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str, made_from: Mapping[str, Any]) -> FineTuneResult | None:
        """The cached result of a name; None where there is none, or its file is damaged or of another format.

        Raises:
            UserError: it was made from something else; each difference is shown.
        """
        path = self._path(name)
        try:
            value = read_json(path, MAX_TEXT_BYTES)
            if value["format"] != FORMAT:
                return None
            result = FineTuneResult(**value["result"])
            cached = flatten(value["made_from"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if found := differences(cached, json.loads(json.dumps(made_from)), show=_short):
            raise UserError(
                f"{path} was made from something else ({'; '.join(found)})",
                remedy="Give the same to resume, another `out`, or `fresh=True` to start over",
            )
        return result

    def put(self, name: str, made_from: Mapping[str, Any], result: FineTuneResult) -> None:
        """Cache a result, atomically.

        Raises:
            UserError: the folder cannot be written to.
        """
        write_json(self._path(name), {"format": FORMAT, "made_from": made_from, "result": asdict(result)})

    def clear(self) -> None:
        """Delete all cached results, and nothing else in the folder."""
        for path in [*self._folder.glob("seed-*.json"), *self._folder.glob("rate-*.json")]:
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def model_digest(folder: Path) -> str:
    """SHA-256 of the files that decide a model."""
    digest = hashlib.sha256()
    for path in [*(folder / name for name in _MODEL_FILES), *weight_files(folder)]:
        if path.is_file():
            digest.update(path.name.encode() + bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def examples_digest(examples: Sequence[Any]) -> str:
    """SHA-256 of a list of dataclasses."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(example, default=vars).encode())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
