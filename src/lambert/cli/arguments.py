"""Reads the words of a subcommand before tyro: unknown flags, and numbers as people write them (512M, 32k, 1e6)."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from lambert.data.objective import MASKINGS, PAIRINGS
from lambert.errors import UserError, unknown_name
from lambert.training.config.trainer_options import ACTIVATION_CHECKPOINTING, ON_SPIKE

IN_1024 = (
    "batch_size", "try_batch_sizes", "micro_batch_size", "sequence_length", "sequence_lengths", "lengths", "chips",
    "dry_run",
)  # fmt: skip
"""Options in which k is 1,024, as in the LAMB paper's batch of 32K; in all others k is 1,000."""
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
MOST_DIGITS = 30
ALIKE = (
    {"out", "output", "output_dir", "folder", "html"},
    {"sequence_length", "sequence_lengths", "lengths", "length", "max_length", "max_seq_length"},
    {"corpus", "data", "train", "train_file"},
    {"text", "corpus"},
    {"dev", "validation_file", "eval_file", "pairs"},
    {"top_k", "candidates"},
    {"lr", "learning_rate"},
    {"model", "model_folder", "model_name_or_path", "init_from"},
    {"samples", "steps", "max_steps", "num_samples"},
    {"epochs", "num_train_epochs"},
    {"batch_size", "per_device_train_batch_size"},
    {"micro_batch_size", "batch_size_per_device"},
    {"processes", "workers", "jobs", "num_workers", "nproc_per_node", "gpus"},
    {"run", "runs", "run_folder", "checkpoint"},
    {"fresh", "restart", "overwrite", "overwrite_output_dir", "force"},
    {"vocab", "tokenizer", "tokenizer_name"},
    {"cased", "do_lower_case"},
    {"warmup_ratio", "warmup", "warmup_steps"},
)
"""Names of one thing here, in other subcommands and in Hugging Face's scripts."""
_NO_NAME = ("help", "version")
_NUMBER = re.compile(
    r"([+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+(?:_[0-9]+)*)?(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,9})?)(|[kmg]i?)",
    re.IGNORECASE,
)
_FLAG = re.compile(r"-{1,2}[A-Za-z][\w-]*")
_NOT_FINITE = re.compile(r"-(?:inf|infinity|nan)", re.IGNORECASE)


def read_arguments(name: str, words: Sequence[str], subcommands: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The words with every count as digits, and a line for each count written with a unit.

    Args:
        name: the subcommand, or "" without one.
        words: what follows the name.
        subcommands: the dataclass of each subcommand.

    Raises:
        UserError: an unknown flag or choice (suggests the nearest one), or a value that is not a number.
    """
    kinds = {} if not name else _options(subcommands[name])
    read: list[str] = []
    notes: list[str] = []
    option = ""
    for word in words:
        flag, equals, value = word.partition("=")
        if _FLAG.fullmatch(flag) and not (option and _NOT_FINITE.fullmatch(word)):
            option = flag.lstrip("-").replace("-", "_")
            if flag not in ("-h", "--help") and (option not in kinds or not flag.startswith("--")):
                raise _unknown_flag(name, flag, subcommands)
            if not equals:
                read.append(word)
                continue
        else:
            value = word
        number = _as_number(option, value, kinds.get(option, ""))
        if number != value and value[-1].isalpha():
            notes.append(f"read      --{option.replace('_', '-')} {value} as {int(number):,}")
        read.append(f"{flag}={number}" if equals and value != word else number)
        if not kinds.get(option, "").startswith("tuple"):
            option = ""
    return read, notes


def parse_count(option: str, text: str) -> int:
    """A whole number as people write it.

    >>> parse_count("samples", "512M"), parse_count("samples", "32k"), parse_count("batch_size", "32k")
    (512000000, 32000, 32768)
    >>> parse_count("samples", "1.5e6"), parse_count("samples", "32,768"), parse_count("samples", "2Ki")
    (1500000, 32768, 2048)

    Raises:
        UserError: it is none, or its unit has two meanings.
    """
    what = f"--{option.replace('_', '-')} {text}"
    match = _NUMBER.fullmatch(text)
    if not match or not any(digit in "0123456789" for digit in match[1].lower().partition("e")[0]):
        raise UserError(f"{what}: not a whole number", remedy="Give one such as 4096, 32,768, 64k, 1e6 or 512M")
    unit = match[2].lower()
    if option in IN_1024 and unit in ("m", "g"):
        raise UserError(
            f"{what}: {match[2]} has two meanings here", remedy=f"Give all digits, or {match[1]}{match[2].upper()}i"
        )
    scale = 1_024 if option in IN_1024 and unit == "k" else UNITS[unit]
    number = Decimal(match[1].replace(",", ""))
    if number and number.adjusted() > MOST_DIGITS:
        raise UserError(f"{what}: too large", remedy=f"Give at most {MOST_DIGITS} digits")
    number *= scale
    if number != (whole := number.to_integral_value()):
        raise UserError(f"{what}: not a whole number", remedy=f"Give {math.floor(number):,} or {math.ceil(number):,}")
    return int(whole)


def _as_number(option: str, text: str, kind: str) -> str:
    """The value as tyro reads it: counts as digits, all else unchanged but checked."""
    if repr(text) in kind:  # a Literal beside the number
        return text
    if re.search(r"\bint\b", kind):
        return str(parse_count(option, text))
    if re.search(r"\bfloat\b", kind):
        try:
            float(text)
        except ValueError:
            raise _not_a_number(option, text) from None
        if _NOT_FINITE.fullmatch(text):
            raise _not_a_number(option, text)
        if text.startswith("-"):  # without an exponent: tyro takes -1e3 for a flag
            return f"{Decimal(text):f}"
    if (choices := _choices(option)) and text not in choices:
        raise unknown_name(option.replace("_", " "), text, choices)
    return text


def _not_a_number(option: str, text: str) -> UserError:
    return UserError(f"--{option.replace('_', '-')} {text}: not a number", remedy="Give one such as 3, .5 or 1e-3")


def _choices(option: str) -> Sequence[str]:
    """The values of an option that takes only some; () for others. `--help` does not import these modules."""
    if option in ("activation_checkpointing", "on_spike"):
        return ON_SPIKE if option == "on_spike" else ACTIVATION_CHECKPOINTING
    if option in ("pairs", "masking"):
        return PAIRINGS if option == "pairs" else MASKINGS
    if option == "optimizer":
        from lambert.training.optimizer import OPTIMIZERS

        return OPTIMIZERS
    if option == "precision":
        from lambert.training.config.precision import Precision

        return ["auto", *(precision.value for precision in Precision)]
    if option == "reduce_dtype":
        from lambert.training.config.training_config import REDUCE_DTYPES

        return REDUCE_DTYPES
    if option == "strip_accents":
        from lambert.corpus.tokenizer_choice import STRIP_ACCENTS

        return [*STRIP_ACCENTS]
    if option == "text_format":
        from lambert.corpus.formats import TEXT_FORMATS

        return [*TEXT_FORMATS]
    if option == "deduplicate":
        from lambert.corpus.build import DEDUPLICATION

        return DEDUPLICATION
    return ()


def _options(subcommand: Any, *, positional: bool = False) -> dict[str, str]:
    """Type of each flag of a subcommand, as written; or of each positional."""
    return {
        field.name: str(field.type)
        for field in dataclasses.fields(subcommand)
        if ("Positional" in str(field.type)) == positional
    }


def _unknown_flag(name: str, flag: str, subcommands: Mapping[str, Any]) -> UserError:
    command, wanted = f"lambert {name}".strip(), flag.lstrip("-").replace("-", "_")
    flags = {option: f"--{option.replace('_', '-')}" for option in (_options(subcommands[name]) if name else _NO_NAME)}
    values = {option: option.upper() for option in (_options(subcommands[name], positional=True) if name else ())}
    known = [*flags, *values]
    alike = {other for group in ALIKE if wanted in group for other in group}
    owners = [f"`lambert {other}`" for other, kind in subcommands.items() if wanted in _options(kind)]
    near = [option for option in known if option in alike or (option in values and wanted in option.split("_"))]
    near = near or [option for option in known if option.startswith(wanted)]
    near = near or ([] if owners else difflib.get_close_matches(wanted, known, n=1))
    hint = ""
    if near:
        hint = f"Did you mean {flags.get(near[0]) or values[near[0]] + ', without a flag'}? "
    elif owners:
        listed = " and ".join([", ".join(owners[:-1]), owners[-1]] if owners[1:] else owners)
        hint = f"{listed} {'has' if len(owners) == 1 else 'have'} it; "
    return UserError(f"{command} has no option {flag}", remedy=f"{hint}`{command} --help` explains every option")
