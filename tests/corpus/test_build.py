from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lambert.corpus import build, partitions
from lambert.corpus.build import build_corpus
from lambert.corpus.shard import Shard, TokenArray
from lambert.corpus.sources import Document, DocumentSource, ReadOptions
from lambert.corpus.store import Corpus
from lambert.corpus.vocabulary import SPECIAL, special_tokens
from lambert.errors import UserError

ENTRIES = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz0123456789.,!?。[]", "the", "story", "of", "mask"]
ENTRIES += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    file = tmp_path / "vocab.txt"
    file.write_text("".join(f"{entry}\n" for entry in ENTRIES), encoding="utf-8")
    return file


def text_file(folder: Path, documents: int, name: str = "text.txt") -> Path:
    file = folder / name
    stories = [f"The story of number {number}.\nIt ends here. The end, {number * 7}!" for number in range(documents)]
    file.write_text("\n\n".join(stories) + "\n", encoding="utf-8")
    return file


def texts_of(corpus: Corpus, name: str) -> list[list[str]]:
    split, tokenizer = corpus.split(name), corpus.tokenizer()
    bounds = split.sentence_offsets
    sentences = [tokenizer.decode(split.tokens(a, b).tolist()) for a, b in pairwise(bounds)]
    return [sentences[a:b] for a, b in pairwise(split.document_offsets)]


def test_from_text_to_store(tmp_path: Path, vocabulary: Path) -> None:
    summary = build_corpus(
        [text_file(tmp_path, 300)], tmp_path / "out", vocab=vocabulary, validation_fraction=0.1
    ).summary
    assert summary is not None
    corpus = Corpus.open(tmp_path / "out")
    corpus.verify()
    train, held_out = texts_of(corpus, "train"), texts_of(corpus, "held_out")
    expected = [[f"the story of number {number}.", "it ends here.", f"the end, {number * 7}!"] for number in range(300)]
    assert sorted(train + held_out) == sorted(expected)
    assert 15 <= len(held_out) <= 45
    assert (summary.total.documents, summary.total.sentences, summary.total.words) == (300, 900, 300 * 11)
    assert summary.splits["train"].tokens == corpus.split("train").token_count
    assert summary.total.tokens == corpus.split("train").token_count + corpus.split("held_out").token_count
    assert summary.bytes_read == (tmp_path / "text.txt").stat().st_size
    assert summary.counts["unknown_characters"] == 0
    assert summary.fingerprint == corpus.fingerprint
    assert special_tokens(corpus.tokenizer()).classify not in corpus.split("train").tokens(0, 1000)
    assert json.loads(json.dumps(summary.as_dict()))["tokens"] == summary.total.tokens
    assert [entry.name for entry in tmp_path.iterdir() if "partial" in entry.name] == []


def test_the_store_is_the_same_byte_for_byte_in_another_process(tmp_path: Path) -> None:
    file = text_file(tmp_path, 200)
    program = (
        "import sys; from pathlib import Path; from lambert.corpus.build import build_corpus;"
        "build_corpus([Path(sys.argv[1])], Path(sys.argv[2]), vocab_size=100)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "5", "RAYON_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", program, str(file), str(tmp_path / "a")], env=environment, check=True)
    build_corpus([file], tmp_path / "b", vocab_size=100)
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(names) >= 6
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_batches_and_shards_change_no_token(tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = text_file(tmp_path, 100)
    build_corpus([file], tmp_path / "one", vocab=vocabulary)
    monkeypatch.setattr(partitions, "BATCH_CHARACTERS", 50)
    monkeypatch.setattr("lambert.corpus.encoding._CACHED_WORDS", 5)
    build_corpus([file], tmp_path / "two", vocab=vocabulary)
    assert Corpus.open(tmp_path / "one").fingerprint == Corpus.open(tmp_path / "two").fingerprint


def test_a_document_is_held_out_for_its_text_alone(tmp_path: Path, vocabulary: Path) -> None:
    documents = [Document("a", [f"The story of {number}."]) for number in range(200)]

    def held_out(name: str, given: list[Document]) -> list[list[str]]:
        build_corpus(lambda: given, tmp_path / name, vocab=vocabulary, validation_fraction=0.2)
        return sorted(texts_of(Corpus.open(tmp_path / name), "held_out"))

    everything = held_out("all", documents)
    assert 20 <= len(everything) <= 60
    assert held_out("reversed", documents[::-1]) == everything
    first = {f"the story of {number}." for number in range(100)}
    assert held_out("half", documents[:100]) == [document for document in everything if document[0] in first]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_small_corpora_hold_out_one_document_where_they_have_two(tmp_path: Path, vocabulary: Path, count: int) -> None:
    documents = [Document("a", [f"The story of {number}."]) for number in range(count)]
    held: set[str] = set()
    for name, given in (("one", documents), ("two", documents[::-1])):
        summary = build_corpus(
            lambda given=given: given, tmp_path / name, vocab=vocabulary, validation_fraction=1e-9
        ).summary
        assert summary is not None
        assert summary.splits["held_out"].documents == (count > 1)
        assert summary.splits["train"].documents == max(1, count - 1)
        assert summary.splits["held_out"].documents == (count > 1)
        held.update(document[0] for document in texts_of(Corpus.open(tmp_path / name), "held_out"))
    assert len(held) == (count > 1)  # the same one whatever the order
    summary = build_corpus(lambda: documents, tmp_path / "none", vocab=vocabulary, validation_fraction=0).summary
    assert summary is not None
    assert not summary.splits["held_out"].documents
    assert summary.splits["train"].documents == count


def test_special_tokens_in_the_text_stay_text(tmp_path: Path, vocabulary: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("The [MASK] of [CLS]\n", encoding="utf-8")
    build_corpus([file], tmp_path / "out", vocab=vocabulary)
    ids = Corpus.open(tmp_path / "out").split("train")
    tokenizer = Corpus.open(tmp_path / "out").tokenizer()
    tokens = [tokenizer.id_to_token(number) for number in ids.tokens(0, ids.token_count).tolist()]
    assert tokens == ["the", "[", "mask", "]", "of", "[", "c", "##l", "##s", "]"]


def test_text_that_is_nothing_but_marks_is_left_out(tmp_path: Path, vocabulary: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("The story.\n\n\u200d\u200e\n\n\x01\x02\nof.\n", encoding="utf-8")
    summary = build_corpus([file], tmp_path / "out", vocab=vocabulary, validation_fraction=0).summary
    assert summary is not None
    assert (summary.total.documents, summary.total.sentences) == (2, 2)


def test_counts_of_what_was_mended(tmp_path: Path, vocabulary: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"The story \xff\xfe of.\n\n" + b"the of " * 200_000 + b"\n")
    summary = build_corpus([tmp_path / "bad.txt"], tmp_path / "out", vocab=vocabulary).summary
    assert summary is not None
    assert summary.replaced_bytes == {str(tmp_path / "bad.txt"): 2}
    assert summary.cut_lines == 1
    assert Corpus.open(tmp_path / "out").manifest["statistics"]["cut_lines"] == 1


def test_progress_reaches_the_end(tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "BATCH_CHARACTERS", 2_000)
    file = text_file(tmp_path, 300)
    seen: list[build.BuildProgress] = []
    build_corpus([file], tmp_path / "out", vocab_size=100, progress=seen.append)
    assert [entry.stage for entry in seen] == sorted((entry.stage for entry in seen), reverse=True)
    assert {entry.stage for entry in seen} == {"vocabulary", "tokens"}
    tokens = [entry for entry in seen if entry.stage == "tokens"]
    assert [entry.documents for entry in tokens] == sorted(entry.documents for entry in tokens)
    assert len(tokens) > 5
    assert tokens[-1].documents == 300
    assert tokens[-1].done_bytes == tokens[-1].total_bytes == file.stat().st_size


def test_the_vocabulary_sample_is_bounded_and_even(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "VOCABULARY_SAMPLE_CHARACTERS", 2_000)
    documents = [Document("a", [f"Story number {number:05}."]) for number in range(3_000)]
    lines = {}
    for name, given in (("forward", documents), ("backward", documents[::-1])):
        source = DocumentSource(lambda given=given: given, ReadOptions())
        lines[name], characters = build._vocabulary_sample(source, build._Reporter(None, source, 0.0))
        assert characters == 3_000 * len("Story number 00000.")
    assert sorted(lines["forward"]) == sorted(lines["backward"])
    assert 700 < sum(map(len, lines["forward"])) <= 2_000
    numbers = sorted(int(line[13:18]) for line in lines["forward"])
    assert numbers[0] < 300
    assert numbers[-1] > 2_700


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("The story.", {"validation_fraction": 1.0}, "`validation_fraction` is 1.0"),
        ("The story.", {"validation_fraction": -0.1}, "`validation_fraction` is -0.1"),
        ("The story.", {"validation_fraction": 0.9999999}, "all 1 documents are held out"),
        (" \n\n \n", {}, "no words in it"),
        ("\u200d\n", {}, "no words in it"),
        ("Добрый день. Мама мыла раму.", {}, "of the characters .* are in words that become .UNK."),
    ],
)
def test_wrong_input_leaves_nothing_behind(
    tmp_path: Path, vocabulary: Path, content: str, options: dict[str, float], message: str
) -> None:
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        build_corpus([tmp_path / "a.txt"], tmp_path / "out", vocab=vocabulary, **options)
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_overwritten(tmp_path: Path, vocabulary: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out exists already"):
        build_corpus([text_file(tmp_path, 3)], tmp_path / "out", vocab=vocabulary)
    with pytest.raises(UserError, match="cannot be written"):
        build_corpus([tmp_path / "text.txt"], tmp_path / "text.txt" / "out", vocab=vocabulary)


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, vocabulary: Path) -> None:
    def documents() -> object:
        yield Document("a", ["The story."])
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        build_corpus(documents, tmp_path / "out", vocab=vocabulary)  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == before


def test_sources_of_any_kind_give_the_corpus_opened(tmp_path: Path, vocabulary: Path) -> None:
    file = text_file(tmp_path, 20)
    one = build_corpus(str(file), str(tmp_path / "one"), vocab=str(vocabulary))
    several = build_corpus([str(file), file], tmp_path / "several", vocab=one.path)
    assert isinstance(one, Corpus) and one.fingerprint == several.fingerprint
    assert one.summary is not None and one.summary.total.documents == 20
    assert Corpus.open(one.path).summary is None
    with pytest.raises(UserError, match="does not exist"):
        build_corpus(["missing.txt"], tmp_path / "none")


def test_token_counts_are_read_from_the_manifest_and_from_the_text_where_that_is_wrong(
    small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that starts reads no token for them; the text decides where the manifest has none, as an older one."""
    read: list[int] = []
    real = Shard.read_tokens

    def counted(self: Shard, start: int, stop: int) -> TokenArray:
        read.append(stop - start)
        return real(self, start, stop)

    monkeypatch.setattr(Shard, "read_tokens", counted)
    for name in ("train", "held_out"):
        known = Corpus.open(small_corpus.path)
        size, tokens = known.vocabulary_size, known.split(name).token_count
        expected = np.bincount(known.split(name).tokens(0, tokens), minlength=size)
        read.clear()
        counts = known.split(name).token_counts()
        assert counts.dtype == np.int64 and np.array_equal(counts, expected) and not read
        short, moved = " ".join(["1"] * (size - 1)), " ".join(["-1", str(tokens + 1), *["0"] * (size - 2)])
        for wrong in (None, 7, {}, {name: None}, {name: [1]}, {name: "x"}, {name: short}, {name: moved}):
            other = Corpus(known.path, {**known.manifest, "token_counts": wrong})
            read.clear()
            assert np.array_equal(other.split(name).token_counts(), expected) and sum(read) == tokens, wrong
