from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE

from lambert.corpus.encoding import SentenceEncoder
from lambert.corpus.tokenizer_files import load_vocabulary, save_tokenizer
from lambert.corpus.vocabulary import SPECIAL, fitting_vocab_size, is_cased, special_tokens, train_vocabulary
from lambert.errors import UserError

ENTRIES = [
    *SPECIAL,
    *"abcdefghijklmnopqrstuvwxyz0123456789.,!?。，[]-'\"()é中国好",
    "the",
    "mask",
    "##ing",
    "caf",
]
ENTRIES += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789é"]
LINES = [
    "The café's naïve façade, e\u0301tude.",
    "中国很好。国中，好！",
    "mixed 中文text words",
    "control\x00\x07\u200bcharacters\tand\u00a0spaces\u3000here\ufffd",
    "[MASK] the [CLS]mask[SEP] [mask] [ MASK ]",
    "İstanbul ΣΑΣ ǅ ﬁ ½ ①",
    "x" * 101 + " " + "y" * 100,
    'don\'t well-known 3.14 (a) "b"',
    "🙂 emoji 👨‍👩‍👧 and ᚠ runes",
    "",
    " ",
]
CASED_ENTRIES = [
    *ENTRIES,
    *"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    *(f"##{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
]


def vocabulary_file(folder: Path, entries: list[str]) -> Path:
    file = folder / "vocab.txt"
    file.write_bytes("".join(f"{entry}\n" for entry in entries).encode())
    return file


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="the tokenizer cannot be written to .*file"):
        save_tokenizer(load_vocabulary(vocabulary_file(tmp_path, ENTRIES), cased=False), tmp_path / "file")


@pytest.mark.parametrize(("cased", "entries"), [(False, ENTRIES), (True, CASED_ENTRIES)])
def test_ids_are_those_of_transformers(tmp_path: Path, cased: bool, entries: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    ours = load_vocabulary(vocabulary_file(tmp_path, entries), cased=cased)
    save_tokenizer(ours, tmp_path / "saved")
    list_only = tmp_path / "list_only"
    list_only.mkdir()
    (list_only / "vocab.txt").write_bytes((tmp_path / "vocab.txt").read_bytes())
    (list_only / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": not cased}))
    with_model = tmp_path / "with_model"
    save_tokenizer(ours, with_model)
    (with_model / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(entries)}))
    theirs = [
        transformers.BertTokenizerFast.from_pretrained(list_only),
        transformers.AutoTokenizer.from_pretrained(tmp_path / "saved"),
        transformers.AutoTokenizer.from_pretrained(with_model),
    ]
    for their in theirs:
        for line in LINES:
            assert ours.encode(line).ids == their(line)["input_ids"], line
            pair, their_pair = ours.encode(line, "the mask"), their(line, "the mask")
            assert (pair.ids, pair.type_ids) == (their_pair["input_ids"], their_pair["token_type_ids"])
        assert their.mask_token_id == special_tokens(ours).mask
        assert their.pad_token_id == special_tokens(ours).pad
        assert len(their) == len(entries)
        assert their.model_max_length == 512 or their is theirs[0]


def test_saved_files_are_read_back_the_same(tmp_path: Path) -> None:
    ours = load_vocabulary(vocabulary_file(tmp_path, CASED_ENTRIES), cased=True)
    save_tokenizer(ours, tmp_path / "saved")
    assert (tmp_path / "saved/vocab.txt").read_bytes() == (tmp_path / "vocab.txt").read_bytes()
    for path in (tmp_path / "saved", tmp_path / "saved/tokenizer.json"):
        again = load_vocabulary(path, cased=False)  # what the file says of its case wins
        assert is_cased(again)
        assert [again.encode(line).ids for line in LINES] == [ours.encode(line).ids for line in LINES]


def encoded(encoder: SentenceEncoder, lines: list[str]) -> list[list[int]]:
    ids, lengths = encoder.encode(lines)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] if lines else []


def test_words_are_encoded_as_whole_sentences_are(tmp_path: Path) -> None:
    tokenizer = load_vocabulary(vocabulary_file(tmp_path, ENTRIES), cased=False)
    lines = [" ".join(line.split()) for line in LINES]
    expected = []
    tokenizer.encode_special_tokens = True
    for line in lines:
        expected.append(tokenizer.encode(line, add_special_tokens=False).ids)
    tokenizer.encode_special_tokens = False
    encoder = SentenceEncoder(tokenizer)
    assert encoded(encoder, lines) == expected
    assert encoded(encoder, lines[::-1]) == expected[::-1]  # now remembered
    special = set(vars(special_tokens(tokenizer)).values()) - {special_tokens(tokenizer).unknown}
    assert not special & {number for ids in expected for number in ids}


@pytest.fixture(scope="module")
def uncased(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    tokenizer = load_vocabulary(vocabulary_file(tmp_path_factory.mktemp("uncased"), ENTRIES), cased=False)
    tokenizer.encode_special_tokens = True
    return tokenizer


# Where the rule "a word never looks past a space or a sign of ASCII punctuation" could break.
TROUBLE = [
    "a\u00a0b",
    "a\u3000b\u2003c",
    "a\u2028b\u2029c",
    "a\u0085b\x1cc\x1dd\x1ee\x1ff",
    "a\u200bb\u200cc\ufeffd",
    "a\tb\nc\rd\x0be\x0cf",
    "[MASK]a[CLS] [SEP]",
    "a[MASK]",
    "=\u0338 a.\u0301b c\u0301.",
    "\u0301\u0301 a",
    "I\u0307stanbul \u0130",
    "\u03a3\u03b1\u03a3 \u03a3.",
    "a  b   c ",
    " a",
    "",
    " ",
    "  ",
    "\x00\x01",
    "a\x00.b",
    "\u4e2d\u6587a\u4e2d.",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467!",
    "\u05d0\u05d1.\u200f\u05d2",
    "x" * 101,
    "x" * 90 + "." + "y" * 120,
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "a\u00adb-c",
    "\uff0c\u3002\uff01a",
    "\u212a\u017f",
    "\u1e9e\u00df",
]


@pytest.fixture(scope="module", params=[False, True], ids=["uncased", "cased"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    entries = CASED_ENTRIES if request.param else ENTRIES
    tokenizer = load_vocabulary(vocabulary_file(tmp_path_factory.mktemp("whole"), entries), cased=request.param)
    tokenizer.encode_special_tokens = True
    return tokenizer


def by_sentences(tokenizer: Tokenizer, lines: list[str]) -> list[list[int]]:
    return [tokenizer.encode(line, add_special_tokens=False).ids for line in lines]


def test_words_are_encoded_as_in_their_sentence_wherever_that_could_break(whole: Tokenizer) -> None:
    lines = [*TROUBLE, *("".join(pair) for pair in pairwise(TROUBLE))]
    assert encoded(SentenceEncoder(whole), lines) == by_sentences(whole, lines)
    for line in lines:
        assert encoded(SentenceEncoder(whole), [line]) == by_sentences(whole, [line]), repr(line)


@given(st.lists(st.text(max_size=30), max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_text_is_encoded_by_words_as_by_sentences(uncased: Tokenizer, lines: list[str]) -> None:
    assert encoded(SentenceEncoder(uncased), lines) == by_sentences(uncased, lines)


@given(
    st.lists(
        st.text(alphabet=st.sampled_from("aA.[]-\u0301\u0338 \u00a0\u200b\u0130\u4e2d\x00\x1c\t\u2028'"), max_size=20),
        max_size=4,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_mixture_of_awkward_signs(uncased: Tokenizer, lines: list[str]) -> None:
    assert encoded(SentenceEncoder(uncased), lines) == by_sentences(uncased, lines)


def test_added_words_that_are_not_special_are_found_in_whole_sentences(uncased: Tokenizer) -> None:
    tokenizer = Tokenizer.from_str(uncased.to_str())
    tokenizer.encode_special_tokens = True
    tokenizer.add_tokens(["the fox", "c++"])
    lines = ["the fox and the dog", "c++ is the fox"]
    assert encoded(SentenceEncoder(tokenizer), lines) == by_sentences(tokenizer, lines)
    assert tokenizer.token_to_id("the fox") in encoded(SentenceEncoder(tokenizer), lines)[0]


def test_the_memory_of_words_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lambert.corpus.encoding._CACHED_WORDS", 10)
    monkeypatch.setattr("lambert.corpus.encoding._CACHED_BYTES", 200)
    tokenizer = load_vocabulary(vocabulary_file(tmp_path, ENTRIES), cased=False)
    tokenizer.encode_special_tokens = True
    encoder = SentenceEncoder(tokenizer)
    for start in range(50):
        line = " ".join(str(number) for number in range(start, start + 4)) + " " + "z" * 40
        assert encoded(encoder, [line]) == by_sentences(tokenizer, [line])
        assert len(encoder._words) <= 10


TRAINING_TEXT = [
    f"The {adjective} {noun} {verb}s the café, number {number}."
    for number in range(7)
    for adjective in ("quick", "lazy", "quiet")
    for noun in ("fox", "dog", "quiver")
    for verb in ("sing", "call", "sail")
]


def test_a_learned_vocabulary_knows_its_text() -> None:
    tokenizer = train_vocabulary(TRAINING_TEXT, 150, cased=False)
    entries = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    assert entries[:5] == list(SPECIAL)
    assert 100 < len(entries) <= 150
    assert {"the", "quick", "cafe"} <= set(entries)
    words = [entry for entry in entries[5:] if len(entry) > 1 and not entry.startswith("##")]
    assert words == sorted(words)
    # Letters it has seen, words it has not.
    assert special_tokens(tokenizer).unknown not in tokenizer.encode("gnat qis aun").ids
    assert tokenizer.encode("the fox").tokens == ["[CLS]", "the", "fox", "[SEP]"]
    assert tokenizer.decode(tokenizer.encode("the singing").ids) == "the singing"
    assert not is_cased(tokenizer)
    cased = train_vocabulary(TRAINING_TEXT, 150, cased=True)
    assert is_cased(cased)
    assert "The" in cased.get_vocab()


def test_learning_is_the_same_in_every_process() -> None:
    program = (
        "import random; from lambert.corpus.vocabulary import train_vocabulary; draw = random.Random(1);"
        "words = [''.join(draw.choices('abcdefgh', k=draw.randint(2, 7))) for _ in range(3000)];"
        "print(train_vocabulary([' '.join(words)], 400, cased=False).to_str())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    assert len({run.stdout for run in runs}) == 1


def test_chinese_characters_are_words_of_their_own() -> None:
    tokenizer = train_vocabulary(["中国很好。很好！国中人很多，多多。" * 30], 120, cased=False)
    assert "##国" not in tokenizer.get_vocab()
    assert tokenizer.encode("中国人。", add_special_tokens=False).tokens == ["中", "国", "人", "。"]


@pytest.mark.parametrize(
    ("entries", "cased", "message"),
    [
        ([entry for entry in ENTRIES if entry != "[MASK]"], False, r"lacks \[MASK\]"),
        ([*ENTRIES, "[CLS]"], False, r"line \d+: '\[CLS\]' is already on line 3"),
        ([*ENTRIES, "the"], False, "'the' is already on line"),
        (CASED_ENTRIES, False, "Add `cased=True`"),
        (ENTRIES, True, "Leave out `cased=True`"),
        ([], False, "lacks"),
    ],
)
def test_lists_that_are_no_vocabulary(tmp_path: Path, entries: list[str], cased: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_vocabulary(vocabulary_file(tmp_path, entries), cased=cased)


def test_files_that_are_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.json").write_text("{}")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    bpe = Tokenizer(BPE({entry: number for number, entry in enumerate(SPECIAL)}, []))
    bpe.save(str(tmp_path / "bpe.json"))
    for name, message in [
        ("missing.txt", "does not exist"),
        ("empty", "has no vocabulary"),
        ("wrong.json", "cannot be read"),
        ("latin.txt", "cannot be read"),
        ("bpe.json", "BPE"),
    ]:
        with pytest.raises(UserError, match=message):
            load_vocabulary(tmp_path / name, cased=False)


def test_truncation_and_padding_in_a_tokenizer_file_are_taken_off(tmp_path: Path) -> None:
    tokenizer = load_vocabulary(vocabulary_file(tmp_path, ENTRIES), cased=False)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_vocabulary(tmp_path / "tokenizer.json", cased=False)
    assert len(loaded.encode("the the the the the the the the the the").ids) == 12
    with pytest.raises(UserError, match="small letters only"):
        load_vocabulary(tmp_path / "tokenizer.json", cased=True)


def test_too_small_a_vocabulary_and_no_text() -> None:
    many_letters = [" ".join(chr(first + number) for first in (0x61, 0x430) for number in range(26))]
    with pytest.raises(UserError, match="characters of this text need"):
        train_vocabulary(many_letters, 100, cased=False)
    for size in (-1, 0, 20, 10**11):
        with pytest.raises(UserError, match="Choose one from 100"):
            train_vocabulary(TRAINING_TEXT, size, cased=False)
    with pytest.raises(UserError, match="no text"):
        train_vocabulary([" "], 1000, cased=False)


def test_giant_words_are_left_out_of_the_learning() -> None:
    giant = "x" * 3_000_000
    tokenizer = train_vocabulary([*TRAINING_TEXT, giant, f"before {giant} after"], 300, cased=False)
    assert tokenizer.get_vocab() == train_vocabulary([*TRAINING_TEXT, "before  after"], 300, cased=False).get_vocab()


LONG_RUNS = {
    "JSON": ('{"state":"timeout","cause":"retry","host":"worker"}' * 4, ["state", "timeout", "{", ":"]),
    "comma-separated": ("alpha,beta,12,closed," * 9, ["alpha", "closed", "12"]),
    "a URL": ("https://example.org/" + "garden/letter?river=quiet&" * 6, ["garden", "river", "&"]),
    "full stops of other scripts": ("गाँव।नदी।घर।" * 20, ["घर", "।"]),
    "ideographs": ("安静小河花园信件" * 20, ["安", "河"]),
    "general punctuation": ("bridge—supper…" * 12, ["bridge", "supper", "…"]),
}


@pytest.mark.parametrize("name", LONG_RUNS)
def test_a_word_is_the_same_for_the_learner_and_the_tokenizer(name: str) -> None:
    """Runs of over 100 characters without a space, which BERT parts at punctuation and ideographs: nothing is lost."""
    line, entries = LONG_RUNS[name]
    tokenizer = train_vocabulary([line] * 30, 300, cased=True)
    encoded = tokenizer.encode(line, add_special_tokens=False)
    assert "[UNK]" not in encoded.tokens
    assert set(entries) <= set(encoded.tokens)


@pytest.mark.parametrize(
    ("characters", "size"), [(0, 1_024), (1_000_000, 2_048), (30_000_000, 8_192), (10**9, 30_522), (10**12, 30_522)]
)
def test_a_vocabulary_fits_the_text(characters: int, size: int) -> None:
    """Four times the text gets twice the entries: 1.6 · √30,000,000 = 8,764, next to 2^13; never more than BERT."""
    assert fitting_vocab_size(["some text"], characters, cased=False) == size


def test_a_script_of_many_characters_gets_room_for_them() -> None:
    """3,000 ideographs stand alone: 2 · (5 special + 3,000)."""
    line = "".join(chr(0x4E00 + number) for number in range(3_000))
    size = fitting_vocab_size([line], 3_000, cased=False)
    assert size >= 2 * 3_005
    assert train_vocabulary([line], size, cased=False).encode(line).tokens[1:-1] == list(line)
