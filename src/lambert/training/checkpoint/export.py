"""Exports a run's newest checkpoint as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer

from lambert.corpus.vocabulary import load_vocabulary, save_tokenizer
from lambert.errors import Interrupted, UserError
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import save_model
from lambert.training.checkpoint.format import newest_checkpoint
from lambert.training.checkpoint.recorded_recipe import model_of
from lambert.training.checkpoint.run_dir import MODEL_FOLDER, TOKENIZER_FOLDER
from lambert.utils.io import atomic_folder, why_unwritable


def export_run(run: Path, folder: Path) -> int:
    """Write the model of `run`'s newest complete checkpoint and its tokenizer to `folder`; returns its step.

    Raises:
        UserError: `run` is not a run, has no checkpoint yet or only damaged ones, or `folder` exists.
    """
    config = model_of(run)
    saved, _ = newest_checkpoint(run)
    if saved is None:
        raise UserError(f"{run} has no checkpoint yet", remedy="Let the run reach its first checkpoint")
    tokenizer = load_vocabulary(run / TOKENIZER_FOLDER, cased=False)
    model = BertForPreTraining(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(saved.tensors["model"][name])
    with atomic_folder(folder) as aside:
        write_model(model, tokenizer, aside)
    return saved.step


def export_finished(run: Path, model: BertForPreTraining, tokenizer: Tokenizer) -> None:
    """Write the Hugging Face folder of a finished run.

    Raises:
        Interrupted: it cannot be written; the run's last checkpoint is complete.
    """
    try:
        write_model(model, tokenizer, run / MODEL_FOLDER)
    except (OSError, SafetensorError) as error:
        raise Interrupted(
            f"the finished model cannot be written to {run / MODEL_FOLDER}: {why_unwritable(error, run)}",
            remedy="The run's last checkpoint is complete: fix the cause, then give the same command again",
        ) from None


def write_model(model: BertForPreTraining, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a Hugging Face folder: weights, configuration and tokenizer."""
    save_model(model, folder)
    save_tokenizer(tokenizer, folder, longest_sequence=model.config.maximum_positions)
