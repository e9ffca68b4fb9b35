"""Foreign tokenizers and texts at which the library panics, raises bare errors or type errors."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Replace

import lambert.corpus
from lambert.corpus.tokenizer_files import load_vocabulary
from lambert.errors import UserError
from lambert.finetune.squad.prediction_files import read_predictions
from lambert.utils.tokenizer_calls import encode, open_tokenizer, parse_tokenizer

PANICS = {"type": "Precompiled", "precompiled_charsmap": "/////wAA"}


def test_a_panic_while_opening_is_one_line(tmp_path: Path) -> None:
    description = json.loads(Tokenizer(WordPiece({"[UNK]": 0}, unk_token="[UNK]")).to_str())
    text = json.dumps({**description, "normalizer": PANICS})
    (tmp_path / "tokenizer.json").write_text(text)
    for opened in (lambda: load_vocabulary(tmp_path, cased=False), lambda: open_tokenizer(tmp_path / "tokenizer.json")):
        with pytest.raises(UserError, match=r"tokenizer.json cannot be read \(Precompiled"):
            opened()
    with pytest.raises(UserError, match="Precompiled"):
        parse_tokenizer(text)


def test_what_cannot_be_encoded_is_one_line() -> None:
    without_unknown = Tokenizer(WordPiece({"a": 0}, unk_token="<unk>"))
    gives_up = Tokenizer(WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    gives_up.normalizer = Replace(Regex("(a+)+$"), "b")
    for tokenizer, text in ((without_unknown, "b"), (gives_up, "a" * 40 + "!")):
        with pytest.raises(UserError, match="cannot encode the text"):
            encode(tokenizer, [text], special=False)


def test_a_lone_surrogate_is_one_character() -> None:
    (encoding,) = encode(Tokenizer(WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")), ["\ud800"], special=False)
    assert (encoding.ids, encoding.offsets) == ([0], [(0, 1)])


def test_a_number_of_more_digits_than_python_converts_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"1": ' + "9" * 5_000 + "}")
    with pytest.raises(UserError, match="p.json cannot be read"):
        read_predictions(tmp_path / "p.json")


def test_no_other_file_opens_or_encodes_by_itself() -> None:
    source = Path(lambert.corpus.__file__).parents[1]
    opening = {"from_file", "from_str", "encode_batch"}
    found = {
        file.name
        for file in source.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in opening
    }
    assert found == {"tokenizer_calls.py"}
