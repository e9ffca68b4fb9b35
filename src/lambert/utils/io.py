"""Small files that may come from strangers: read as far as memory can be expected to hold them, and no further."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

SETTINGS_BYTES = 1_000_000
"""Of a configuration: `config.json` of a model, `manifest.json` of a checkpoint, `recipe.toml`."""
VOCABULARY_BYTES = 100_000_000
"""Of a `tokenizer.json` or a `vocab.txt`; the largest published ones have some 30 million."""
CORPUS_MANIFEST_BYTES = 100_000_000
"""Of a corpus's `manifest.json`, which names all its sources."""


def read_bytes(path: Path, most: int) -> bytes:
    """The whole file.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than `most` bytes.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content


def read_json(path: Path, most: int) -> Any:
    """The JSON value in a file of UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than `most` bytes, or is not JSON.
    """
    try:
        return json.loads(read_bytes(path, most).decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a settings file that a person has written, with the mark that Windows editors put first or without.

    Raises:
        ValueError: says why it cannot be read, in words that go after its name.
    """
    try:
        return tomllib.loads(read_bytes(path, SETTINGS_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_size(path: Path, most: int) -> None:
    """For a file that a library reads.

    Raises:
        OSError: it cannot be looked at.
        ValueError: it has more than `most` bytes, or is no plain file.
    """
    if not path.is_file():
        raise ValueError("it is not a file")
    if path.stat().st_size > most:
        raise ValueError(f"it has more than {most:,} bytes")
