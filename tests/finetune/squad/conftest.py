"""What the SQuAD tests share: a small vocabulary, a document and a way to write files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from finetune.squad.articles import CAFE, HARBOUR, squad_document
from lambert.corpus.vocabulary import train_vocabulary


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """An uncased WordPiece tokenizer whose vocabulary comes from the made-up articles."""
    return train_vocabulary([HARBOUR, CAFE] * 3, 400, cased=False)


@pytest.fixture
def document() -> dict[str, Any]:
    """Three questions in two articles, all answers in their places."""
    return squad_document(
        (
            HARBOUR,
            [
                ("q1", "Who built the harbour?", [("Edna Marlowe", HARBOUR.index("Edna")), ("Marlowe", 64)]),
                ("q2", "When did it open?", [("1843", HARBOUR.index("1843"))]),
            ],
        ),
        (CAFE, [("q3", "Who lent money?", [("日本銀行", CAFE.index("日本銀行"))])]),
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a value as JSON (or bytes as they are) and gives the path."""

    def to_file(value: Any, name: str = "squad.json") -> Path:
        path = tmp_path / name
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        return path

    return to_file
