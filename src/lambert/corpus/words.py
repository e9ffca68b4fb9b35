"""What is a word, for the learner of a vocabulary as for the tokenizer that uses it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

from tokenizers.normalizers import BertNormalizer, Normalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

LONGEST_WORD_CHARACTERS = 100
"""WordPiece makes longer words [UNK], as in BERT."""
MOST_WORD_CHARACTERS = 2_000
"""Sentences are no longer; WordPiece takes a second over a word of 1,000 letters, and time that grows with its cube."""
RARE_CHARACTER_FRACTION = 1e-4
"""The rarest characters, together this fraction of a text, get no entry when a vocabulary is learned."""
LONG_WORDS_CHARACTERS = 1_000_000
"""Of words longer than BERT's limit so many characters are learned from: the trainer takes 20 s over them."""

# Only lines with such a run can hold a longer word; BERT's rules still part it at punctuation and ideographs.
_LONG_RUN = re.compile(rf"\S{{{LONGEST_WORD_CHARACTERS + 1}}}")


def bert_normalizer(*, cased: bool, strip_accents: bool | None = None) -> BertNormalizer:
    """BERT's clean-up: case, accents (None: stripped where case is), a space around each ideograph."""
    return BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=not cased)


def berts_words(line: str, normalizer: BertNormalizer) -> list[str]:
    """The words of a line by the normalizer and the pre-tokenizer that will encode it."""
    return [word for word, _ in BertPreTokenizer().pre_tokenize_str(normalizer.normalize_str(line))]


def learnable_lines(
    texts: Iterable[str], words_of: Callable[[str], Iterable[str]], longest_word: int, *, between: str = " "
) -> list[str]:
    """The lines without words beyond `longest_word` characters, over which a trainer would take hours.

    Args:
        words_of: the words of a line, as the tokenizer will part it.
        between: what joins them to a line again.
    """
    left = LONG_WORDS_CHARACTERS
    lines: list[str] = []
    for line in texts:
        if _LONG_RUN.search(line) is None:
            lines.append(line)
            continue
        kept: list[str] = []
        for word in words_of(line):
            if len(word) <= LONGEST_WORD_CHARACTERS:
                kept.append(word)
            elif len(word) <= min(longest_word, left):
                kept.append(word)
                left -= len(word)
        lines.append(between.join(kept))
    return lines


def alphabet(lines: list[str], normalizer: BertNormalizer, *, limit: int) -> tuple[list[str], list[str]]:
    """(letters, signs that always stand alone by BERT's rules): the characters of `common_characters`."""
    kept = common_characters(lines, normalizer, limit=limit)
    letters = [character for character in kept if not _stands_alone(character)]
    return letters, [character for character in kept if _stands_alone(character)]


def common_characters(lines: list[str], normalizer: Normalizer, *, limit: int) -> list[str]:
    """The commonest characters after normalization, which make up nearly all, but for the space."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(normalizer.normalize_str(line))
    counts.pop(" ", None)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    allowed = counts.total() * (1 - RARE_CHARACTER_FRACTION)
    kept: list[str] = []
    covered = 0
    for character, count in ranked[:limit]:
        if covered > allowed:
            break
        kept.append(character)
        covered += count
    return kept


_CHINESE_SPACES = BertNormalizer(clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False)


def _stands_alone(character: str) -> bool:
    """Whether BERT's rules make the character a word by itself, so that it never continues one."""
    pieces = BertPreTokenizer().pre_tokenize_str(_CHINESE_SPACES.normalize_str(f"a{character}a"))
    return len(pieces) != 1
