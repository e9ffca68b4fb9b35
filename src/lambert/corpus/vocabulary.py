"""BERT's WordPiece vocabulary: learned from text or given, and saved as `transformers` reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer

from lambert.corpus.words import LONGEST_WORD_CHARACTERS, alphabet, bert_normalizer, learnable_lines
from lambert.errors import UserError
from lambert.utils import hub
from lambert.utils.io import (
    SETTINGS_BYTES,
    VOCABULARY_BYTES,
    check_size,
    read_bytes,
    read_json,
    why_unwritable,
    write_text,
)

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
        raise UserError(
            f"the vocabulary lacks {', '.join(missing)}",
            remedy=f"Take a BERT vocabulary: it has the entries {', '.join(SPECIAL)}",
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
    wanted = ENTRIES_PER_ROOT_CHARACTER * math.sqrt(max(1, characters))
    size = 1 << round(math.log2(wanted))
    letters, signs = alphabet(
        list(sample), bert_normalizer(cased=cased, strip_accents=strip_accents), limit=BERT_VOCAB_SIZE // 2
    )
    return min(BERT_VOCAB_SIZE, max(SMALLEST_FITTING_SIZE, size, 2 * (len(SPECIAL) + 2 * len(letters) + len(signs))))


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
    lines = learnable_lines(texts, normalizer, longest_word)
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
    entries = [*first, *words, *continuations]
    return _tokenizer(entries, cased=cased, strip_accents=strip_accents, longest_word=longest_word)


def load_vocabulary(path: Path, *, cased: bool) -> Tokenizer:
    """Loads `vocab.txt` (an entry per line, its index is its id), `tokenizer.json`, or a folder with either.

    A run and a corpus are such folders too: their vocabulary is in `tokenizer/`. A model's name on the Hugging Face Hub
    is the folder into which its tokenizer is fetched.

    `cased` says how to read a bare `vocab.txt`; a `tokenizer.json`, or a `tokenizer_config.json` beside the list, takes
    precedence, but an uncased one is refused with `cased=True`.

    Raises:
        UserError: the file is missing or not a WordPiece vocabulary, an entry occurs twice, a special token is missing,
            or the vocabulary and `cased` contradict each other.
    """
    path = Path(path)
    if hub.is_hub_name(path):
        path = hub.fetched_vocabulary(str(path))
    file = _vocabulary_file(path)
    if file.suffix == ".json":
        tokenizer = _load_tokenizer_json(file)
    else:
        configured = _configured_case(file.parent) if path.is_dir() else None
        entries = _read_entries(file)
        tokenizer = _tokenizer(entries, cased=cased if configured is None else configured)
        if configured is None:
            _check_case(file, entries, cased=cased)
    special_tokens(tokenizer)
    if cased and not is_cased(tokenizer):
        raise UserError(
            f"{path} was made for small letters only, but a cased vocabulary was asked for",
            remedy="Leave out `cased=True` or give a cased vocabulary",
        )
    return tokenizer


def _vocabulary_file(path: Path) -> Path:
    if path.is_dir():
        names = ("tokenizer/tokenizer.json", "tokenizer.json", "vocab.txt")
        if (file := next((path / name for name in names if (path / name).is_file()), None)) is not None:
            return file
        raise UserError(f"the folder {path} has no vocabulary", remedy="It needs a tokenizer.json or a vocab.txt")
    if not path.is_file():
        raise UserError(f"vocabulary {path} does not exist", remedy="Check the path, or leave it out to learn one")
    return path


def _read_entries(file: Path) -> list[str]:
    try:
        # Only line feeds end an entry: there are vocabularies with U+2028 or U+0085 as entries.
        text = read_bytes(file, VOCABULARY_BYTES).decode("utf-8-sig")
        lines = text.replace("\r\n", "\n").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"vocabulary {file} cannot be read ({error})", remedy="Give a vocab.txt in UTF-8") from error
    while lines and not lines[-1]:
        lines.pop()
    seen: dict[str, int] = {}
    for number, entry in enumerate(lines, start=1):
        if not entry:
            raise UserError(f"{file}, line {number} is empty", remedy="Each line is an entry and its number the id")
        if entry in seen:
            raise UserError(
                f"{file}, line {number}: {entry!r} is already on line {seen[entry]}",
                remedy="Each entry must occur once, as the line number is its id",
            )
        seen[entry] = number
    return lines


def _load_tokenizer_json(file: Path) -> Tokenizer:
    try:
        check_size(file, VOCABULARY_BYTES)
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for whatever it cannot parse
        raise UserError(f"{file} cannot be read ({error})", remedy="Give a tokenizer.json or a vocab.txt") from error
    if not isinstance(tokenizer.model, WordPiece):
        raise UserError(
            f"{file} holds a {type(tokenizer.model).__name__} model",
            remedy="BERT needs a WordPiece vocabulary; bring one or leave it out to learn one",
        )
    ids = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
    if ids != list(range(len(ids))):
        raise UserError(
            f"the ids in {file} are not 0 to {len(ids) - 1:,}, each once", remedy="Bring a whole vocabulary"
        )
    # Published files often contain the truncation and padding of the last program that used them.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _configured_case(folder: Path) -> bool | None:
    try:
        lower: Any = read_json(folder / "tokenizer_config.json", SETTINGS_BYTES).get("do_lower_case")
    except (OSError, ValueError, AttributeError):
        return None
    return None if lower is None else not lower


def _check_case(file: Path, entries: list[str], *, cased: bool) -> None:
    """Refuses a cased list read as uncased and the reverse, which would make words `[UNK]` silently."""
    capitals = sum(entry != entry.lower() for entry in entries if entry not in SPECIAL and entry[:1] != "[")
    if not cased and capitals > len(entries) // 20:
        raise UserError(f"{file} has {capitals:,} entries with capital letters", remedy="Add `cased=True`")
    if cased and not capitals and any(entry.upper() != entry for entry in entries):
        raise UserError(f"{file} has no entry with a capital letter", remedy="Leave out `cased=True`")


def _tokenizer(
    entries: list[str],
    *,
    cased: bool,
    strip_accents: bool | None = None,
    longest_word: int = LONGEST_WORD_CHARACTERS,
) -> Tokenizer:
    """BERT's tokenizer around a list of entries whose indices are their ids."""
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=longest_word))
    ids = special_tokens(tokenizer)
    tokenizer.normalizer = bert_normalizer(cased=cased, strip_accents=strip_accents)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder(prefix="##")
    tokenizer.post_processor = TemplateProcessing(
        single=f"{CLASSIFY} $A {SEPARATE}",
        pair=f"{CLASSIFY} $A {SEPARATE} $B:1 {SEPARATE}:1",
        special_tokens=[(CLASSIFY, ids.classify), (SEPARATE, ids.separate)],
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def entries_by_id(tokenizer: Tokenizer) -> Iterator[str]:
    """The entries, ordered by id."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return iter(sorted(vocabulary, key=vocabulary.__getitem__))


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, longest_sequence: int = 512) -> None:
    """Writes `tokenizer.json`, `vocab.txt` and `tokenizer_config.json`; `transformers` gives the same ids.

    Args:
        longest_sequence: positions of the model.

    Raises:
        UserError: the folder cannot be written to.
    """
    configuration = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": not is_cased(tokenizer),
        "strip_accents": getattr(tokenizer.normalizer, "strip_accents", None),
        "tokenize_chinese_chars": True,
        "model_max_length": longest_sequence,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "cls_token": CLASSIFY,
        "sep_token": SEPARATE,
        "mask_token": MASK,
    }
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=True),
        "vocab.txt": "".join(f"{entry}\n" for entry in entries_by_id(tokenizer)),
        "tokenizer_config.json": json.dumps(configuration, indent=2) + "\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text(folder / name, text)
    except OSError as error:
        raise UserError(
            f"the tokenizer cannot be written to {folder} ({why_unwritable(error, folder)})",
            remedy="Free some space, mend the permissions or choose another folder",
        ) from None
