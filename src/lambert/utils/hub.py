"""Models on the Hugging Face Hub by name, fetched into the Hub's own cache by its client, an extra.

Only `config.json`, weights and tokenizer files are fetched: no code, and pickled weights where there are no others.
"""

from __future__ import annotations

import functools
import re
from importlib.util import find_spec
from pathlib import Path

from lambert.errors import UserError
from lambert.utils.io import SETTINGS_BYTES, read_json

CONFIG_FILE, WEIGHTS_FILE, PICKLE_FILE = "config.json", "model.safetensors", "pytorch_model.bin"
PICKLES = (PICKLE_FILE, f"{PICKLE_FILE}.index.json")
MODEL_FILES = (WEIGHTS_FILE, f"{WEIGHTS_FILE}.index.json", *PICKLES)
"""What a folder's weights may be in, in the order in which they are looked for: a file, or the index of several."""
TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
EXAMPLE = "google-bert/bert-base-uncased"

_SHARD = re.compile(r"[\w-]+\.(safetensors|bin)")
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_FILE_SUFFIXES = (".txt", ".json", ".toml", ".safetensors", ".bin")


def is_hub_name(path: Path) -> bool:
    """Whether a path can only be OWNER/NAME on the Hub: nothing lies there, and no file is called like that."""
    return bool(_NAME.fullmatch(str(path))) and not path.exists() and path.suffix not in _FILE_SUFFIXES


@functools.cache  # each question about a model would ask the Hub again
def fetched_model(name: str) -> Path:
    """The local folder with configuration, weights and tokenizer of a model on the Hub.

    Raises:
        UserError: the client is not installed, the Hub cannot be reached, or it has no such model or no weights.
    """
    folder = _fetched(name, CONFIG_FILE)
    main = next((file for file in MODEL_FILES if _fetch_what_there_is(name, folder, file)), WEIGHTS_FILE)
    files = _shards(folder / main) if main.endswith(".index.json") else [main]
    _fetched(name, *files, revision=folder.name)
    _fetch_tokenizer(name, folder)
    return folder


@functools.cache
def fetched_vocabulary(name: str) -> Path:
    """The local folder with the tokenizer files of a model on the Hub; its weights are not fetched.

    Raises:
        UserError: as `fetched_model`.
    """
    folder = _fetched(name, CONFIG_FILE)
    _fetch_tokenizer(name, folder)
    return folder


def _shards(index: Path) -> list[str]:
    """Names of the files that hold the weights."""
    try:
        names = sorted(set(read_json(index, SETTINGS_BYTES)["weight_map"].values()))
        if not all(_SHARD.fullmatch(name) for name in names):
            raise ValueError("it names files that are no shards")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} cannot be read: {error}", remedy="Give a folder with the model's files") from None
    return names


def _fetched(name: str, *files: str, revision: str | None = None) -> Path:
    """The folder of files that the model must have, all of one commit."""
    if find_spec("huggingface_hub") is None:
        raise UserError(
            f"there is no folder {name}, and a name on the Hugging Face Hub needs the package huggingface_hub",
            remedy='Check the path, or install it with: pip install "lambert-bert[hub]"',
        )
    from huggingface_hub import errors, hf_hub_download

    folder: Path | None = None
    for file in files:
        try:
            folder = Path(hf_hub_download(name, file, revision=revision if folder is None else folder.name)).parent
        except errors.LocalEntryNotFoundError:
            raise UserError(
                f"there is no folder {name}, and the Hugging Face Hub cannot be reached for its {file}",
                remedy="Check the path or the network, or give a folder with the model's files",
            ) from None
        except errors.EntryNotFoundError:
            raise UserError(
                f"the model {name} on the Hugging Face Hub has no {file}",
                remedy=f"Give a BERT model with {CONFIG_FILE} and {WEIGHTS_FILE} or {PICKLE_FILE}",
            ) from None
        except (errors.RepositoryNotFoundError, errors.HFValidationError):
            raise UserError(
                f"there is no folder {name}, and no such model on the Hugging Face Hub that can be read",
                remedy=f"Give a folder, or OWNER/NAME such as {EXAMPLE}; `hf auth login` opens private models",
            ) from None
        except OSError as error:  # the Hub's other answers, a full disk
            said = " ".join(str(error).split())
            raise UserError(
                f"{name} cannot be fetched from the Hugging Face Hub ({said[:300]})",
                remedy="Try again later, or give a folder with the model's files",
            ) from None
    assert folder is not None
    return folder


def _fetch_tokenizer(name: str, folder: Path) -> None:
    """The tokenizer files that the model has; a folder without any is refused where it is read."""
    for file in TOKENIZER_FILES:
        _fetch_what_there_is(name, folder, file)


def _fetch_what_there_is(name: str, folder: Path, file: str) -> bool:
    """Fetches a file that the model may have; whether it does."""
    from huggingface_hub import constants, errors, hf_hub_download

    try:
        hf_hub_download(name, file, revision=folder.name)
    except errors.LocalEntryNotFoundError:  # asked to stay offline, what is not in the cache was not there
        if constants.HF_HUB_OFFLINE:
            return False
        raise UserError(
            f"the Hugging Face Hub cannot be reached for {file} of {name}, which it may need",
            remedy="Check the network, or set HF_HUB_OFFLINE=1 to do with the files that were fetched before",
        ) from None
    except errors.EntryNotFoundError:
        return False
    except OSError as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"{file} of {name} cannot be fetched from the Hugging Face Hub ({said[:300]})",
            remedy="Try again later, or give a folder with the model's files",
        ) from None
    return True
