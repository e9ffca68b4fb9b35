"""Using a trained model from Python: its metrics on held-out text, and filling blanks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import overload

from tokenizers import Tokenizer

from lambert.api.messages import log
from lambert.api.resolution import opened_corpus
from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import load_vocabulary
from lambert.data.objective import BERT_OBJECTIVE, ObjectiveConfig
from lambert.errors import UserError
from lambert.model.fill import Candidate, dropped_from, refuse_more_tokens, unknown_words
from lambert.model.fill import fill_mask as fill_mask_of
from lambert.model.heads import PreTrainingModel, pretraining_model
from lambert.model.huggingface import load_model, model_folder
from lambert.training.config.precision import Precision
from lambert.training.config.starting_model import vocabulary_entries
from lambert.training.step.evaluation import Validator
from lambert.utils.formatting import shell_command


def evaluate(
    model: PreTrainingModel | str | Path,
    corpus: Corpus | str | Path,
    *,
    sequence_length: int = 128,
    samples: int = 1_024,
    objective: ObjectiveConfig = BERT_OBJECTIVE,
) -> dict[str, float]:
    """MLM and NSP metrics on a corpus's held-out text, beside the unigram and majority-class baselines::

        lambert.evaluate("runs/mine", "my-corpus")["mlm_loss"]

    Every masked token is behind [MASK], and the sequences are the same at every call.

    Args:
        model: a run, a Hugging Face folder, or the model itself.
        sequence_length: tokens; at most the model's positions.
        samples: held-out sequences, at most as many as there are.

    Returns:
        `mlm_loss`, `mlm_accuracy`, `unigram_loss`, `unigram_accuracy`, `masked_tokens`, and with sentence pairs
        `nsp_loss`, `nsp_accuracy`, `nsp_majority_accuracy`; losses in nats.

    Raises:
        UserError: the model or the corpus cannot be read, their vocabularies differ, or no text is held out.
    """
    corpus = opened_corpus(corpus)
    if not isinstance(model, PreTrainingModel):
        folder = model_folder(Path(model))
        known, wanted = vocabulary_entries(folder, corpus)
        if known != wanted:
            raise UserError(
                f"the vocabulary of {folder} has {known:,} entries, that of {corpus.path} {wanted:,}",
                remedy=f"Prepare the text with `{shell_command('lambert', 'prepare', '--vocab', folder)}`",
            )
        model, _ = load_model(folder, pretraining_model)
    positions = model.config.maximum_positions
    if sequence_length > positions:
        raise UserError(
            f"`sequence_length` {sequence_length} is longer than the model's {positions} positions",
            remedy="Choose shorter sequences",
        )
    found = Validator(corpus, objective, samples=samples).measure(model, sequence_length, Precision.FLOAT32)
    if found is None:
        raise UserError(
            f"nothing to evaluate on in {corpus.path}",
            remedy="Prepare the text with `lambert prepare --validation-fraction .01`, and give `samples` above 0",
        )
    return {name: value for name, value in asdict(found).items() if value is not None}


@overload
def fill_mask(model: str | Path, text: str, *, top_k: int = 5, cased: bool = False) -> list[list[Candidate]]: ...
@overload
def fill_mask(
    model: str | Path, text: list[str] | tuple[str, ...], *, top_k: int = 5, cased: bool = False
) -> list[list[list[Candidate]]]: ...
def fill_mask(
    model: str | Path, text: str | Sequence[str], *, top_k: int = 5, cased: bool = False
) -> list[list[Candidate]] | list[list[list[Candidate]]]:
    """The likeliest tokens for each [MASK] of a text, best first, and a warning for words that become [UNK]::

        lambert.fill_mask("runs/mine", "the capital of france is [MASK].")[0][0].word

    Args:
        model: a run or a Hugging Face folder; it is read once.
        text: one text, or several.
        top_k: candidates for each blank.
        cased: how to read a folder that has only a `vocab.txt` and does not say.

    Returns:
        For each [MASK] its candidates; for several texts, a list of that.

    Raises:
        UserError: the model cannot be read, a text has no [MASK], or it is longer than the model's positions.
    """
    texts = [text] if isinstance(text, str) else text
    blanks = [filled.blanks for filled in filled_texts(model, texts, top_k=top_k, cased=cased)]
    return blanks[0] if isinstance(text, str) else blanks


@dataclass(frozen=True)
class FilledText:
    """A text with predictions for each [MASK]."""

    text: str
    blanks: list[list[Candidate]]
    unknown: list[str]
    """Its parts that become [UNK]: the model does not see them."""
    dropped: list[str]
    """Characters that give no token, such as "U+200C" (ZWNJ)."""


def filled_texts(model: str | Path, texts: Sequence[str], *, top_k: int = 5, cased: bool = False) -> list[FilledText]:
    """See `fill_mask`."""
    loaded, tokenizer = open_model(Path(model), cased=cased)
    filled = []
    for text in texts:
        blanks, unknown = fill_mask_of(loaded, tokenizer, text, top_k=top_k), unknown_words(tokenizer, text)
        if unknown:
            lost, characters = (
                sum(map(len, unknown)),
                sum(not character.isspace() for character in text.replace("[MASK]", "")),
            )
            named = ", ".join(f"{word[:40]!r}" for word in dict.fromkeys(unknown[:8]))
            log.warning(f"{lost} of {characters} characters of {text[:40]!r} are in words that become [UNK]: {named}")
        if dropped := dropped_from(tokenizer, text):
            log.warning(f"{text[:40]!r} has characters that the tokenizer drops: {', '.join(dropped[:8])}")
        filled.append(FilledText(text, blanks, unknown, dropped))
    return filled


def open_model(path: Path, *, cased: bool = False) -> tuple[PreTrainingModel, Tokenizer]:
    """Model and tokenizer of a run or a Hugging Face folder.

    Raises:
        UserError: it cannot be read, or has no MLM head or fewer rows than tokens.
    """
    folder = model_folder(path)
    model, report = load_model(folder, pretraining_model)
    missing = [name for name in report.freshly_initialised if name.startswith("mlm_head.")]
    if missing:
        raise UserError(
            f"{folder} has no MLM head ({', '.join(missing)})",
            remedy="Give a model that was pre-trained, with its heads",
        )
    tokenizer = load_vocabulary(folder, cased=cased)
    refuse_more_tokens(model, tokenizer)
    return model, tokenizer
