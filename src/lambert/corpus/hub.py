"""Text of a Hugging Face dataset by name, streamed: `hf:NAME[@CONFIGURATION][:SPLIT]`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from lambert.corpus.sources import DOCUMENT_LIMIT_CHARACTERS, Document
from lambert.errors import UserError

PREFIX = "hf:"

_NAME = re.compile(r"hf:(?P<name>[^@:]+)(?:@(?P<configuration>[^:]+))?(?::(?P<split>.+))?")


def hub_documents(source: str, text_field: str) -> Callable[[], Iterator[Document]]:
    """A function that gives the documents of a dataset, anew at each call; one row is one document.

    Args:
        source: `hf:NAME`, with `@CONFIGURATION` and `:SPLIT` (otherwise `train`); a local folder is a name too.
        text_field: the column that holds the text.

    Raises:
        UserError: `datasets` is not installed, the dataset cannot be loaded, or it has no such column.
    """
    match = _NAME.fullmatch(source)
    if match is None:
        raise UserError(f"{source} names no dataset", remedy="Write hf:NAME, hf:NAME@CONFIGURATION or hf:NAME:SPLIT")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise UserError(
            f"{source} needs the package datasets, which is not installed",
            remedy='Install it: pip install "lambert[datasets]"',
        ) from error
    try:
        rows: Any = load_dataset(match["name"], match["configuration"], split=match["split"] or "train", streaming=True)
    except Exception as error:  # the library raises whatever its many parts raise
        raise UserError(
            f"{source} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})",
            remedy="Check name, configuration, split and the network, or download its files and name them",
        ) from error
    columns = list(rows.column_names or next(iter(rows), {}))
    if text_field not in columns:
        raise UserError(
            f"{source} has no column {text_field!r}; its columns: {', '.join(map(str, columns[:10]))}",
            remedy="Name the right one with --text-field",
        )

    def documents() -> Iterator[Document]:
        for row in rows:
            if isinstance(row[text_field], str):
                yield from _documents(source, row[text_field])

    return documents


def _documents(source: str, text: str) -> Iterator[Document]:
    paragraphs = [line.strip() for line in text.splitlines() if line.strip()]
    while sum(map(len, paragraphs)) > DOCUMENT_LIMIT_CHARACTERS and len(paragraphs) > 1:
        kept, size = 1, len(paragraphs[0])
        while size + len(paragraphs[kept]) <= DOCUMENT_LIMIT_CHARACTERS:
            size += len(paragraphs[kept])
            kept += 1
        yield Document(source, paragraphs[:kept])
        paragraphs = paragraphs[kept:]
    if paragraphs:
        yield Document(source, paragraphs)
