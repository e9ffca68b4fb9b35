"""Tokenizers in files: a list of entries or a `tokenizer.json`, alone or in a Hugging Face folder with its settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer

from lambert.corpus.byte_level_bpe import check_bpe
from lambert.corpus.tokenizer_rules import refuse_growth, tokenizer_differences
from lambert.corpus.tokenizer_settings import RULES_IN_FILE, RULES_IN_SETTINGS, TOKEN_SETTINGS, TokenizerSettings
from lambert.corpus.vocabulary import (
    SPECIAL,
    add_special_tokens,
    bert_tokenizer,
    is_cased,
    make_special,
    special_tokens,
)
from lambert.errors import UserError
from lambert.utils import hub
from lambert.utils.io import VOCABULARY_BYTES, read_bytes, why_unwritable, write_text
from lambert.utils.tokenizer_calls import encode, open_tokenizer, refused
from lambert.utils.tokenizer_family import BYTE_LEVEL_BPE, family_of

PROBE_LINES = 1_000
"""Lines that a written tokenizer must encode as before."""
# What tokenizers differ in: accents, both ways of writing them, capitals, CJK, controls, special tokens, long words.
_AWKWARD = (
    *(
        "Der Mann möchte schön.",
        "mo\u0308chte Cafe\u0301",
        "東京 das中文",
        "don't (a) 3.14 c++",
        "हिन्दी में",
        "مدينةٍ",
        "สวัสดี",
    ),
    *("a\x00b\u200bc\td\u00a0e\u3000f", "[MASK] a [CLS]b[SEP] [UNK]", "İstanbul ΣΑΣ ǅ ﬁ ½ ①", "🙂 👨\u200d👩\u200d👧"),
    *("y" * 100, "z" * 101, " a  b ", ""),
)


class WrongCase(UserError):
    """A cased vocabulary is read as uncased, or the reverse, which would make words `[UNK]` silently."""


def load_vocabulary(path: Path, *, cased: bool) -> Tokenizer:
    """Loads `vocab.txt` (an entry per line, its index is its id), `tokenizer.json`, or a folder with either.

    The settings of a Hugging Face folder (`tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`) are
    applied in full: case, accents, Chinese characters, added tokens. A run and a corpus are such folders too: their
    vocabulary is in `tokenizer/`. A model's name on the Hugging Face Hub is the folder into which its tokenizer is
    fetched.

    `cased` says how to read a `vocab.txt` where no setting does; an uncased vocabulary is refused with it.

    Raises:
        UserError: the file is missing or neither WordPiece nor byte-level BPE, an entry occurs twice, a special token
            is missing, a setting cannot be followed, or the files of a folder and `cased` contradict each other.
    """
    with refused(f"the tokenizer of {path} cannot be used"):
        return _loaded(path, cased=cased)


def _loaded(path: Path, *, cased: bool) -> Tokenizer:
    path = Path(path)
    if hub.is_hub_name(path):
        path = hub.fetched_vocabulary(str(path))
    file = _vocabulary_file(path)
    is_folder = file.parent == path
    settings = TokenizerSettings.read(path) if is_folder else TokenizerSettings(file.parent)
    if file.suffix == ".json":
        tokenizer = _load_tokenizer_json(file)
        if is_folder:
            settings.refuse_contradictions(tokenizer, file)
    else:
        settings.refuse_rules_in_file()
        entries = _read_entries(file)
        tokenizer = bert_tokenizer(entries, settings.normalizer(cased=cased))
        if not settings.says_case:
            _check_case(file, entries, cased=cased)
    settings.add_tokens(tokenizer, file)
    if cased and not is_cased(tokenizer):
        raise WrongCase(
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
        raise UserError(f"vocabulary {path} does not exist", remedy="Check the path, or leave out `vocab` to learn one")
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
        tokenizer = open_tokenizer(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error})", remedy="Give a tokenizer.json or a vocab.txt") from error
    family = family_of(tokenizer, of=str(file))
    special_tokens(tokenizer)
    if family is BYTE_LEVEL_BPE:
        check_bpe(tokenizer, file)
    refuse_growth(tokenizer, file)
    ids = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
    if ids != list(range(len(ids))):
        raise UserError(
            f"the ids in {file} are not 0 to {len(ids) - 1:,}, each once", remedy="Bring a whole vocabulary"
        )
    # Published files often contain the truncation and padding of the last program that used them.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _check_template(tokenizer, file)
    return tokenizer


def _check_template(tokenizer: Tokenizer, file: Path) -> None:
    """Gives BERT's special tokens to a tokenizer without any; refuses another form than [CLS] A [SEP] B [SEP]."""
    ids, form = special_tokens(tokenizer), "[CLS] A [SEP] B [SEP]"
    texts = (entry for entry in entries_by_id(tokenizer) if entry not in SPECIAL)
    text = next((text for text in texts if len(tokenizer.encode(text, add_special_tokens=False)) == 1), "")
    (word,) = tokenizer.encode(text, add_special_tokens=False).ids or [ids.unknown]
    single, pair = tokenizer.encode(text), tokenizer.encode(text, text)
    if tokenizer.post_processor is None:
        add_special_tokens(tokenizer)
    elif (
        single.ids != [ids.classify, word, ids.separate]
        or pair.ids != [*single.ids, word, ids.separate]
        or pair.type_ids not in ([0, 0, 0, 1, 1], [0] * 5)
    ):
        raise UserError(
            f"{file}: post_processor makes {' '.join(pair.tokens[:9])} of a pair of texts, with segments "
            f"{pair.type_ids[:9]}, not {form}",
            remedy=f"Bring a tokenizer that makes {form} of it, or one without post_processor",
        )
    make_special(tokenizer)


def _check_case(file: Path, entries: list[str], *, cased: bool) -> None:
    """Refuses a cased list read as uncased and the reverse."""
    capitals = sum(entry != entry.lower() for entry in entries if entry not in SPECIAL and entry[:1] != "[")
    if not cased and capitals > len(entries) // 20:
        raise WrongCase(f"{file} has {capitals:,} entries with capital letters", remedy="Add `cased=True`")
    if cased and not capitals and any(entry.upper() != entry for entry in entries):
        raise WrongCase(f"{file} has no entry with a capital letter", remedy="Leave out `cased=True`")


def entries_by_id(tokenizer: Tokenizer) -> Iterator[str]:
    """The entries, ordered by id."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return iter(sorted(vocabulary, key=vocabulary.__getitem__))


def save_tokenizer(
    tokenizer: Tokenizer, folder: Path, *, longest_sequence: int = 512, rules_in_file: bool = False
) -> None:
    """Writes a tokenizer, from which `transformers` gives the same ids, and reads it again.

    The files are `tokenizer.json` and `tokenizer_config.json`. Where BERT's settings say all that the tokenizer does,
    `transformers` builds it from them, and `vocab.txt` is written too. Any other tokenizer is written as a
    `PreTrainedTokenizerFast`, which takes `tokenizer.json` as it is.

    Args:
        longest_sequence: positions of the model.
        rules_in_file: write a `PreTrainedTokenizerFast` whatever the tokenizer.

    Raises:
        UserError: the folder cannot be written to, or what was written gives other ids.
    """
    settings = _settings_of(tokenizer, rules_in_file=rules_in_file)
    configuration = {**settings, "model_max_length": longest_sequence, **TOKEN_SETTINGS}
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(configuration, indent=2, ensure_ascii=False) + "\n",
    }
    if settings["tokenizer_class"] == RULES_IN_SETTINGS:
        files["vocab.txt"] = "".join(f"{entry}\n" for entry in entries_by_id(tokenizer))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text(folder / name, text)
        if "vocab.txt" not in files:
            (folder / "vocab.txt").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"the tokenizer cannot be written to {folder} ({why_unwritable(error, folder)})",
            remedy="Free some space, mend the permissions or choose another folder",
        ) from None
    again = load_vocabulary(folder, cased=False)
    lines = probe_lines(tokenizer)
    if tokenizer_differences(again, tokenizer) or ids_of(again, lines) != ids_of(tokenizer, lines):
        raise UserError(
            f"the tokenizer in {folder} gives other ids than the one that was written there",
            remedy="Bring a tokenizer of the original BERT family or of ModernBERT",
        )


def ids_of(tokenizer: Tokenizer, lines: list[str]) -> list[list[int]]:
    """The ids of each line, special tokens included."""
    return [encoding.ids for encoding in encode(tokenizer, lines, special=True)]


def probe_lines(tokenizer: Tokenizer) -> list[str]:
    """Lines that tell tokenizers apart: entries from all over the vocabulary, in both cases, among awkward text."""
    entries = [family_of(tokenizer).text(entry) for entry in entries_by_id(tokenizer)]
    words = cycle(entries[:: max(1, len(entries) // (3 * PROBE_LINES))])
    changed: Iterator[Callable[[str], str]] = cycle((str.lower, str.upper, str.title, str))
    lines = [" ".join(next(changed)(word) for word in islice(words, 3)) for _ in range(PROBE_LINES)]
    return [f"{line} {awkward}" for line, awkward in zip(lines, cycle(_AWKWARD), strict=False)]


def _settings_of(tokenizer: Tokenizer, *, rules_in_file: bool) -> dict[str, Any]:
    """What `tokenizer_config.json` says of the rules."""
    normalizer = tokenizer.normalizer
    if isinstance(normalizer, BertNormalizer) and not rules_in_file:
        as_bert = bert_tokenizer(list(entries_by_id(tokenizer)), normalizer)
        same_form = as_bert.encode("", "").type_ids == tokenizer.encode("", "").type_ids
        if same_form and normalizer.clean_text and not tokenizer_differences(as_bert, tokenizer):
            return {
                "tokenizer_class": RULES_IN_SETTINGS,
                "do_lower_case": normalizer.lowercase,
                "strip_accents": normalizer.strip_accents,
                "tokenize_chinese_chars": normalizer.handle_chinese_chars,
            }
    segments = ["token_type_ids"] if any(tokenizer.encode("", "").type_ids) else []
    more = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    return {
        "tokenizer_class": RULES_IN_FILE,
        "model_input_names": ["input_ids", *segments, "attention_mask"],
        "additional_special_tokens": [content for content in more if content not in SPECIAL],
    }
