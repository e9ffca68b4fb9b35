"""BERT's WordPiece vocabulary, learned from text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer

from lambert.corpus.words import LONGEST_WORD_CHARACTERS, alphabet, bert_normalizer, berts_words, learnable_lines
from lambert.errors import UserError

PAD, UNKNOWN, CLASSIFY, SEPARATE, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL = (PAD, UNKNOWN, CLASSIFY, SEPARATE, MASK)

MIN_VOCAB_SIZE = 100
MAX_VOCAB_SIZE = 1 << 24
BERT_VOCAB_SIZE = 30_522
SMALLEST_FITTING_SIZE = 1_024
# Distinct words grow about with the square root of a text (Heaps' law), and so does the vocabulary that fits it.
ENTRIES_PER_ROOT_CHARACTER = 1.6


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the five tokens that are not text."""

    pad: int
    unknown: int
    classify: int
    separate: int
    mask: int


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """The ids of the special tokens.

    Raises:
        UserError: the vocabulary lacks one.
    """
    found: dict[str, int | None] = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    ids = [number for number in found.values() if number is not None]
    if len(ids) < len(SPECIAL):
        missing = [token for token, number in found.items() if number is None]
        own = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        foreign = f"; its special tokens are {', '.join(own[:8])}" if own and not {*own} & {*SPECIAL} else ""
        raise UserError(
            f"the vocabulary lacks {', '.join(missing)}{foreign}",
            remedy=f"Take one with the entries {', '.join(SPECIAL)}, as BERT's and ModernBERT's have, or leave it out "
            "to learn one",
        )
    return SpecialTokens(*ids)


def is_cased(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer distinguishes upper from lower case."""
    normalizer = json.dumps(json.loads(tokenizer.to_str())["normalizer"])
    return '"lowercase": true' not in normalizer and '"Lowercase"' not in normalizer


def fitting_vocab_size(
    sample: Iterable[str], characters: int, *, cased: bool, strip_accents: bool | None = None
) -> int:
    """The size of a vocabulary for a text: the power of two next to 1.6 · √characters, from 1,024 to BERT's 30,522.

    A larger one would hold entries that the text shows too seldom to learn, and slow every step of a small model. At
    least twice the text's own letters and signs, of which some scripts have thousands.

    Args:
        sample: lines of the text.
        characters: of the whole text.
    """
    letters, signs = alphabet(
        list(sample), bert_normalizer(cased=cased, strip_accents=strip_accents), limit=BERT_VOCAB_SIZE // 2
    )
    return next_size(characters, least=2 * (len(SPECIAL) + 2 * len(letters) + len(signs)), most=BERT_VOCAB_SIZE)


def next_size(characters: int, *, least: int, most: int) -> int:
    """The power of two next to 1.6 · √characters, from 1,024 and `least` to `most`."""
    size = 1 << round(math.log2(ENTRIES_PER_ROOT_CHARACTER * math.sqrt(max(1, characters))))
    return min(most, max(SMALLEST_FITTING_SIZE, size, least))


def train_vocabulary(
    texts: Iterable[str],
    size: int,
    *,
    cased: bool,
    strip_accents: bool | None = None,
    longest_word: int = LONGEST_WORD_CHARACTERS,
) -> Tokenizer:
    """Learns a WordPiece vocabulary of at most `size` entries.

    The same texts give the same vocabulary, in whatever process and however many threads. The library's
    trainer breaks ties by token id and numbers the `##` tokens in the order of a hash table, so they are given to it
    sorted. Every letter thus has an entry as a beginning and as a continuation, and no word of known letters becomes
    [UNK]. The entries are sorted: special tokens, single characters, words, continuations.

    Args:
        texts: lines of text; they are kept in memory, so the caller bounds them.
        size: entries wanted, special tokens included; a small text may not have as many.
        cased, strip_accents: what the tokenizer keeps; None strips accents where it lower-cases, as BERT does.
        longest_word: characters; longer words become [UNK].

    Raises:
        UserError: `size` is too small for the characters of the text, or there is no text.
    """
    if not MIN_VOCAB_SIZE <= size <= MAX_VOCAB_SIZE:
        raise UserError(
            f"`vocab_size` is {size:,}",
            remedy=f"Choose one from {MIN_VOCAB_SIZE} to {MAX_VOCAB_SIZE:,}; BERT's is 30,522",
        )
    normalizer = bert_normalizer(cased=cased, strip_accents=strip_accents)
    texts = list(texts)
    lines = learnable_lines(texts, partial(berts_words, normalizer=normalizer), longest_word)
    letters, signs = alphabet(lines, normalizer, limit=size // 2)
    if not any(map(str.strip, lines)) and any(map(str.strip, texts)):
        raise UserError(
            f"all words of the text have more than {longest_word} characters, which become {UNKNOWN}",
            remedy="Give a larger `max_word_length`, such as 1000, or put spaces between the words",
        )
    if not letters and not signs:
        raise UserError("there is no text to learn a vocabulary from", remedy="Give files with text in them")
    first = [*SPECIAL, *sorted(letters + signs), *(f"##{letter}" for letter in sorted(letters))]
    smallest = max(MIN_VOCAB_SIZE, len(first))
    if size < smallest:
        raise UserError(
            f"`vocab_size` is {size:,}, but the characters of this text need {smallest:,}",
            remedy="Choose a larger one; BERT's is 30,522",
        )
    learner = Tokenizer(WordPiece({}, unk_token=UNKNOWN))
    learner.normalizer, learner.pre_tokenizer = normalizer, BertPreTokenizer()
    trainer = WordPieceTrainer(
        vocab_size=size,
        special_tokens=first,
        initial_alphabet=letters + signs,
        limit_alphabet=len(letters + signs),
        show_progress=False,
    )
    learner.train_from_iterator(lines, trainer)
    learned = set(learner.get_vocab()) - set(first)
    words = sorted(entry for entry in learned if not entry.startswith("##"))
    continuations = sorted(entry for entry in learned if entry.startswith("##"))
    return bert_tokenizer([*first, *words, *continuations], normalizer, longest_word=longest_word)


def bert_tokenizer(
    entries: list[str], normalizer: BertNormalizer, *, longest_word: int = LONGEST_WORD_CHARACTERS
) -> Tokenizer:
    """BERT's tokenizer around a list of entries whose indices are their ids.

    Raises:
        UserError: a special token is missing.
    """
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=longest_word))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder(prefix="##")
    add_special_tokens(tokenizer)
    return tokenizer


def add_special_tokens(tokenizer: Tokenizer, *, segments: int = 2) -> None:
    """Make BERT's special tokens special, and [CLS] A [SEP] B [SEP] the form of a pair.

    Args:
        segments: segment types of the model; with 1, B has the type 0 as A has.
    """
    ids = special_tokens(tokenizer)
    second = min(1, segments - 1)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{CLASSIFY} $A {SEPARATE}",
        pair=f"{CLASSIFY} $A {SEPARATE} $B:{second} {SEPARATE}:{second}",
        special_tokens=[(CLASSIFY, ids.classify), (SEPARATE, ids.separate)],
    )
    make_special(tokenizer)


def make_special(tokenizer: Tokenizer) -> None:
    """Make BERT's special tokens special; those that are keep their flags, such as the `lstrip` of [MASK]."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    tokenizer.add_special_tokens([token for token in SPECIAL if token not in special])
