"""Byte-level BPE as ModernBERT's: learned from text, or checked when it comes from a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from lambert.corpus.vocabulary import MASK, MAX_VOCAB_SIZE, SPECIAL, add_special_tokens, next_size
from lambert.corpus.words import MOST_WORD_CHARACTERS, common_characters, learnable_lines
from lambert.errors import UserError
from lambert.utils.tokenizer_family import BYTES

MODERNBERT_VOCAB_SIZE = 50_368
SMALLEST_BPE_SIZE = len(BYTES) + len(SPECIAL)
_LEAST_OCCURRENCES = 2
"""Of a pair that is merged, as in GPT-2's and RoBERTa's vocabularies."""
_NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


def fitting_bpe_size(sample: Iterable[str], characters: int) -> int:
    """The size of a vocabulary for a text: as for WordPiece, from 1,024 to ModernBERT's 50,368.

    At least twice the bytes and the text's own characters, each of which beyond ASCII takes merges.

    Args:
        sample: lines of the text.
        characters: of the whole text.
    """
    own = common_characters(list(sample), NFC(), limit=MODERNBERT_VOCAB_SIZE // 2)
    return next_size(characters, least=2 * (SMALLEST_BPE_SIZE + len(own)), most=MODERNBERT_VOCAB_SIZE)


def train_bpe(texts: Iterable[str], size: int) -> Tokenizer:
    """Learns a byte-level BPE of at most `size` entries: special tokens, the 256 bytes, merges as they were learned.

    The rules are ModernBERT's: Unicode NFC, then GPT-2's splits, in which a word holds the space before it. Nothing of
    a text is lost or [UNK]. The same texts give the same file, in whatever process and however many threads: the
    library's trainer breaks ties by token id, and all bytes have theirs before it begins.

    Args:
        texts: lines of text, whose runs of white space are read as single spaces, as in every corpus; they are kept in
            memory, so the caller bounds them.
        size: entries wanted, special tokens included; a small text may not have as many pairs that occur twice.

    Raises:
        UserError: `size` is too small for the bytes, or there is no text.
    """
    if not SMALLEST_BPE_SIZE <= size <= MAX_VOCAB_SIZE:
        raise UserError(
            f"`vocab_size` is {size:,}",
            remedy=f"Choose one from {SMALLEST_BPE_SIZE} (the bytes and {len(SPECIAL)} special tokens) to "
            f"{MAX_VOCAB_SIZE:,}; ModernBERT's is {MODERNBERT_VOCAB_SIZE:,}",
        )
    lines = learnable_lines((" ".join(line.split()) for line in texts), _words, MOST_WORD_CHARACTERS, between="")
    if not any(lines):
        raise UserError("there is no text to learn a vocabulary from", remedy="Give files with text in them")
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = NFC(), ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=size,
        min_frequency=_LEAST_OCCURRENCES,
        # [MASK] takes the space before it, as it stands for a word with its space.
        special_tokens=[AddedToken(token, special=True, lstrip=token == MASK) for token in SPECIAL],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    add_special_tokens(tokenizer)
    return tokenizer


def check_bpe(tokenizer: Tokenizer, file: Path) -> None:
    """Refuses a BPE that loses text, or whose ids are not always the same.

    Raises:
        UserError: names the setting.
    """
    model = tokenizer.model
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if value := getattr(model, name):
            raise UserError(
                f"{file}: {name} of the BPE model is {value!r}, not null",
                remedy="Bring byte-level BPE as ModernBERT's, without it, or leave the vocabulary out to learn one",
            )
    entries = tokenizer.get_vocab(with_added_tokens=False)
    missing = [byte for character, byte in BYTES.items() if character not in entries and byte not in _NEVER_IN_UTF8]
    if missing:
        raise UserError(
            f"{file} has no entry for {len(missing):,} bytes, such as {missing[0]:#04x}, so text would be lost",
            remedy="Bring a byte-level BPE with all 256 bytes, or leave the vocabulary out to learn one",
        )


def _words(line: str) -> list[str]:
    """The pieces of a line that BPE merges within, as they stand in it."""
    return [line[start:stop] for _, (start, stop) in ByteLevel(add_prefix_space=False).pre_tokenize_str(line)]
