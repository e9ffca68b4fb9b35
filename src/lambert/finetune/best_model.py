"""The model of the best seed, as a Hugging Face folder that `transformers` opens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import nn

from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.finetune.cache import FineTuneResult
from lambert.model.huggingface import save_model
from lambert.utils import io

MODEL_FOLDER = "model"
"""In the folder of the results."""
_RECORD = "fine_tuning.json"


@dataclass
class BestModel:
    """Writes a model whenever it is better than those before it."""

    folder: Path
    score_of: Callable[[FineTuneResult], float]
    made_from: Callable[[int], dict[str, Any]]
    """Of a seed: everything that decides its model, ready for JSON."""
    more_settings: Mapping[str, Any]
    """Of `config.json`."""
    score: float = float("-inf")
    """The best so far."""

    def offer(self, model: nn.Module, tokenizer: Tokenizer, result: FineTuneResult) -> None:
        """Write the model if it is the best."""
        score = self.score_of(result)
        if score > self.score:
            self.score = score
            self._write(model, tokenizer, result.seed)

    def holds(self, seed: int) -> bool:
        """Whether the folder has the model of this seed."""
        try:
            known = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(known == json.loads(json.dumps(self.made_from(seed))))

    def _write(self, model: nn.Module, tokenizer: Tokenizer, seed: int) -> None:
        config: Any = model.config
        aside = self.folder.with_name(f".{self.folder.name}.{os.getpid()}")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            save_model(model, aside, more_settings=dict(self.more_settings))
            save_tokenizer(tokenizer, aside, longest_sequence=config.maximum_positions)
            io.write_json(aside / _RECORD, self.made_from(seed))
            shutil.rmtree(self.folder, ignore_errors=True)
            aside.rename(self.folder)
        except OSError as error:
            raise io.unwritable(error, self.folder, remedy="Choose another folder") from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)
