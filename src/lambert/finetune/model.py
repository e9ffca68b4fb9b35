"""A folder's pre-trained encoder under the head of a task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer
from torch import nn

from lambert.corpus.tokenizer_files import load_vocabulary
from lambert.errors import UserError
from lambert.model.bert import BertConfig
from lambert.model.config_file import read_config
from lambert.model.huggingface import load_model, model_folder

Model = TypeVar("Model", bound=nn.Module)


def load_with_head(
    path: Path, head: Callable[[BertConfig], Model], *, seed: int, cased: bool = False, random_weights: bool = False
) -> tuple[Model, Tokenizer, list[str]]:
    """The model of a folder, its tokenizer, and the names of the parameters that have no pre-trained weights.

    Args:
        path: a run, or a Hugging Face BERT folder.
        head: builds encoder and head.
        seed: decides the initialisation of a new head, and of all weights with `random_weights`.
        cased: how to read a folder that has only a `vocab.txt` and does not say.
        random_weights: take only the size and the vocabulary from the folder.

    Raises:
        UserError: the folder or something in it is missing, damaged or not a BERT.
    """
    folder = model_folder(path)
    tokenizer = load_vocabulary(folder, cased=cased)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if random_weights:
            model = head(read_config(folder))
            return model, tokenizer, [name for name, _ in model.named_parameters()]
        model, report = load_model(folder, head)
    return model, tokenizer, report.freshly_initialised


def check_fit(model: nn.Module, tokenizer: Tokenizer, sequence_length: int) -> None:
    """Refuse sequences longer than the model's positions, and a vocabulary larger than its embedding.

    Raises:
        UserError: says which of the two.
    """
    config: Any = model.config
    if sequence_length > config.maximum_positions:
        raise UserError(
            f"sequences of {sequence_length} tokens do not fit a model of {config.maximum_positions} positions",
            remedy=f"Set `sequence_length` to {config.maximum_positions} or less",
        )
    entries = tokenizer.get_vocab_size(with_added_tokens=True)
    if entries > config.vocabulary_size:
        raise UserError(
            f"the tokenizer has {entries} entries, the model {config.vocabulary_size}",
            remedy="Put the vocabulary that the model was trained with into its folder",
        )
