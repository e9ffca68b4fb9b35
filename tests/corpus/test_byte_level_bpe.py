"""Byte-level BPE, learned or published: `transformers` gives the same ids, and nothing of a text is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE

from lambert.corpus.build import build_corpus
from lambert.corpus.byte_level_bpe import fitting_bpe_size, train_bpe
from lambert.corpus.encoding import SentenceEncoder, plain_text_tokenizer
from lambert.corpus.tokenizer_files import ids_of, load_vocabulary, save_tokenizer
from lambert.corpus.tokenizer_rules import tokenizer_differences
from lambert.corpus.vocabulary import SPECIAL, special_tokens, train_vocabulary
from lambert.data.masking import continuations
from lambert.errors import UserError
from lambert.utils.tokenizer_family import shown_tokens
from modernbert_bpe import TEXT, odd_lines, published_folder, published_tokenizer

LINES = odd_lines(1_000)


def with_merged_blanks() -> Tokenizer:
    """Learned, with entries for two spaces or tabs in a row, which no text of a corpus would have taught it."""
    description = json.loads(train_bpe(TEXT, 330).to_str())
    model = description["model"]
    for pair in (("Ġ", "Ġ"), ("ĉ", "Ġ"), ("Ġ", "ĉ"), ("ĉ", "ĉ")):
        model["vocab"]["".join(pair)] = len(model["vocab"])
        model["merges"].append(pair)
    return Tokenizer.from_str(json.dumps(description))


def learned_folder(folder: Path) -> Path:
    save_tokenizer(train_bpe(TEXT, 330), folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return folder


def older_folder(folder: Path) -> Path:
    """As `transformers` 4 wrote it: all added tokens in the settings, special tokens with their flags."""
    folder.mkdir()
    tokenizer = published_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {number: token.__getstate__() for number, token in tokenizer.get_added_tokens_decoder().items()}
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    by_content = {token["content"]: token for token in added.values()}
    files = {
        "tokenizer_config.json": {
            "added_tokens_decoder": added, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8_192,
            "clean_up_tokenization_spaces": True, "model_input_names": ["input_ids", "attention_mask"], **names,
        },
        "special_tokens_map.json": {name: by_content[token] for name, token in names.items()},
        "config.json": {"model_type": "modernbert"},
    }  # fmt: skip
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("make", [learned_folder, published_folder, older_folder])
def test_ids_are_those_of_transformers_and_decode_to_the_text(tmp_path: Path, make: Any) -> None:
    transformers = pytest.importorskip("transformers")
    ours = load_vocabulary(make(tmp_path / "made"), cased=False)
    save_tokenizer(ours, tmp_path / "saved")
    for folder in ("made", "saved"):
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / folder)
        assert theirs(LINES)["input_ids"] == ids_of(ours, LINES)
        assert (len(theirs), theirs.mask_token) == (ours.get_vocab_size(), "[MASK]")
    assert json.loads((tmp_path / "saved/tokenizer_config.json").read_text())["tokenizer_class"] == (
        "PreTrainedTokenizerFast"
    )
    plain, unknown = plain_text_tokenizer(ours), special_tokens(ours).unknown
    for line in LINES:
        ids = plain.encode(line, add_special_tokens=False).ids
        assert plain.decode(ids, skip_special_tokens=False) == unicodedata.normalize("NFC", line)
        assert unknown not in ids


def test_learning_is_the_same_in_every_process_and_on_any_number_of_threads() -> None:
    program = (
        "import random; from lambert.corpus.byte_level_bpe import train_bpe; draw = random.Random(1);"
        "words = [''.join(draw.choices('abcdefgh', k=draw.randint(2, 7))) for _ in range(3000)];"
        "print(train_bpe([' '.join(words[n::9]) for n in range(9)], 500).to_str())"
    )
    threads = ({}, {"RAYON_NUM_THREADS": "3"}, {"TOKENIZERS_PARALLELISM": "false"})
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **some},
            capture_output=True, text=True, check=True,
        ).stdout
        for some in threads
    ]  # fmt: skip
    assert len(set(runs)) == 1
    entries = json.loads(runs[0])["model"]["vocab"]
    assert [entries[token] for token in SPECIAL] == [0, 1, 2, 3, 4] and len(entries) == 500


def test_giant_words_are_left_out_of_the_learning_and_a_script_of_many_characters_gets_room() -> None:
    giant = "x" * 3_000_000
    assert train_bpe([*TEXT, giant], 330).get_vocab() == train_bpe(TEXT, 330).get_vocab()
    assert "river" in train_bpe(["garden/river?" * 20], 400).get_vocab(), "a run that the rules part is no giant"
    line = "".join(chr(0x4E00 + number) for number in range(3_000))
    assert fitting_bpe_size([line], 3_000) == 2 * (261 + 3_000)
    assert (fitting_bpe_size(["a"], 30_000_000), fitting_bpe_size(["a"], 10**12)) == (8_192, 50_368)


DOCUMENTS = [
    "He came. She saw? They left (at 3.14 a.m.).\nA new  paragraph\tbegins. It ends.",
    "東京で日本銀行が金を貸した。中国很好。很好！",
    "cafe\u0301 🙂 [MASK] x\u200by",
]


@pytest.mark.parametrize("options", [{}, {"one_sentence_per_line": True}])
def test_the_tokens_of_a_document_are_its_text(tmp_path: Path, options: dict[str, Any]) -> None:
    """With the spaces between its sentences, which are those of the document; NFC is all that changes."""
    (tmp_path / "text.txt").write_text("\n\n".join(DOCUMENTS), encoding="utf-8")
    corpus = build_corpus(
        tmp_path / "text.txt", tmp_path / "out", tokenizer="bpe", vocab_size=300, validation_fraction=0, **options
    )
    tokenizer, split = corpus.tokenizer(), corpus.split("train")
    edges = split.sentence_offsets[split.document_offsets].tolist()
    found = [
        tokenizer.decode(split.tokens(start, stop).tolist(), skip_special_tokens=False)
        for start, stop in pairwise(edges)
    ]
    assert found == [unicodedata.normalize("NFC", " ".join(document.split())) for document in DOCUMENTS]
    assert split.token_counts()[special_tokens(tokenizer).unknown] == 0
    assert corpus.manifest["cased"] and corpus.summary is not None
    assert not any(corpus.summary.counts[name] for name in ("unknown_characters", "dropped_characters"))
    if not options:
        assert split.sentence_count > 3 + 4, "documents are still sentences"
    again = build_corpus(tmp_path / "text.txt", tmp_path / "again", vocab=corpus.path, validation_fraction=0, **options)
    assert again.fingerprint == corpus.fingerprint


PIECES = st.sampled_from((*"aB7.,'\"(é\u0301\t\u00a0\u3000\n\x00\x1f🙂中 ", "   ", " \t", "\t\t"))


@given(st.lists(st.lists(PIECES, max_size=12).map("".join), min_size=1, max_size=6))
def test_any_text_is_encoded_by_words_as_by_sentences(lines: list[str]) -> None:
    """Words are encoded once, each with the space before it."""
    tokenizer = with_merged_blanks()
    encoder, plain = SentenceEncoder(tokenizer), plain_text_tokenizer(tokenizer)
    for some in (lines, [" ".join(line.split()) for line in lines], [f" {line.strip()}" for line in lines]):
        ids, lengths = encoder.encode(some)
        expected = [plain.encode(line, add_special_tokens=False).ids for line in some]
        assert (ids.tolist(), lengths.tolist()) == ([one for ids in expected for one in ids], list(map(len, expected)))
    assert encoder.take_counts()["unknown_characters"] == 0


def test_words_begin_at_spaces_signs_and_ideographs() -> None:
    text = " The (fox) isn't 3.14 miles,中国で दी é🙂"
    words = [" The", " (fox", ")", " isn", "'t", " 3", ".14", " miles", ",", "中", "国で", " दी", " é", "🙂"]
    merged = train_bpe([text.replace("中国で", "")] * 3, 400)
    assert words_of(merged, text) == words
    bytes_alone = train_bpe(["a"], 261)  # in which no entry is a space with the sign after it
    assert words_of(bytes_alone, text) == [words[0], " ", words[1].strip(), *words[2:]]


def words_of(tokenizer: Tokenizer, text: str) -> list[str]:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    goes_on = continuations(tokenizer)[ids]
    starts = [index for index in range(len(ids)) if not goes_on[index]]
    return [tokenizer.decode(ids[start:stop]) for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True)]


def test_tokens_are_shown_with_their_spaces_and_parts_of_characters_as_bytes() -> None:
    tokenizer = published_tokenizer()
    names = ("Ġthe", "é", "ä", "[MASK]", "  ", "Ċ", "[unused1]")
    entries = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    ids = [number for name in names if (number := tokenizer.token_to_id(name)) is not None]
    assert len(ids) == len(names) and "  " in entries
    assert shown_tokens(tokenizer, ids) == [" the", "\\xe9", "\\xe4", "[MASK]", "  ", "\n", "[unused1]"]


def changed(tokenizer: Tokenizer | None = None, **parts: Any) -> Tokenizer:
    tokenizer = tokenizer or published_tokenizer()
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def described(**settings: Any) -> Tokenizer:
    """With these settings of the model and no merges, which the library would not find with a prefix."""
    description = json.loads(published_tokenizer().to_str())
    description["model"] |= {"merges": [], **settings}
    return Tokenizer.from_str(json.dumps(description))


def roberta() -> Tokenizer:
    tokenizer = train_bpe(TEXT, 300)
    plain = Tokenizer(BPE({entry: number - 5 for entry, number in tokenizer.get_vocab().items() if number > 4}, []))
    plain.pre_tokenizer = tokenizer.pre_tokenizer
    plain.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return plain


def without_bytes() -> Tokenizer:
    tokenizer = Tokenizer(BPE({entry: number for number, entry in enumerate((*SPECIAL, "a", "b"))}, []))
    return changed(tokenizer, pre_tokenizer=pre_tokenizers.ByteLevel())


BACKTRACKING = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex("(a+)+$"), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
)
REFUSED = {
    "dropout of the BPE model is 0.5": lambda: published_tokenizer(dropout=0.5),
    "continuing_subword_prefix of the BPE model is '##'": lambda: described(continuing_subword_prefix="##"),
    "end_of_word_suffix of the BPE model is '</w>'": lambda: described(end_of_word_suffix="</w>"),
    "has no entry for 241 bytes": without_bytes,
    r"lacks \[PAD\].*; its special tokens are <s>, <pad>, </s>, <unk>, <mask>": roberta,
    "pre_tokenizer is not ByteLevel": lambda: changed(pre_tokenizer=pre_tokenizers.Metaspace()),
    "can take for ever": lambda: changed(pre_tokenizer=BACKTRACKING),
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_cannot_be_applied_is_refused_by_name(tmp_path: Path, told: str) -> None:
    tokenizer = REFUSED[told]()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=told):
        load_vocabulary(tmp_path / "tokenizer.json", cased=False)


SETTINGS = {
    "tokenizer_class": "RobertaTokenizer", "mask_token": "<mask>", "split_special_tokens": True,
    "add_prefix_space": True,
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_say_otherwise_are_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = older_folder(tmp_path / "folder")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: SETTINGS[name]}))
    with pytest.raises(UserError, match=f"{name} is {SETTINGS[name]!r}"):
        load_vocabulary(folder, cased=False)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tokenizer": "answerdotai/ModernBERT-base"}, "give a published tokenizer as `vocab`"),
        ({"tokenizer": "bpe", "max_word_length": 50}, "`max_word_length` with byte-level BPE"),
        ({"tokenizer": "BPE", "strip_accents": "yes"}, "`strip_accents` with byte-level BPE"),
        ({"tokenizer": "bpe", "vocab_size": 260}, "Choose one from 261"),
        (
            {"vocab": "bpe", "tokenizer": "wordpiece"},
            "`tokenizer` is wordpiece, but the vocabulary of .* is byte-level",
        ),
        ({"vocab": "bpe", "max_word_length": 50}, "`max_word_length` with byte-level BPE"),
        ({"vocab": "words", "tokenizer": "bpe"}, "is bpe, but the vocabulary of .* is WordPiece"),
    ],
)
def test_arguments_that_contradict_each_other(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    save_tokenizer(train_bpe(TEXT, 300), tmp_path / "bpe")
    save_tokenizer(train_vocabulary(TEXT, 200, cased=True), tmp_path / "words")
    (tmp_path / "text.txt").write_text("\n\n".join(TEXT), encoding="utf-8")
    options = {name: tmp_path / value if name == "vocab" else value for name, value in options.items()}
    with pytest.raises(UserError, match=told):
        build_corpus(tmp_path / "text.txt", tmp_path / "out", **options)


def test_tokenizers_of_two_families_or_of_other_merges_differ() -> None:
    first = published_tokenizer()
    description = json.loads(first.to_str())
    description["model"]["merges"][:2] = reversed(description["model"]["merges"][:2])
    swapped = Tokenizer.from_str(json.dumps(description))
    assert tokenizer_differences(first, published_tokenizer()) == []
    assert [one.split()[0] for one in tokenizer_differences(first, swapped)] == ["merges"]
    words = train_vocabulary(TEXT, 200, cased=True)
    assert tokenizer_differences(words, first, may_grow=True)[0] == "model is 'WordPiece', not 'byte-level BPE'"
    grown = published_tokenizer()
    grown.add_tokens([AddedToken("covid")])
    assert tokenizer_differences(first, grown, may_grow=True) == []
