"""Fine-tunings that are done are kept, one file each, so that the same command does not do them again.

A file says what its fine-tuning was made from: digests of model and questions, and every setting that decides the
weights or the spans. Figures are not kept but computed anew, so a metric or a threshold can change without training.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.finetune.squad.data import Question, read_json
from lambert.finetune.squad.settings import FineTuneSettings

_MODEL_FILES = ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json")
FREE_SETTINGS = ("null_threshold",)
"""Settings that are applied to what a fine-tuning left, and decide nothing of it."""


@dataclass(frozen=True)
class Outcome:
    """What one fine-tuning left: everything that its figures are computed from."""

    seed: int
    learning_rate: float | None
    """Peak; None: the default."""
    train_loss: float | None
    """None where the fine-tuning came to nothing."""
    steps: int
    train_windows: int
    dev_windows: int
    seconds: float
    spans: dict[str, str]
    """Question id → the best span."""
    null_odds: dict[str, float] | None
    """Question id → odds of no answer; None for v1.1."""
    problem: str | None = None
    """Why it came to nothing."""


class KeptOutcomes:
    """The finished fine-tunings of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str, made_from: Mapping[str, Any]) -> Outcome | None:
        """The outcome kept under a name; None where there is none, or its file is damaged and has to be made again.

        Raises:
            UserError: it was made from something else; each difference is shown.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            value = read_json(path, what="squad")
            there, outcome = value["made_from"], value["outcome"]
            kept = Outcome(**{field.name: outcome[field.name] for field in fields(Outcome)})
            there = _flat(there)
        except (UserError, KeyError, TypeError, AttributeError):
            return None
        differences = _differences(there, _flat(json.loads(json.dumps(made_from))))
        if differences:
            raise UserError(
                f"{path} was made from something else ({'; '.join(differences)})",
                remedy="Give what it was made from to go on, another --out, or --fresh to start over",
            )
        return kept

    def put(self, name: str, made_from: Mapping[str, Any], outcome: Outcome) -> None:
        """Keep an outcome: written aside, synced, renamed.

        Raises:
            UserError: the folder cannot be written to.
        """
        write_json(self._path(name), {"made_from": made_from, "outcome": asdict(outcome)})

    def forget(self) -> None:
        """Delete all of them, and nothing else that lies there."""
        for path in [*self._folder.glob("seed-*.json"), *self._folder.glob("rate-*.json")]:
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def made_from_digests(model: Path, **questions: Sequence[Question]) -> dict[str, Any]:
    """SHA-256 of the model in a folder, and of each list of questions under its name."""
    digests = {name: _questions_digest(some) for name, some in questions.items()}
    return {"model": _model_digest(model), "questions": digests}


def kept_settings(settings: FineTuneSettings) -> dict[str, Any]:
    """The settings that decide an outcome, ready for JSON."""
    told = asdict(settings)
    told["precision"] = settings.precision.value
    for name in FREE_SETTINGS:
        del told[name]
    return told


def write_json(path: Path, value: Any) -> None:
    """A value as JSON in a file that is there whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    aside = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file:
            file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise UserError(
            f"{path.parent} cannot be written to ({error.strerror})", remedy="Choose another folder"
        ) from error


def _differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {_short(there.get(name, 'nothing'))} there, {_short(now.get(name, 'nothing'))} now"
        for name in sorted(there.keys() | now.keys())
        if there.get(name) != now.get(name)
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _model_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in _MODEL_FILES:
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _questions_digest(questions: Sequence[Question]) -> str:
    digest = hashlib.sha256()
    for question in questions:
        answers = [(answer.text, answer.start) for answer in question.answers]
        digest.update(json.dumps((question.id, question.question, question.context, answers)).encode())
    return digest.hexdigest()
