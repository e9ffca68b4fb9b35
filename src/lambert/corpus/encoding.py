"""Encodes sentences as arrays of token ids, each distinct word only once."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from lambert.corpus.vocabulary import SPECIAL
from lambert.utils.tokenizer_calls import dropped_characters, encode, parse_tokenizer

_CACHED_WORDS = 1 << 20
_CACHED_BYTES = 1 << 26
_WORDS_AT_ONCE = 200

# ASCII punctuation; BERT's pre-tokenizer makes each a word.
_PUNCTUATION = r"([!-/:-@\[-`{-~])"

_MODERNBERTS = (
    {"type": "NFC"},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
)
"""The normalizer and the pre-tokenizer of byte-level BPE as ModernBERT's."""
_BLANKS = re.compile(r"\s\s|\s\Z")
"""White space in a row or at the end, which that pre-tokenizer parts by what is after it; no corpus has it."""

CHARACTERS = (
    "characters", "unknown_characters", "overlong_characters", "marks_dropped", "replacement_characters",
    "dropped_characters", "private_use_characters",
)  # fmt: skip
"""What is counted of a text: characters that are no white space; of these, in words that become [UNK], and in such of
them as are longer than WordPiece takes; accents, vowel signs and tones that are stripped; U+FFFD; others that the
tokenizer drops (control, format and private-use characters), and those of private use of them."""

Ids = npt.NDArray[np.uint32]
Lengths = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]


def plain_text_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that neither truncates nor pads, and reads "[SEP]" in a text as plain text.

    Only BERT's special tokens: text is expected to hold those that somebody added, such as "[ENT]".
    """
    description = json.loads(tokenizer.to_str())
    for added in description["added_tokens"]:
        added["special"] = added["content"] in SPECIAL
    plain = parse_tokenizer(json.dumps(description))
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = True
    return plain


class SentenceEncoder:
    """The ids of sentences, exactly as the tokenizer gives them, without special tokens.

    BERT's normalizer and pre-tokenizer never look across a space or ASCII punctuation, so the ids of a sentence are
    those of its words in a row, and each distinct word is encoded once. ModernBERT's never look back across a single
    space, so its words are what stands between spaces, each with the space before it. Everything else in a word (other
    white space, control characters, marks) is left to the tokenizer. Tokenizers with other rules encode whole
    sentences. Special tokens written in a sentence (`[MASK]`) become ordinary tokens, never special ids; tokens that
    were added to BERT's are found in it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = plain_text_tokenizer(tokenizer)
        description = json.loads(tokenizer.to_str())
        only_special = all(added["content"] in SPECIAL for added in description["added_tokens"])  # others hold spaces
        self._holds_spaces = only_special and (description["normalizer"], description["pre_tokenizer"]) == _MODERNBERTS
        self._by_word = self._holds_spaces or (
            only_special
            and isinstance(tokenizer.normalizer, BertNormalizer)
            and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        )
        self._lowers = self._by_word and description["normalizer"].get("lowercase", False)
        normalizer = tokenizer.normalizer
        self._strips = normalizer is not None and normalizer.normalize_str("e\u0301") == "e"
        unknown = description["model"]["unk_token"]  # none where every byte has an entry
        self._unknown = -1 if unknown is None else tokenizer.token_to_id(unknown)
        self._longest_word = description["model"].get("max_input_chars_per_word", math.inf)
        self._counts: Counter[str] = Counter()
        self._is_dropped: dict[str, bool] = {}
        self._clear_cache()

    def take_counts(self) -> Counter[str]:
        """`CHARACTERS`, and each dropped character ("U+200C") → number, of all that was encoded since the last call."""
        counts, self._counts = self._counts, Counter()
        return counts

    def encode(self, sentences: Sequence[str]) -> tuple[Ids, Lengths]:
        """All ids in a row, and the number of each sentence; a sentence of control characters has none."""
        if not self._by_word or (self._holds_spaces and any(map(_BLANKS.search, sentences))):
            return self._encode_whole(sentences)
        words = pc.split_pattern(self._separated(pa.array(sentences, pa.large_string())), " ")
        distinct = self._with_spaces(words).dictionary_encode()
        numbers = self._numbers_of(distinct.dictionary)[distinct.indices.to_numpy()]
        times = np.bincount(numbers, minlength=len(self._characters))
        self._count(self._characters, self._dropped, times)
        lengths, starts = self._lengths[numbers], self._starts[numbers]
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        # Index of each id in the cache: the start of its word, then one more for each further token of the word.
        indices = np.repeat(starts - (ends - lengths), lengths) + np.arange(total)
        ids_before = np.concatenate([[0], ends])[words.offsets.to_numpy()]
        ids = self._ids[indices]
        if len(self._words) > _CACHED_WORDS or self._words.nbytes > _CACHED_BYTES:
            self._clear_cache()
        return ids, np.diff(ids_before)

    def _separated(self, sentences: pa.Array) -> pa.Array:
        """Adds spaces around ASCII punctuation, and lower-cases ASCII for uncased tokenizers: fewer distinct words."""
        if self._holds_spaces:
            return sentences
        if self._lowers:
            sentences = pc.ascii_lower(sentences)
        return pc.replace_substring_regex(sentences, _PUNCTUATION, r" \1 ")

    def _with_spaces(self, words: pa.Array) -> pa.Array:
        """The words of all sentences in a row; where words hold their space, with it, but for the first of each."""
        if not self._holds_spaces:
            return words.values
        is_first = np.zeros(len(words.values), bool)
        is_first[words.offsets.to_numpy()[:-1]] = True
        nothing, space = pa.scalar("", pa.large_string()), pa.scalar(" ", pa.large_string())
        spaced = pc.binary_join_element_wise(nothing, words.values, space)
        return pc.if_else(pa.array(is_first), words.values, spaced)

    def _clear_cache(self) -> None:
        self._words = pa.array([], pa.large_string())
        self._ids: Ids = np.zeros(0, np.uint32)
        self._starts: Lengths = np.zeros(0, np.int64)
        self._lengths: Lengths = np.zeros(0, np.int64)
        self._characters: Counts = np.zeros((0, len(CHARACTERS)), np.int64)
        self._dropped: dict[int, str] = {}

    def _count(self, characters: Counts, dropped: dict[int, str], times: Counts) -> None:
        """Adds texts with these counts [N, 7], each so many `times` [N]."""
        self._counts.update(dict(zip(CHARACTERS, (times @ characters).tolist(), strict=True)))
        for number in (number for number in dropped if times[number]):
            for character in dropped[number]:
                self._counts[f"U+{ord(character):04X}"] += int(times[number])

    def _numbers_of(self, words: pa.Array) -> Lengths:
        """The index of each of `words` in the cache; new ones are encoded and added."""
        numbers = pc.index_in(words, value_set=self._words)
        new = words.filter(pc.is_null(numbers))
        if len(new):
            ids, lengths, characters = self._encode_words(new.to_pylist())
            self._characters = np.concatenate([self._characters, characters])
            ends = len(self._ids) + np.cumsum(lengths)
            self._words = pa.concat_arrays([self._words, new])
            self._starts = np.concatenate([self._starts, ends - lengths])
            self._lengths = np.concatenate([self._lengths, lengths])
            self._ids = np.concatenate([self._ids, ids])
            numbers = pc.index_in(words, value_set=self._words)
        found: Lengths = numbers.to_numpy().astype(np.int64)
        return found

    def _encode_words(self, words: list[str]) -> tuple[Ids, Lengths, Counts]:
        """Ids of words without spaces: many in one text, separated again by the offsets of their tokens."""
        ids, lengths, characters = [], [], []
        for start in range(0, len(words), _WORDS_AT_ONCE):
            some = words[start : start + _WORDS_AT_ONCE]
            counted, dropped = self._counted(some)
            characters.append(counted)
            self._dropped.update({len(self._words) + start + number: text for number, text in dropped.items()})
            if self._holds_spaces:
                each = encode(self._tokenizer, some, special=False)
                ids.append(np.fromiter(chain.from_iterable(one.ids for one in each), np.uint32))
                lengths.append(np.fromiter(map(len, each), np.int64))
                continue
            encoding = encode(self._tokenizer, [" ".join(some)], special=False)[0]
            ids.append(np.asarray(encoding.ids, np.uint32))
            offsets = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
            bounds = np.cumsum([0, *(len(word) + 1 for word in some)])
            lengths.append(np.diff(np.searchsorted(offsets[:, 0], bounds)))
            unknown = offsets[ids[-1] == self._unknown]
            of_word = np.searchsorted(bounds, unknown[:, 0], side="right") - 1
            self._add_unknown(characters[-1], of_word, unknown[:, 1] - unknown[:, 0])
        return np.concatenate(ids), np.concatenate(lengths), np.concatenate(characters)

    def _counted(self, texts: Sequence[str]) -> tuple[Counts, dict[int, str]]:
        """Counts [N, 7] of N texts, but for what becomes [UNK]; and what is dropped of those that lose something."""
        dropped = {number: lost for number, text in enumerate(texts) if (lost := self._dropped_of(text))}
        counts = np.zeros((len(texts), len(CHARACTERS)), np.int64)
        for number, text in enumerate(texts):
            if text.isascii():
                counts[number, 0] = len(text) - sum(map(text.count, " \t\n"))
                continue
            decomposed = unicodedata.normalize("NFD", text) if self._strips else ""
            marks = sum(unicodedata.category(character) == "Mn" for character in decomposed)
            counts[number, [0, 3, 4]] = sum(not one.isspace() for one in text), marks, text.count("\ufffd")
        for number, lost in dropped.items():
            counts[number, 5:] = len(lost), sum(unicodedata.category(one) == "Co" for one in lost)
        return counts, dropped

    def _dropped_of(self, text: str) -> str:
        """The characters that the tokenizer drops; U+FFFD is counted for itself."""
        if self._by_word and text.isprintable():  # BERT's clean-up drops no others
            return ""
        if new := set(text).difference(self._is_dropped):
            dropped = dropped_characters(self._tokenizer, "".join(new)) - {"\ufffd"}
            self._is_dropped.update({character: character in dropped for character in new})
        return "".join(filter(self._is_dropped.__getitem__, text))

    def _add_unknown(self, characters: Counts, of_text: Lengths, sizes: Lengths) -> None:
        """Adds words of `sizes` [M] that became [UNK] to the counts [N, 7] of texts `of_text` [M]."""
        np.add.at(characters[:, 1], of_text, sizes)
        is_long = sizes > self._longest_word
        np.add.at(characters[:, 2], of_text[is_long], sizes[is_long])

    def _encode_whole(self, sentences: Sequence[str]) -> tuple[Ids, Lengths]:
        encodings = encode(self._tokenizer, sentences, special=False)
        lengths = np.fromiter((len(encoding) for encoding in encodings), np.int64, len(encodings))
        ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), np.uint32, int(lengths.sum()))
        characters, dropped = self._counted(sentences)
        unknown = ids == self._unknown
        if unknown.any():
            offsets = np.array([pair for encoding in encodings for pair in encoding.offsets], np.int64)[unknown]
            of_sentence = np.repeat(np.arange(len(encodings)), lengths)[unknown]
            self._add_unknown(characters, of_sentence, offsets[:, 1] - offsets[:, 0])
        self._count(characters, dropped, np.ones(len(characters), np.int64))
        return ids, lengths
