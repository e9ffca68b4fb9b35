"""Models on the Hugging Face Hub by name, fetched into the Hub's own cache by its client, an extra.

Only `config.json`, safetensors weights and tokenizer files are fetched: nothing that can run code.
"""

from __future__ import annotations

import functools
import re
from importlib.util import find_spec
from pathlib import Path

from lambert.errors import UserError

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
EXAMPLE = "google-bert/bert-base-uncased"

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_FILE_SUFFIXES = (".txt", ".json", ".toml", ".safetensors", ".bin")


def is_hub_name(path: Path) -> bool:
    """Whether a path can only be OWNER/NAME on the Hub: nothing lies there, and no file is called like that."""
    return bool(_NAME.fullmatch(str(path))) and not path.exists() and path.suffix not in _FILE_SUFFIXES


@functools.cache  # each question about a model would ask the Hub again
def fetched_model(name: str) -> Path:
    """The local folder with configuration, weights and tokenizer of a model on the Hub.

    Raises:
        UserError: the client is not installed, the Hub cannot be reached, or it has no such model or no safetensors.
    """
    folder = _fetched(name, CONFIG_FILE, WEIGHTS_FILE)
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


def _fetched(name: str, *files: str) -> Path:
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
            folder = Path(hf_hub_download(name, file, revision=None if folder is None else folder.name)).parent
        except errors.LocalEntryNotFoundError:
            raise UserError(
                f"there is no folder {name}, and the Hugging Face Hub cannot be reached for its {file}",
                remedy="Check the path or the network, or give a folder with the model's files",
            ) from None
        except errors.EntryNotFoundError:
            raise UserError(
                f"the model {name} on the Hugging Face Hub has no {file}",
                remedy="Give a BERT model with safetensors weights; a pickle such as pytorch_model.bin is not loaded",
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
    from huggingface_hub import errors, hf_hub_download

    for file in TOKENIZER_FILES:
        try:
            hf_hub_download(name, file, revision=folder.name)
        except errors.EntryNotFoundError:
            continue
        except OSError as error:
            said = " ".join(str(error).split())
            raise UserError(
                f"{file} of {name} cannot be fetched from the Hugging Face Hub ({said[:300]})",
                remedy="Try again later, or give a folder with the model's files",
            ) from None
