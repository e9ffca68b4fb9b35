"""Hugging Face datasets by name, streamed; a row is a document, with its text in one column.

`hf:NAME[:CONFIG[:SPLIT]]`, as in `hf:wikimedia/wikipedia:20231101.en` or `hf:imdb::test`. A name may also be a folder
of data files. Without a split it is `train`, or the only one there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lambert.corpus.readers.document import (
    Document,
    ReadStatistics,
    bounded_documents,
    paragraphs_of,
    without_surrogates,
)
from lambert.errors import UserError

PREFIX = "hf:"

_NAMES_SHOWN = 12


def is_dataset_name(source: str) -> bool:
    """Whether a source is the name of a dataset rather than a file."""
    return source.startswith(PREFIX)


def check_installed() -> None:
    """Raises UserError where the library of the datasets, an extra, is missing."""
    if find_spec("datasets") is None:
        raise UserError(
            "Hugging Face datasets need the package datasets, which is not installed",
            remedy="Install it with: pip install 'lambert-bert[datasets]'",
        )


def documents(source: Path, statistics: ReadStatistics, *, text_field: str) -> Iterator[Document]:
    """A document per row, of a column of strings (whose line ends separate paragraphs) or of lists of strings.

    Raises:
        UserError: `datasets` is not installed, the dataset cannot be loaded or read, or has no such split or column.
    """
    number = 0
    for number, row in enumerate(_rows(source, text_field), start=1):
        statistics.lines += 1
        value = row[text_field]
        if value is None:
            statistics.skip(source, f"row {number:,}", "null")
            continue
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = "\n".join(value)
        if not isinstance(value, str):
            raise UserError(
                f"{source}, row {number:,}: the column {text_field!r} holds {type(value).__name__}, not text",
                remedy="Name a column of strings or of lists of strings with `text_field`",
            )
        statistics.bytes += len(value.encode(errors="surrogatepass"))
        text = without_surrogates(value, source, statistics)
        yield from bounded_documents(source, paragraphs_of(text, statistics), statistics)


def _rows(source: Path, text_field: str) -> Iterator[dict[str, Any]]:
    """The rows as they stream in, checked to have the column."""
    rows = iter(opened_dataset(source))
    while True:
        try:
            row = next(rows, None)
        # It reads files of many formats over the network: any exception may come.
        except MemoryError:
            raise
        except Exception as error:
            raise _failed(source, error) from error
        if row is None:
            return
        if text_field not in row:
            names = ", ".join([*row][:_NAMES_SHOWN]) + (", …" if len(row) > _NAMES_SHOWN else "")
            raise UserError(
                f"{source} has no column {text_field!r}",
                remedy=f"Name the column of the text with `text_field`; there is {names}",
            )
        yield row


def opened_dataset(source: Path, *, streaming: bool = True) -> Any:
    """The rows of a dataset, an iterable of dictionaries with its `features`.

    Raises:
        UserError: `datasets` is not installed, or the dataset cannot be loaded or has no such split.
    """
    check_installed()
    import datasets

    name, _, rest = str(source).removeprefix(PREFIX).partition(":")
    if not name:
        raise UserError(f"{source} names no dataset", remedy="Write hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT")
    config, _, split = rest.partition(":")
    try:
        opened = datasets.load_dataset(name, config or None, split=split or None, streaming=streaming)
    except MemoryError:
        raise
    except Exception as error:
        raise _failed(source, error) from error
    if not isinstance(opened, dict):
        return opened
    if "train" in opened or len(opened) == 1:
        return opened["train"] if "train" in opened else next(iter(opened.values()))
    raise UserError(
        f"{source} has the splits {', '.join(opened)} and no train",
        remedy=f"Name one, as in {PREFIX}{name}:{config}:{next(iter(opened), 'test')}",
    )


def _failed(source: Path, error: Exception) -> UserError:
    said = " ".join(str(error).split())
    return UserError(
        f"{source} cannot be read as a Hugging Face dataset ({type(error).__name__}: {said[:300]})",
        remedy="Check its name, configuration and split (hf:NAME:CONFIG:SPLIT) and the connection",
    )
