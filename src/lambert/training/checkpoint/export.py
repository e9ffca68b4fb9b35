"""Writes a run's checkpoint as a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer

from lambert.corpus.tokenizer_files import load_vocabulary, save_tokenizer
from lambert.corpus.vocabulary import add_special_tokens
from lambert.errors import Interrupted, UserError
from lambert.model.heads import PreTrainingModel, pretraining_model
from lambert.model.huggingface import save_model
from lambert.training.checkpoint.export_check import check_export, differences_in_transformers
from lambert.training.checkpoint.format import (
    Checkpoint,
    finished_steps,
    load_checkpoint,
    newest_checkpoint,
    run_and_step,
)
from lambert.training.checkpoint.recorded_recipe import settings_of
from lambert.training.checkpoint.run_dir import MODEL_FOLDER, TOKENIZER_FOLDER
from lambert.utils.io import why_unwritable
from lambert.utils.tokenizer_calls import parse_tokenizer


@dataclass(frozen=True)
class Exported:
    """An export, opened again by lambert and by `transformers` where that is installed."""

    step: int
    """Of the checkpoint."""
    checked_with_transformers: bool
    """Whether `transformers` gave the same ids and logits."""
    rules_in_file: bool = False
    """Whether `transformers` made another tokenizer of BERT's settings, so that it is now told to take
    `tokenizer.json`, as a `PreTrainedTokenizerFast`."""


def write_checkpoint_model(run: Path, folder: Path, *, step: int | None = None) -> Exported:
    """Write the model of a complete checkpoint of `run` and its tokenizer into `folder`, and open it again.

    Args:
        run: or one of its checkpoints, `RUN/checkpoints/step-N`.
        step: of the checkpoint; None takes the newest.

    Raises:
        UserError: `run` is not a run, has no such checkpoint or only damaged ones, or what is read from `folder` is not
            what was written.
    """
    run, named = run_and_step(run)
    step = named if step is None else step
    settings = settings_of(run)
    saved = _checkpoint(run, step)
    config = settings.model_at(saved.step)
    tokenizer = load_vocabulary(run / TOKENIZER_FOLDER / "tokenizer.json", cased=False)
    model = pretraining_model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(saved.weights[name])
    write_model(model, tokenizer, folder)
    fitting = _fitting(tokenizer, model)
    differences = differences_in_transformers(model, fitting, folder)
    if rules_in_file := "ids" in (differences or ()):
        save_tokenizer(fitting, folder, longest_sequence=config.maximum_positions, rules_in_file=True)
        differences = differences_in_transformers(model, fitting, folder)
    if differences:
        raise UserError(
            f"the transformers that is installed reads other {' and '.join(differences)} from the export",
            remedy="Use another version of transformers, or export where none is installed",
        )
    return Exported(saved.step, checked_with_transformers=differences is not None, rules_in_file=rules_in_file)


def _checkpoint(run: Path, step: int | None) -> Checkpoint:
    kept = finished_steps(run)
    if step is not None and step not in kept:
        steps = ", ".join(f"{one:,}" for one in sorted(kept)) or "none"
        raise UserError(
            f"{run} has no checkpoint of step {step:,}, but of {steps}",
            remedy="Give one of these steps; `lambert pretrain --keep-every` keeps more of them",
        )
    saved = newest_checkpoint(run)[0] if step is None else load_checkpoint(run, step)
    if saved is None:
        raise UserError(f"{run} has no checkpoint yet", remedy="Let the run reach its first checkpoint")
    return saved


def export_finished(run: Path, model: PreTrainingModel, tokenizer: Tokenizer) -> None:
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


def write_model(model: PreTrainingModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a Hugging Face folder (weights, configuration and tokenizer), and read it again.

    Raises:
        UserError: it cannot be written, what is read is not what was written, or logits are not finite.
    """
    tokenizer = _fitting(tokenizer, model)
    save_model(model, folder)
    save_tokenizer(tokenizer, folder, longest_sequence=model.config.maximum_positions)
    check_export(model, tokenizer, folder)


def _fitting(tokenizer: Tokenizer, model: PreTrainingModel) -> Tokenizer:
    """The tokenizer with the model's segment types."""
    fitting = parse_tokenizer(tokenizer.to_str())
    if model.config.segment_types == 1:
        add_special_tokens(fitting, segments=1)
    return fitting
