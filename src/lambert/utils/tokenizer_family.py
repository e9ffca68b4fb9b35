"""The families of tokenizers, WordPiece and byte-level BPE: what their entries stand for, and which rules they have."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from abc import ABC, abstractmethod
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece

from lambert.errors import UserError

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = (byte for byte in range(256) if byte not in _PRINTABLE)
BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + rank): byte for rank, byte in enumerate(_OTHERS)}
"""The character that writes a byte in an entry of byte-level BPE → the byte; GPT-2's table, in which Ġ is a space."""

_SIGNS_AND_IDEOGRAPHS = (0xE2, *range(0xE4, 0xEA), *range(0xF0, 0x100))
"""First bytes of UTF-8 from U+2000 to U+2FFF, U+4000 to U+9FFF and from U+10000 on."""


class TokenizerFamily(ABC):
    """What WordPiece and byte-level BPE do otherwise."""

    name: str
    """What the option `tokenizer` calls it."""
    title: str
    marks_spaces: bool
    """Whether tokens hold the space before their word."""

    @abstractmethod
    def text(self, entry: str) -> str:
        """The text that an entry stands for."""

    def shown(self, entry: str) -> str:
        """The entry as people read it."""
        return self.text(entry)

    @abstractmethod
    def continues(self, entry: str) -> bool:
        """Whether it continues the word of the token before it."""

    @abstractmethod
    def rules(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Those of the model that decide the ids, beside its entries."""


class WordPieceFamily(TokenizerFamily):
    """BERT's: `##` marks what continues a word, and spaces are lost."""

    name, title, marks_spaces = "wordpiece", "WordPiece", False
    prefix = "##"

    def text(self, entry: str) -> str:
        """Without the prefix."""
        return entry.removeprefix(self.prefix)

    def shown(self, entry: str) -> str:
        """As it is, `##s`."""
        return entry

    def continues(self, entry: str) -> bool:
        """Whether it has the prefix."""
        return entry.startswith(self.prefix)

    def rules(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """By the names of `transformers` where it has one."""
        model = tokenizer.model
        return {
            "unk_token": model.unk_token,
            "wordpieces_prefix": model.continuing_subword_prefix,
            "max_input_chars_per_word": model.max_input_chars_per_word,
        }


class ByteLevelFamily(TokenizerFamily):
    """GPT-2's, RoBERTa's and ModernBERT's: the bytes of UTF-8, each written as a character; a word holds its space."""

    name, title, marks_spaces = "bpe", "byte-level BPE", True

    def text(self, entry: str) -> str:
        """Its bytes decoded; those that are no whole character as `\\xe4`."""
        if not BYTES.keys() >= set(entry):
            return entry
        return _bytes_of(entry).decode("utf-8", "backslashreplace")

    def continues(self, entry: str) -> bool:
        """Whether it begins within a word: a space, a sign of punctuation and an ideograph begin one."""
        if not entry or not BYTES.keys() >= set(entry):
            return False
        written = _bytes_of(entry)
        if written[0] in _SIGNS_AND_IDEOGRAPHS:
            return False
        text = written.decode("utf-8", "backslashreplace")  # a backslash is a byte within a character
        is_within = text[0] == "\\" and written[0] != ord("\\")
        return is_within or unicodedata.category(text[0])[0] in "LMN"

    def rules(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """The settings of the model, and its merges."""
        model = json.loads(tokenizer.to_str())["model"]
        merges = json.dumps(model["merges"], ensure_ascii=False).encode("utf-8", "surrogatepass")
        settings = {name: value for name, value in model.items() if name not in ("type", "vocab", "merges")}
        digest = hashlib.sha256(merges).hexdigest()[:12]
        return {**settings, "merges": f"{len(model['merges']):,} of SHA-256 {digest}"}


WORDPIECE, BYTE_LEVEL_BPE = WordPieceFamily(), ByteLevelFamily()
FAMILIES: dict[str, TokenizerFamily] = {family.name: family for family in (WORDPIECE, BYTE_LEVEL_BPE)}
"""By the values of the option `tokenizer`."""


def family_of(tokenizer: Tokenizer, *, of: str = "the tokenizer") -> TokenizerFamily:
    """WordPiece or byte-level BPE.

    Args:
        of: what it is the tokenizer of, for the message.

    Raises:
        UserError: it is neither.
    """
    if isinstance(tokenizer.model, WordPiece):
        return WORDPIECE
    if isinstance(tokenizer.model, BPE):
        if '"ByteLevel"' in json.dumps(part_state(tokenizer.pre_tokenizer)):
            return BYTE_LEVEL_BPE
        raise _foreign(of, "BPE model whose pre_tokenizer is not ByteLevel")
    raise _foreign(of, f"{type(tokenizer.model).__name__} model")


def part_state(part: Any) -> Any:
    """The settings of a normalizer or a pre-tokenizer, as in `tokenizer.json`; None without one."""
    return None if part is None else json.loads(part.__getstate__())


def shown_tokens(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """Tokens as people read them: `##s` of WordPiece, ` the` of byte-level BPE."""
    family, added = family_of(tokenizer), tokenizer.get_added_tokens_decoder()
    entries = ((number, tokenizer.id_to_token(number) or "") for number in ids)
    return [entry if number in added else family.shown(entry) for number, entry in entries]


def _foreign(of: str, what: str) -> UserError:
    return UserError(
        f"{of} holds a {what}",
        remedy="Bring WordPiece, as BERT's, or byte-level BPE, as ModernBERT's; or leave it out to learn one",
    )


def _bytes_of(entry: str) -> bytes:
    return bytes(BYTES[character] for character in entry)
