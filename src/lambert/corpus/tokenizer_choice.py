"""Which tokenizer a corpus gets: a given one, or one that is learned from its text by some rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from lambert.corpus.byte_level_bpe import fitting_bpe_size, train_bpe
from lambert.corpus.tokenizer_files import load_vocabulary
from lambert.corpus.vocabulary import fitting_vocab_size, train_vocabulary
from lambert.corpus.words import LONGEST_WORD_CHARACTERS, MOST_WORD_CHARACTERS
from lambert.errors import UserError
from lambert.utils.tokenizer_family import BYTE_LEVEL_BPE, FAMILIES, WORDPIECE, family_of

STRIP_ACCENTS = {"auto": None, "yes": True, "no": False}


@dataclass(frozen=True)
class TokenizerChoice:
    """What the arguments of a build say of its tokenizer."""

    tokenizer: str | None
    """Name of a family; None: that of a given vocabulary, else WordPiece."""
    vocab_size: int | None
    cased: bool
    strip_accents: bool | None
    max_word_length: int | None

    @classmethod
    def of(
        cls,
        tokenizer: str | None,
        vocab_size: int | None,
        cased: bool,
        strip_accents: str,
        max_word_length: int | None,
    ) -> TokenizerChoice:
        """Checks the arguments of `build_corpus`.

        Raises:
            UserError: names the argument.
        """
        family = None if tokenizer is None else tokenizer.lower()  # WordPiece and BPE, as the library writes them
        if family not in (None, *FAMILIES):
            raise UserError(
                f"`tokenizer` is {tokenizer!r}",
                remedy=f"Choose one of {', '.join(FAMILIES)}; give a published tokenizer as `vocab`",
            )
        if strip_accents not in STRIP_ACCENTS:
            raise UserError(f"`strip_accents` is {strip_accents!r}", remedy=f"Choose one of {', '.join(STRIP_ACCENTS)}")
        if max_word_length is not None and not 1 <= max_word_length <= MOST_WORD_CHARACTERS:
            raise UserError(
                f"`max_word_length` is {max_word_length:,}",
                remedy=f"Choose one from 1 to {MOST_WORD_CHARACTERS:,} characters; BERT's is 100",
            )
        choice = cls(family, vocab_size, cased, STRIP_ACCENTS[strip_accents], max_word_length)
        if family == BYTE_LEVEL_BPE.name:
            choice._refuse_wordpiece_settings()
        return choice

    def given(self, path: Path) -> Tokenizer:
        """The tokenizer of `vocab`.

        Raises:
            UserError: it cannot be read, or another argument contradicts it.
        """
        tokenizer = load_vocabulary(path, cased=self.cased)
        family = family_of(tokenizer)
        if self.tokenizer not in (None, family.name):
            raise UserError(
                f"`tokenizer` is {self.tokenizer}, but the vocabulary of {path} is {family.title}",
                remedy="Leave out `tokenizer`, or leave out `vocab` to learn one",
            )
        if self.strip_accents is not None:
            raise UserError(
                "`strip_accents` with `vocab`, whose tokenizer decides that",
                remedy="Leave out `strip_accents`, or leave out `vocab` to learn one",
            )
        if family is BYTE_LEVEL_BPE:
            self._refuse_wordpiece_settings()
        elif self.max_word_length is not None:
            tokenizer.model.max_input_chars_per_word = self.max_word_length
        return tokenizer

    def learned(self, lines: list[str], characters: int) -> Tokenizer:
        """A tokenizer learned from `lines` of a text of so many `characters`.

        Raises:
            UserError: its size does not fit the text, or there is no text.
        """
        size, cased, strip_accents = self.vocab_size, self.cased, self.strip_accents
        if self.tokenizer == BYTE_LEVEL_BPE.name:
            return train_bpe(lines, fitting_bpe_size(lines, characters) if size is None else size)
        if size is None:
            size = fitting_vocab_size(lines, characters, cased=cased, strip_accents=strip_accents)
        longest_word = self.max_word_length or LONGEST_WORD_CHARACTERS
        return train_vocabulary(lines, size, cased=cased, strip_accents=strip_accents, longest_word=longest_word)

    def _refuse_wordpiece_settings(self) -> None:
        settings = {"max_word_length": self.max_word_length, "strip_accents": self.strip_accents or None}
        for name, value in settings.items():
            if value is not None:
                raise UserError(
                    f"`{name}` with {BYTE_LEVEL_BPE.title}, which keeps every word and every accent",
                    remedy=f"Leave out `{name}`, or learn a vocabulary with `tokenizer` {WORDPIECE.name}",
                )
