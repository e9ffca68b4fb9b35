"""The model of the best seed, as a Hugging Face folder that `transformers.pipeline` opens."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import nn

from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.finetune.cache import FineTuneResult
from lambert.finetune.job import FineTuneJob
from lambert.finetune.labelled.details import given_labels
from lambert.finetune.labelled.metrics import compute_metrics
from lambert.finetune.labelled.sequences import LabelledSettings
from lambert.finetune.labelled.task import Task
from lambert.model.huggingface import save_model
from lambert.utils import io

_RECORD = "fine_tuning.json"
_PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}


@dataclass
class BestModel:
    """Writes a model whenever it is better than those before it."""

    folder: Path
    task: Task
    dev: list[Any]
    score: float = float("-inf")
    """The best so far."""

    def offer(self, model: nn.Module, tokenizer: Tokenizer, result: FineTuneResult, made_from: dict[str, Any]) -> None:
        """Write the model if it is the best."""
        score = score_of(self.task, self.dev, result)
        if score > self.score:
            self.score = score
            self._write(model, tokenizer, made_from)

    def holds(self, made_from: dict[str, Any]) -> bool:
        """Whether the folder has the model of this fine-tuning."""
        try:
            known = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(known == json.loads(json.dumps(made_from)))

    def _write(self, model: nn.Module, tokenizer: Tokenizer, made_from: dict[str, Any]) -> None:
        config: Any = model.config
        aside = self.folder.with_name(f".{self.folder.name}.{os.getpid()}")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            save_model(model, aside, more_settings=class_settings(self.task))
            save_tokenizer(tokenizer, aside, longest_sequence=config.maximum_positions)
            io.write_json(aside / _RECORD, made_from)
            shutil.rmtree(self.folder, ignore_errors=True)
            aside.rename(self.folder)
        except OSError as error:
            raise io.unwritable(error, self.folder, remedy="Choose another folder") from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def score_of(task: Task, dev: list[Any], result: FineTuneResult) -> float:
    """Mean of the metrics that are scored."""
    metrics = compute_metrics(task, given_labels(dev), result.predictions["labels"])
    scored = task.scored or task.metrics
    return sum(metrics[name] for name in scored) / len(scored)


def class_settings(task: Task) -> dict[str, Any]:
    """What `config.json` says of the classes: their names and the problem type."""
    labels = task.labels or ("LABEL_0",)
    settings: dict[str, Any] = {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    if task.kind in _PROBLEM_TYPES:
        settings["problem_type"] = _PROBLEM_TYPES[task.kind]
    return settings


def finished_model(job: FineTuneJob[LabelledSettings], best: BestModel, seed: int) -> None:
    """Train the best seed again if the folder does not have its model."""
    if not best.holds(job.made_from(seed)):
        best.score = float("-inf")
        job.run_again(seed, f"seed {seed}, whose model is missing")
