"""Calls of the `tokenizers` library on files and texts of others: whatever it raises or panics at becomes one line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from lambert.errors import UserError
from lambert.utils.io import VOCABULARY_BYTES, read_bytes

_SURROGATES = re.compile("[\ud800-\udfff]")
_FAILED = ("Exception", "ValueError", "PanicException")
"""What the library raises: hardly anything narrower than Exception; at a panic a BaseException that has no import."""


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Within the block, an error or a panic of the library is a UserError.

    Args:
        what: what cannot be done, such as "FILE cannot be read".
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ not in _FAILED:
            raise
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{what} ({why})", remedy="Give a tokenizer.json or a vocab.txt of a BERT that transformers opens"
        ) from error


def open_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, under any name: the library opens no file whose name is not UTF-8.

    Raises:
        UserError: the library cannot read it, or it is larger than any tokenizer.
        OSError: the file cannot be read.
    """
    with refused(f"{file} cannot be read"):
        return Tokenizer.from_buffer(read_bytes(file, VOCABULARY_BYTES))


def parse_tokenizer(description: str) -> Tokenizer:
    """The tokenizer of the contents of a `tokenizer.json`.

    Raises:
        UserError: the library cannot read them.
    """
    with refused("the tokenizer cannot be read"):
        return Tokenizer.from_str(description)


def encode(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool) -> list[Encoding]:
    """The tokens of each text. A lone surrogate, which is no character, is read as U+FFFD.

    Args:
        special: put [CLS] and [SEP] around each.

    Raises:
        UserError: the tokenizer cannot encode them.
    """
    texts = list(texts)
    with refused("the tokenizer cannot encode the text"):
        try:
            return tokenizer.encode_batch(texts, add_special_tokens=special)
        except TypeError:  # the library takes no surrogates
            whole = [_SURROGATES.sub("\ufffd", text) for text in texts]
            return tokenizer.encode_batch(whole, add_special_tokens=special)


def dropped_characters(tokenizer: Tokenizer, text: str) -> set[str]:
    """The characters of `text` that give no token, not even [UNK], such as those that BERT's clean-up removes.

    White space is none of them, nor are marks (categories M), which go with accents.
    """
    asked = sorted(one for one in set(text) if not one.isspace() and unicodedata.category(one)[0] != "M")
    return {one for one, tokens in zip(asked, encode(tokenizer, asked, special=False), strict=True) if not tokens.ids}
