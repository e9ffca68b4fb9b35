"""Sentences into token ids, each distinct word only once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

_REMEMBERED_WORDS = 1 << 18
_REMEMBERED_CHARACTERS = 32


class SentenceEncoder:
    """The ids of sentences, exactly as the tokenizer gives them, without special tokens.

    BERT's normaliser and pre-tokenizer never look across white space, so the ids of a sentence are those of
    its words in a row, and text repeats its words: remembering them is several times faster than encoding
    every sentence. Tokenizers with other rules encode whole sentences. Special tokens written out in a
    sentence (`[MASK]`) become the word pieces of their characters, never special ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.encode_special_tokens = True
        self._by_word = isinstance(tokenizer.normalizer, BertNormalizer) and isinstance(
            tokenizer.pre_tokenizer, BertPreTokenizer
        )
        self._known: dict[str, list[int]] = {}

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Ids of each sentence; a sentence of nothing but control characters has none."""
        if not self._by_word:
            return self._encode(sentences)
        words = [sentence.split() for sentence in sentences]
        known = self._known
        # dict.fromkeys keeps the order of the text, so that nothing depends on the order of a set.
        new = [word for word in dict.fromkeys(chain.from_iterable(words)) if word not in known]
        known.update(zip(new, self._encode(new), strict=True))
        encoded = [list(chain.from_iterable(map(known.__getitem__, line))) for line in words]
        self._forget(new)
        return encoded

    def _forget(self, new: list[str]) -> None:
        """Keeps what is remembered small: no long words, which hardly repeat, and not too many."""
        if len(self._known) > _REMEMBERED_WORDS:
            self._known.clear()
            return
        for word in new:
            if len(word) > _REMEMBERED_CHARACTERS:
                del self._known[word]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]
