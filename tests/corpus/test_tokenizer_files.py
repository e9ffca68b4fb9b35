"""Tokenizers in Hugging Face folders: `transformers` gives the same ids, or a setting is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import NFC, BertNormalizer, Lowercase, Normalizer, Replace, Sequence
from tokenizers.pre_tokenizers import BertPreTokenizer, PreTokenizer, WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from lambert.corpus.encoding import SentenceEncoder
from lambert.corpus.tokenizer_files import load_vocabulary, probe_lines, save_tokenizer
from lambert.corpus.vocabulary import SPECIAL, add_special_tokens
from lambert.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ENTRIES = [
    *(*SPECIAL, ".", "[", "]", *LETTERS, *LETTERS.upper(), "ä", "ö", "東", "京"),
    *(f"##{letter}" for letter in (*LETTERS, *LETTERS.upper(), "ö", ".")),
    *("der", "mann", "Mann", "möchte", "mochte", "the"),
]
LINES = ["Der Mann möchte schön.", "東京der", "mann.", "the covid [ENT] [MASK] covid.", "x" * 150, "mo\u0308chte"]


def own_tokenizer(
    normalizer: Normalizer | None = None, pre_tokenizer: PreTokenizer | None = None, **model: Any
) -> Tokenizer:
    entries = {entry: number for number, entry in enumerate(ENTRIES)}
    tokenizer = Tokenizer(WordPiece(entries, unk_token="[UNK]", **model))
    tokenizer.normalizer = normalizer or BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizer or BertPreTokenizer()
    return tokenizer


def folder_of(folder: Path, config: dict[str, Any] | None = None, **files: Any) -> Path:
    """A folder with vocab.txt, tokenizer_config.json and other JSON files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in ENTRIES), encoding="utf-8")
    for name, content in {"tokenizer_config": config, "config": {"model_type": "bert"}, **files}.items():
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def assert_same_as_transformers(ours: Tokenizer, folder: Path, lines: list[str]) -> None:
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
    for line in lines:
        found = theirs(line, "the")
        encoding = ours.encode(line, "the")
        assert encoding.ids == found["input_ids"], (
            line,
            encoding.tokens,
            theirs.convert_ids_to_tokens(found["input_ids"]),
        )
        assert encoding.type_ids == found.get("token_type_ids", [0] * len(encoding.ids))
    assert len(theirs) == ours.get_vocab_size()
    assert [theirs.pad_token, theirs.unk_token, theirs.cls_token, theirs.sep_token, theirs.mask_token] == list(SPECIAL)


def with_added_tokens() -> Tokenizer:
    tokenizer = own_tokenizer()
    tokenizer.add_tokens([AddedToken("covid"), AddedToken("[ENT]", special=True)])
    return tokenizer


OWN: dict[str, Callable[[], Tokenizer]] = {
    "BERT's": own_tokenizer,
    "cased": lambda: own_tokenizer(BertNormalizer(lowercase=False)),
    "accents kept": lambda: own_tokenizer(BertNormalizer(lowercase=True, strip_accents=False)),
    "cased, accents stripped": lambda: own_tokenizer(BertNormalizer(lowercase=False, strip_accents=True)),
    "Chinese in words": lambda: own_tokenizer(BertNormalizer(lowercase=True, handle_chinese_chars=False)),
    "controls kept": lambda: own_tokenizer(BertNormalizer(clean_text=False)),
    "NFC, lower": lambda: own_tokenizer(Sequence([NFC(), Lowercase()])),
    "letters replaced": lambda: own_tokenizer(Sequence([Replace("ö", "oe"), BertNormalizer(lowercase=True)])),
    "split at spaces": lambda: own_tokenizer(pre_tokenizer=WhitespaceSplit()),
    "longer words": lambda: own_tokenizer(max_input_chars_per_word=200),
    "added tokens": with_added_tokens,
}


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_transformers_reads_what_we_write(tmp_path: Path, make: Callable[[], Tokenizer]) -> None:
    make().save(str(tmp_path / "tokenizer.json"))
    ours = load_vocabulary(tmp_path / "tokenizer.json", cased=False)
    save_tokenizer(ours, tmp_path / "saved", longest_sequence=64)
    (tmp_path / "saved/config.json").write_text(json.dumps({"model_type": "bert"}))
    assert_same_as_transformers(ours, tmp_path / "saved", [*LINES, *probe_lines(ours)[:60]])
    written = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    rules_are_berts = written["tokenizer_class"] == "BertTokenizer"
    assert rules_are_berts == (tmp_path / "saved/vocab.txt").exists() and written["model_max_length"] == 64


def test_a_model_with_one_segment_type_gets_a_tokenizer_with_one(tmp_path: Path) -> None:
    tokenizer = own_tokenizer()
    add_special_tokens(tokenizer, segments=1)
    save_tokenizer(tokenizer, tmp_path)
    assert set(tokenizer.encode("der", "mann").type_ids) == {0}
    assert_same_as_transformers(tokenizer, tmp_path, LINES)


ADDED = {"[ENT]": len(ENTRIES) + 1, "covid": len(ENTRIES)}
FLAGS = {"lstrip": False, "rstrip": False, "single_word": False}
DECODER = {
    str(number): {"content": token, "special": token[0] == "[", "normalized": token[0] != "[", **FLAGS}
    for token, number in ADDED.items()
}
FOREIGN: dict[str, dict[str, Any]] = {
    "uncased": {"config": {"do_lower_case": True}},
    "cased": {"config": {"do_lower_case": False}},
    "accents kept": {"config": {"do_lower_case": True, "strip_accents": False}},
    "accents stripped": {"config": {"do_lower_case": False, "strip_accents": True}},
    "Chinese in words": {"config": {"do_lower_case": True, "tokenize_chinese_chars": False}},
    "added tokens": {"config": {"do_lower_case": True, "added_tokens_decoder": DECODER}},
    "added tokens in their file": {
        "config": {"do_lower_case": False},
        "added_tokens": ADDED,
        "special_tokens_map": {"additional_special_tokens": ["[ENT]"]},
    },
    "an entry made special": {"config": {"do_lower_case": True, "additional_special_tokens": ["möchte"]}},
    "settings that change nothing": {
        "config": {"do_lower_case": True, "never_split": None, "tokenizer_class": "BertTokenizer", "cls_token": "[CLS]"}
    },
    "electra's class": {"config": {"do_lower_case": True, "tokenizer_class": "ElectraTokenizerFast"}},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_settings_are_applied_as_in_transformers(tmp_path: Path, files: dict[str, Any]) -> None:
    folder = folder_of(tmp_path / "foreign", **files)
    ours = load_vocabulary(folder, cased=False)
    assert_same_as_transformers(ours, folder, LINES)
    save_tokenizer(ours, tmp_path / "saved")  # which reads it again


REFUSED: dict[str, dict[str, Any]] = {
    "do_basic_tokenize": {"config": {"do_basic_tokenize": False}},
    "never_split": {"config": {"never_split": ["möchte"]}},
    "split_special_tokens": {"config": {"split_special_tokens": True}},
    "wordpieces_prefix": {"config": {"wordpieces_prefix": "@@"}},
    "clean_text": {"config": {"clean_text": False}},
    "do_lower_case": {"config": {"do_lower_case": "false"}},
    "tokenizer_class": {"config": {"tokenizer_class": "BertJapaneseTokenizer"}},
    "tokenizer_class is 'Bertweet": {"config": None, "config.json": None},
    "auto_map": {"config": {"auto_map": {"AutoTokenizer": ["tokenizer.Own", None]}}},
    "mask_token": {"config": {"mask_token": "<mask>"}},
    "pad_token": {"config": {}, "special_tokens_map": {"pad_token": {"content": "<pad>"}}},
    "added token 'covid'": {"config": {"do_lower_case": True}, "added_tokens": {"covid": 3}},
    "added_tokens": {"config": {"do_lower_case": True}, "added_tokens": ["covid"]},
    "added_tokens_decoder": {"config": {"added_tokens_decoder": {"5": "covid"}}},
    "additional_special_tokens": {"config": {"do_lower_case": True, "additional_special_tokens": ["[ENT]"]}},
    "is not a JSON object": {"config": ["do_lower_case"]},
    "no tokenizer.json": {"config": {"tokenizer_class": "PreTrainedTokenizerFast"}},
}


@pytest.mark.parametrize("named", REFUSED)
def test_other_settings_are_refused_by_name(tmp_path: Path, named: str) -> None:
    files = dict(REFUSED[named])
    if "config.json" in files:
        del files["config.json"]
        (folder_of(tmp_path, None) / "config.json").write_text('{"tokenizer_class": "BertweetTokenizer"}')
    else:
        folder_of(tmp_path, **files)
    with pytest.raises(UserError, match=named.replace(".", r"\.")):
        load_vocabulary(tmp_path, cased=False)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("cased", {"do_lower_case": True}),
        ("accents kept", {"do_lower_case": True, "strip_accents": None}),
        ("Chinese in words", {}),
        ("NFC, lower", {"tokenizer_class": "BertTokenizer"}),
        ("split at spaces", {}),
        ("longer words", {"tokenizer_class": "BertTokenizerFast"}),
    ],
)
def test_a_tokenizer_file_that_its_settings_contradict_is_refused(
    tmp_path: Path, name: str, config: dict[str, Any]
) -> None:
    """Transformers would follow the settings."""
    OWN[name]().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="differ, of which transformers follows the latter"):
        load_vocabulary(tmp_path, cased=False)
    load_vocabulary(tmp_path / "tokenizer.json", cased=False)  # the remedies work
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    assert_same_as_transformers_but_for_tokens(load_vocabulary(tmp_path, cased=False), tmp_path)


def assert_same_as_transformers_but_for_tokens(ours: Tokenizer, folder: Path) -> None:
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
    for line in LINES:
        assert ours.encode(line, add_special_tokens=False).tokens == theirs.tokenize(line) or "[MASK]" in line


def test_added_tokens_are_found_in_the_text_of_a_corpus_but_never_berts_own(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, **FOREIGN["added tokens"])
    tokenizer = load_vocabulary(folder, cased=False)
    ids, _ = SentenceEncoder(tokenizer).encode(["the covid [ENT] [MASK]"])
    tokens = [tokenizer.id_to_token(number) for number in ids.tolist()]
    assert tokens == ["the", "covid", "[ENT]", "[", "m", "##a", "##s", "##k", "]"]


def test_a_tokenizer_without_berts_special_tokens_gets_them(tmp_path: Path) -> None:
    own_tokenizer().save(str(tmp_path / "tokenizer.json"))
    encoding = load_vocabulary(tmp_path / "tokenizer.json", cased=False).encode("the [MASK]", "der")
    assert encoding.tokens == ["[CLS]", "the", "[MASK]", "[SEP]", "der", "[SEP]"]


PAIR, TEMPLATE_TOKENS = "[CLS] $A [SEP] $B:1 [SEP]:1", (("[CLS]", 2), ("[SEP]", 3))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"normalizer": Sequence([Replace("a", "aaaaaaaaaa")] * 9)}, "1,000,000,000 times as long"),
        ({"normalizer": Replace(Regex("(a+)+$"), "")}, "can take for ever"),
        (
            {"post_processor": TemplateProcessing(single="$A", pair="$A $B [SEP]", special_tokens=[("[SEP]", 3)])},
            "post_processor",
        ),
        (
            {"post_processor": TemplateProcessing("[CLS]" + " $A" * 99 + " [SEP]", PAIR, list(TEMPLATE_TOKENS))},
            "post_processor",
        ),
    ],
)
def test_rules_that_are_not_berts_form_or_explode_are_refused(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    tokenizer = own_tokenizer()
    for name, value in change.items():
        setattr(tokenizer, name, value)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=told):
        load_vocabulary(tmp_path / "tokenizer.json", cased=False)
