"""The weights that a run starts from: random ones, or those of a model that it continues."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import WrongCase, load_vocabulary
from lambert.corpus.tokenizer_rules import tokenizer_differences
from lambert.corpus.vocabulary import is_cased
from lambert.errors import UserError
from lambert.model.config_file import read_config
from lambert.model.heads import PreTrainingModel, pretraining_model
from lambert.model.huggingface import LoadReport, load_model, model_folder
from lambert.training.config.training_config import TrainingConfig
from lambert.training.config.unigram import UnigramBaseline
from lambert.utils.formatting import shell_command
from lambert.utils.hub import is_hub_name


def starting_model(settings: TrainingConfig, init_from: Path | None, corpus: Corpus) -> PreTrainingModel:
    """The model of `load_starting_model`."""
    return load_starting_model(settings, init_from, corpus)[0]


def load_starting_model(
    settings: TrainingConfig, init_from: Path | None, corpus: Corpus
) -> tuple[PreTrainingModel, LoadReport]:
    """Initial weights: random from the run's seed (docs/recipes.md, "How models start"), or those of `init_from`.

    The report names what `init_from` has no weights for, and what the model does not use of it.

    Raises:
        UserError: the model cannot be read, or its tokenizer is not the corpus's.
    """
    torch.manual_seed(settings.seed)
    if init_from is None:
        model = pretraining_model(settings.model)
        _predict_frequencies(model, corpus)
        return model, LoadReport([], [])
    folder = model_folder(init_from)
    entries = vocabulary_entries(folder, corpus)
    model, report = load_model(folder, pretraining_model, config=settings.model, entries=entries)
    if "mlm_head.bias" in report.freshly_initialised:
        _predict_frequencies(model, corpus)
    return model, report


@functools.lru_cache(maxsize=4)  # a plan asks several times
def vocabulary_entries(folder: Path, corpus: Corpus) -> tuple[int, int]:
    """Entries of the vocabulary of a model's folder, and of the corpus's, which begins with them.

    Raises:
        UserError: the tokenizers differ in a rule or an entry, or the model has fewer rows than its vocabulary entries.
    """
    ours, cased = corpus.tokenizer(), is_cased(corpus.tokenizer())
    again = f"Prepare the corpus again with `{shell_command('lambert', 'prepare', '--vocab', folder)}`"
    try:
        theirs = load_vocabulary(folder, cased=cased)
    except WrongCase as error:
        raise UserError(error.what, remedy=again if cased else f"{again[:-1]} --cased`") from None
    if differences := tokenizer_differences(theirs, ours, may_grow=True):
        raise UserError(
            f"the tokenizer of {folder} is not that of {corpus.path}: {'; '.join(differences)}", remedy=again
        )
    known, rows = theirs.get_vocab_size(), read_config(folder).vocabulary_size
    if known > rows:
        raise UserError(
            f"the vocabulary of {folder} has {known:,} entries, its model {rows:,}",
            remedy="Give the model with the vocabulary that it was trained with",
        )
    return known, ours.get_vocab_size()


def initial_name(path: Path | None) -> str:
    """Display name of the model that is continued: its name on the Hub, or the folder's; a run's is the run's."""
    if path is None or is_hub_name(path):
        return "" if path is None else str(path)
    path = path.resolve()
    return path.parent.name if path.name == "huggingface" else path.name


def _predict_frequencies(model: PreTrainingModel, corpus: Corpus) -> None:
    """Start the bias of the MLM head at the unigram log-probabilities of the text; of rows beyond, at the least."""
    frequencies = UnigramBaseline(corpus.split("train").token_counts()).log_probabilities
    with torch.no_grad():
        bias = model.mlm_head.bias.fill_(float(frequencies.min()))
        bias[: len(frequencies)] = torch.from_numpy(frequencies)
