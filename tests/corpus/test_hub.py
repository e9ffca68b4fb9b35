"""Datasets by name, with the library played by a stand-in of its interface."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from lambert.corpus import hub
from lambert.corpus.hub import hub_documents
from lambert.errors import UserError

ROWS = [{"text": "One. Two.\n\nThree.", "id": 1}, {"text": None, "id": 2}, {"text": "Four.", "id": 3}]


class Rows:
    column_names = ("text", "id")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(ROWS)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = []

    def load_dataset(name: str, configuration: str | None, *, split: str, streaming: bool) -> Rows:
        made.append((name, configuration, split, streaming))
        if name == "missing":
            raise FileNotFoundError("no such dataset")
        return Rows()

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return made


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("hf:owner/name", ("owner/name", None, "train", True)),
        ("hf:name@20231101.en:test", ("name", "20231101.en", "test", True)),
        ("hf:name:train[:10%]", ("name", None, "train[:10%]", True)),
    ],
)
def test_a_row_is_a_document_and_each_call_begins_anew(
    calls: list[tuple[Any, ...]], source: str, wanted: tuple[Any, ...]
) -> None:
    documents = hub_documents(source, "text")
    assert calls == [wanted]
    for _ in range(2):
        assert [document.paragraphs for document in documents()] == [["One. Two.", "Three."], ["Four."]]


def test_what_cannot_be_read_is_told(calls: list[tuple[Any, ...]]) -> None:
    with pytest.raises(UserError, match="names no dataset"):
        hub_documents("hf:", "text")
    with pytest.raises(UserError, match="hf:missing cannot be loaded .*no such dataset"):
        hub_documents("hf:missing", "text")
    with pytest.raises(UserError, match="no column 'body'; its columns: text, id"):
        hub_documents("hf:name", "body")


def test_without_the_library_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"lambert\[datasets\]"):
        hub_documents("hf:name", "text")


def test_a_long_row_is_cut(calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "DOCUMENT_LIMIT_CHARACTERS", 10)
    assert [document.paragraphs for document in hub_documents("hf:name", "text")()] == [
        ["One. Two."],
        ["Three."],
        ["Four."],
    ]
