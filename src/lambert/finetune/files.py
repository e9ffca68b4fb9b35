"""Text files in, result files out. Imports no PyTorch, so that scoring a file starts fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambert.corpus.compression import open_text_bytes, read_blocks
from lambert.corpus.formats import refuse_bytes
from lambert.errors import UserError
from lambert.utils import io

if TYPE_CHECKING:
    from lambert.finetune.settings import FineTuneSettings

MAX_TEXT_BYTES = 200_000_000
"""Of text in a file, decompressed. JSON takes about ten times as much memory once read; SQuAD v2.0 has 42 million."""


def read_text(path: Path, *, remedy: str) -> str:
    """The text of a plain or compressed UTF-8 file.

    Args:
        remedy: what to do when the file is wrong, for the error message.

    Raises:
        UserError: the file cannot be opened or decompressed, is empty, too large, of another format or not UTF-8.
    """
    blocks, left = [], MAX_TEXT_BYTES
    with open_text_bytes(path) as (stream, _):
        for block in read_blocks(stream):
            left -= len(block)  # the size of a compressed file says nothing about its contents
            if left < 0:
                raise UserError(f"{path} holds more than {MAX_TEXT_BYTES:,} bytes of text", remedy=remedy)
            blocks.append(block)
    try:
        refuse_bytes(path, b"".join(blocks[:1]))
        text = b"".join(blocks).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (byte {error.start + 1:,})",
            remedy=f"Convert it, such as with: iconv -f cp1252 -t utf-8 {path.name} > NEW_FILE",
        ) from None
    if not text.strip():
        raise UserError(f"{path} is empty", remedy=remedy)
    return text


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        io.write_json(path, value)
    except OSError as error:
        raise io.unwritable(error, path.parent, remedy="Choose another folder") from error


def make_folder(path: Path) -> None:
    """Make the folder of the results before hours of work, not after.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise io.unwritable(error, path, remedy="Choose another folder") from None


def settings_fields(settings: FineTuneSettings) -> dict[str, Any]:
    """The settings, ready for JSON."""
    return asdict(settings) | {"precision": settings.precision.value}


def result_fields(result: Any, *, left_out: Sequence[str]) -> dict[str, Any]:
    """A result dataclass with `settings` and `seeds`, ready for JSON, without some fields of each seed."""
    fields = asdict(result) | {"settings": settings_fields(result.settings)}
    for seed_fields in fields["seeds"]:
        for name in left_out:
            del seed_fields[name]
    return fields
