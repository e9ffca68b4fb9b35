"""What is lost is counted in characters of the text; little is said, much is refused, at the end and in the plan."""

from __future__ import annotations

import json
import os
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import Whitespace

from lambert.api.resolution import resolve
from lambert.corpus.build import build_corpus
from lambert.corpus.encoding import SentenceEncoder
from lambert.corpus.judgement import judged
from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.corpus.vocabulary import train_vocabulary
from lambert.data.counter_rng import CounterRNG
from lambert.data.dataloader import example_source
from lambert.errors import UserError
from lambert.planning.plan import describe_plan
from lambert.training.config.arguments import RecipeArguments

DRAW = random.Random(1)
WORDS = "the old clerk opened a green garden before noon and sold the letter".split()  # noqa: SIM905
THAI = "ฉัน แมว บ้าน แม่น้ำ ครู หนังสือ กิน อ่าน เดิน ซื้อ เห็น ข้าว ปลา".split()  # noqa: SIM905


def sentence(words: list[str] = WORDS, count: int = 10, between: str = " ") -> str:
    return between.join(DRAW.choice(words) for _ in range(count))


def documents(make: Callable[[], str], count: int = 60, lines: int = 3) -> str:
    return "\n\n".join("\n".join(make() for _ in range(lines)) for _ in range(count))


def build(tmp_path: Path, text: str, **options: Any) -> Corpus:
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    return build_corpus(tmp_path / "a.txt", tmp_path / "corpus", **{"vocab_size": 400, **options})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_vocabulary(WORDS * 30, 200, cased=False)


@pytest.mark.parametrize("by_word", [True, False])
def test_characters_are_counted_as_the_tokenizer_offsets_say(tokenizer: Tokenizer, by_word: bool) -> None:
    """By hand: words of 3, 5, 4 (é, two of them decomposed) and 120 letters, the sign 中, a U+FFFD and a full stop."""
    if not by_word:
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.pre_tokenizer = Whitespace()
    encoder = SentenceEncoder(tokenizer)
    encoder.encode(["The clerk oldé 中 \ufffd.", "x" * 120, "the the"])
    counts = encoder.take_counts()
    assert counts["characters"] == 3 + 5 + 4 + 1 + 1 + 1 + 120 + 6
    assert counts["replacement_characters"] == 1
    assert counts["overlong_characters"] == 120
    assert counts["marks_dropped"] == 1
    assert counts["dropped_characters"] == 0
    assert 121 <= counts["unknown_characters"] <= 123
    assert not encoder.take_counts()


@pytest.mark.parametrize("by_word", [True, False])
def test_each_character_that_the_tokenizer_drops_is_counted_and_named(tokenizer: Tokenizer, by_word: bool) -> None:
    """The oracle is the tokenizer's normalizer; white space, marks and U+FFFD are told apart from these."""
    if not by_word:
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.pre_tokenizer = Whitespace()
    candidates = [chr(code) for code in (*range(0x3000), *range(0xD7F0, 0xD800), *range(0xDFF0 + 16, 0x11000))]
    lost = [
        one
        for one in candidates
        if not tokenizer.normalizer.normalize_str(one)
        and not one.isspace()
        and unicodedata.category(one)[0] != "M"
        and one != "\ufffd"
    ]
    assert {"\0", "\xad", "\u200b", "\u200c", "\u200d", "\ue000", "\ufeff"} <= set(lost)
    encoder = SentenceEncoder(tokenizer)
    encoder.encode([f"cl{one}erk {one} the" for one in candidates])
    counts = encoder.take_counts()
    assert {name: number for name, number in counts.items() if name.startswith("U+")} == {
        f"U+{ord(one):04X}": 2 for one in lost
    }
    assert counts["dropped_characters"] == 2 * len(lost)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("می\u200cخواهم می\u200cروم کتاب\u200cها", "U+200C"),
        ("clerk\xad the gar\xadden", "U+00AD"),
        ("a\ufeff b", "U+FEFF"),
    ],
    ids=["Persian", "soft hyphens", "BOM"],
)
def test_dropped_characters_are_told_above_a_share_and_their_remedy_works(
    tmp_path: Path, words: str, name: str
) -> None:
    text = documents(lambda: f"{sentence(words.split(' '))}.")
    corpus = build(tmp_path, text)
    (finding,) = corpus.summary.findings  # type: ignore[union-attr]
    assert f"the tokenizer drops: {name}" in finding and "Replace them in the text" in finding
    (tmp_path / "replaced").mkdir()
    replaced = build(tmp_path / "replaced", text.replace(chr(int(name[2:], 16)), " "))
    assert not replaced.summary.findings  # type: ignore[union-attr]


def test_a_little_that_is_dropped_is_counted_and_not_warned_of(tmp_path: Path) -> None:
    corpus = build(
        tmp_path, documents(lambda: f"{sentence()}.") + "".join(f" clerk{chr(code)}." for code in range(0xE000, 0xE00C))
    )
    counts = corpus.manifest["statistics"]["counts"]
    assert counts["dropped_characters"] == 12
    assert sum(name.startswith("U+") for name in counts) == 10
    assert not corpus.summary.findings  # type: ignore[union-attr]
    plan = describe_plan(
        resolve(RecipeArguments.of(model="2x32", batch_size=8, samples=80, sequence_lengths=(32,)), corpus), corpus
    )
    assert f"{100 * 12 / counts['characters']:.3g} % dropped by the tokenizer" in str(plan)


def test_text_in_private_use_characters_is_refused(tmp_path: Path) -> None:
    words = ["".join(chr(0xE000 + DRAW.randrange(40)) for _ in range(6)) for _ in range(30)]
    with pytest.raises(UserError, match=r"private-use characters that the tokenizer drops: U\+E0"):
        build(tmp_path, documents(lambda: sentence(words + WORDS)))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: sentence(THAI, 60, ""), {"cased": True}),
        (lambda: "".join(DRAW.choice("ACDEFGHIKLMNPQRSTVWY") for _ in range(200)), {}),
        (lambda: "QUJD" * 50, {"cased": True}),
    ],
    ids=["Thai", "protein", "base64"],
)
def test_text_without_spaces_is_refused_with_a_remedy_that_works(
    tmp_path: Path, make: Callable[[], str], options: dict[str, Any]
) -> None:
    text = documents(make)
    with pytest.raises(UserError, match=r"become \[UNK\].*`max_word_length`"):
        build(tmp_path, text, **options)
    corpus = build(tmp_path, text, **options, max_word_length=1_000)
    counts = corpus.manifest["statistics"]["counts"]
    assert counts["unknown_characters"] == 0
    assert counts["characters"] == sum(not character.isspace() for character in text)
    assert corpus.tokenizer().model.max_input_chars_per_word == 1_000


def test_a_little_of_it_is_said_in_characters(tmp_path: Path) -> None:
    """One word of 150 letters beside 12,000 characters of prose is 1.2 %, though hardly a token in a thousand."""
    text = documents(sentence, 80) + "\n\n" + "y" * 150
    corpus = build(tmp_path, text)
    share = 150 / sum(not character.isspace() for character in text)
    assert corpus.summary is not None
    assert any(f"{100 * share:.3g} % of the characters (150)" in finding for finding in corpus.summary.findings)


VIETNAMESE = "má mà mả mã mạ tôi tối tới đường phố nhà cửa nước người"


@pytest.mark.parametrize("words", [VIETNAMESE, " ".join(THAI), "हिन्दी में मैं नदी घर पुल चिट्ठी", "عَلِمَ عِلْمٌ كَتَبَ كُتُبٌ"])
def test_scripts_that_lose_letters_in_lower_case_are_refused(tmp_path: Path, words: str) -> None:
    text = documents(lambda: sentence(words.split()))
    with pytest.raises(UserError, match=r"accents, vowel signs or tones.*`strip_accents` no"):
        build(tmp_path, text)
    corpus = build(tmp_path, text, strip_accents="no")
    tokens = {word: tuple(corpus.tokenizer().encode(word).ids) for word in words.split()}
    assert len(set(tokens.values())) == len(tokens)
    settings = json.loads((corpus.path / "tokenizer" / "tokenizer_config.json").read_text())
    assert (settings["do_lower_case"], settings["strip_accents"]) == (True, False)
    assert not corpus.summary.findings  # type: ignore[union-attr]


def test_stripped_accents_can_be_accepted(tmp_path: Path) -> None:
    corpus = build(tmp_path, documents(lambda: sentence(VIETNAMESE.split())), strip_accents="yes")
    assert any("accents" in finding for finding in corpus.summary.findings)  # type: ignore[union-attr]


def test_a_given_vocabulary_decides_about_accents_and_takes_a_limit(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_tokenizer(tokenizer, tmp_path / "vocab")
    with pytest.raises(UserError, match="`strip_accents` with `vocab`"):
        build(tmp_path, documents(sentence), vocab=tmp_path / "vocab", vocab_size=None, strip_accents="no")
    text = documents(lambda: sentence(between=""))
    with pytest.raises(UserError, match="become .UNK..*`max_word_length`"):
        build(tmp_path, text * 3, vocab=tmp_path / "vocab", vocab_size=None, max_word_length=20)
    corpus = build(tmp_path, text, vocab=tmp_path / "vocab", vocab_size=None, max_word_length=500)
    assert corpus.manifest["statistics"]["counts"]["unknown_characters"] == 0


def test_records_without_text_are_refused_where_they_are_most(tmp_path: Path) -> None:
    lines = ['{"text": "It rained before noon. He sold it."}'] + ['{"text": null}'] * 5
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(lines * 20))
    with pytest.raises(UserError, match="100 of 120 records have no text"):
        build_corpus(file, tmp_path / "corpus", vocab_size=200)


def test_pairs_need_documents_of_several_sentences_and_plan_says_so(tmp_path: Path) -> None:
    corpus = build(tmp_path, documents(lambda: f"{sentence()}.", 60, 1))
    arguments = {"model": "2x32", "batch_size": 8, "samples": 80, "sequence_lengths": (32,)}
    plan = describe_plan(resolve(RecipeArguments.of(**arguments), corpus), corpus)
    assert "one sentence" in str(plan)
    assert "`pairs` none" in str(plan)
    silent = describe_plan(resolve(RecipeArguments.of(**arguments, pairs="none"), corpus), corpus)
    assert not silent.findings


def test_one_document_is_told(tmp_path: Path) -> None:
    corpus = build(tmp_path, "\n".join(f"{sentence()}." for _ in range(30)))
    assert any("is one document" in finding for finding in corpus.summary.findings)  # type: ignore[union-attr]


def test_a_corpus_of_before_the_counts_is_judged_by_what_it_has(small_corpus: Corpus) -> None:
    manifest = json.loads(json.dumps(small_corpus.manifest))
    for name in ("counts", "wrapped_lines"):
        del manifest["statistics"][name]
    for name in ("strip_accents", "text_format", "encoding"):
        del manifest["settings"][name]
    assert judged(manifest) == []


def test_the_counts_do_not_depend_on_partitions(tokenizer: Tokenizer) -> None:
    text = ["The clerk oldé.", "x" * 120, "中 the", "cl\u00aderk", "cl\u00aderk \ue000"]
    together, apart = SentenceEncoder(tokenizer), SentenceEncoder(tokenizer)
    together.encode(text)
    for line in text:
        apart.encode([line])
    assert together.take_counts() == apart.take_counts()


def test_a_file_whose_name_is_not_utf8_is_read_and_recorded(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    (tmp_path / name).write_text(documents(sentence))
    corpus = build_corpus(tmp_path / name, tmp_path / "corpus", vocab_size=200)
    (source,) = Corpus.open(corpus.path).manifest["sources"]
    assert Path(source["name"]).name == name
    (corpus.path / "manifest.json").read_bytes().decode("utf-8")


def test_no_pair_of_a_single_document_has_a_false_label(tmp_path: Path) -> None:
    corpus = build(tmp_path, "\n".join(f"{sentence()}." for _ in range(3)), validation_fraction=0.0)
    for seed in range(30):
        source = example_source(corpus, "train", sequence_length=64, seed=seed, phase=1)
        every = np.arange(len(source))
        spans = source.spans(every, CounterRNG.of((seed,), every))
        assert spans.is_random_next is not None
        assert not (spans.is_random_next & (spans.b_start == spans.a_stop)).any()
