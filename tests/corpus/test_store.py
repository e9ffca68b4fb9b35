from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from lambert.corpus.finalize import write_manifest
from lambert.corpus.partitions import PartitionRecord
from lambert.corpus.shard import Shard
from lambert.corpus.sources import ReadStatistics
from lambert.corpus.store import Corpus
from lambert.corpus.summary import SplitCounts
from lambert.corpus.tokenizer_files import load_vocabulary, save_tokenizer
from lambert.corpus.vocabulary import SPECIAL
from lambert.corpus.writer import ShardWriter, token_type
from lambert.errors import UserError


def tokenizer_of(folder: Path, size: int) -> Tokenizer:
    entries = [*SPECIAL, *(f"w{number}" for number in range(size - len(SPECIAL)))]
    file = folder / f"vocab{size}.txt"
    file.write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
    return load_vocabulary(file, cased=False)


def random_documents(count: int, size: int) -> list[list[list[int]]]:
    draw = np.random.default_rng(7)
    return [
        [draw.integers(0, size, draw.integers(1, 9)).tolist() for _ in range(draw.integers(1, 6))] for _ in range(count)
    ]


def written(folder: Path, size: int = 50, shard_tokens: int = 40) -> tuple[Corpus, dict[str, list[list[list[int]]]]]:
    """A store of several shards whose token ids reach the end of the vocabulary, and what went into it."""
    folder.mkdir()
    tokenizer = tokenizer_of(folder.parent, size)
    writer = ShardWriter(folder, "00000-", token_type(tokenizer), shard_tokens=shard_tokens)
    documents = random_documents(60, size)
    documents[0][0][0] = size - 1
    splits: dict[str, list[list[list[int]]]] = {"train": [], "held_out": []}
    for number, document in enumerate(documents):
        name = "held_out" if number % 9 == 4 else "train"
        splits[name].append(document)
        add(writer, name, document)
    close(folder, writer, tokenizer)
    return Corpus.open(folder), splits


def add(writer: ShardWriter, split: str, document: list[list[int]]) -> None:
    ids = np.array([number for sentence in document for number in sentence], np.uint32)
    lengths = np.array([len(sentence) for sentence in document])
    count, words = np.array([len(document)]), np.array([len(ids)])
    writer.add(split, ids, lengths, count, words, np.array([zlib.crc32(str(document).encode())], np.uint64))


def close(folder: Path, writer: ShardWriter, tokenizer: Tokenizer) -> None:
    save_tokenizer(tokenizer, folder / "tokenizer")
    record = PartitionRecord(
        writer.finish(), {s: SplitCounts() for s in ("train", "held_out")}, ReadStatistics(), [], []
    )
    write_manifest(folder, tokenizer, [record], {"language": "en"}, [], [])


@pytest.mark.parametrize(("size", "expected"), [(50, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_what_was_written_is_read(tmp_path: Path, size: int, expected: str) -> None:
    corpus, splits = written(tmp_path / "store", size)
    assert corpus.manifest["token_type"] == expected
    corpus.verify()
    for name, documents in splits.items():
        split = corpus.split(name)
        sentences = [sentence for document in documents for sentence in document]
        tokens = [number for sentence in sentences for number in sentence]
        assert (split.document_count, split.sentence_count, split.token_count) == (
            len(documents),
            len(sentences),
            len(tokens),
        )
        assert np.diff(split.document_offsets).tolist() == list(map(len, documents))
        assert np.diff(split.sentence_offsets).tolist() == list(map(len, sentences))
        assert split.document_offsets.dtype == split.sentence_offsets.dtype == np.int64
        assert split.sentence_offsets[0] == 0
        assert split.sentence_offsets[-1] == len(tokens)
        assert split.tokens(0, len(tokens)).tolist() == tokens
        assert split.tokens(0, len(tokens)).dtype == np.dtype(expected)
        assert split.token_counts().tolist() == np.bincount(tokens, minlength=size).tolist()


def test_any_range_of_tokens(tmp_path: Path) -> None:
    corpus, splits = written(tmp_path / "store")
    tokens = [number for document in splits["train"] for sentence in document for number in sentence]
    split = corpus.split("train")
    shards = [entry for entry in corpus.manifest["shards"] if entry["split"] == "train"]
    assert len(shards) > 5
    for start in range(0, len(tokens) + 1, 3):
        for stop in {start, start + 1, start + 17, start + 100, len(tokens)}:
            if start <= stop <= len(tokens):
                assert split.tokens(start, stop).tolist() == tokens[start:stop]
    for edge in np.cumsum([entry["tokens"] for entry in shards]).tolist()[:-1]:
        assert split.tokens(edge - 1, edge + 1).tolist() == tokens[edge - 1 : edge + 1]
        assert split.tokens(edge, edge + 1).tolist() == tokens[edge : edge + 1]


def test_many_spans_are_read_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, from any file, empty ones too."""
    split = written(tmp_path / "store")[0].split("train")
    bounds = split.sentence_offsets[split.document_offsets]
    order = np.random.default_rng(3).permutation(len(bounds) - 1)
    starts, stops = bounds[order] + 1, np.maximum(bounds[order] + 1, bounds[order + 1] - 1)
    expected = [number for a, b in zip(starts, stops, strict=True) for number in split.tokens(a, b).tolist()]
    monkeypatch.setattr(Shard, "read_tokens", None)  # the slower way, which is for files that fail
    assert (starts == stops).any() and split.spans(starts, stops).tolist() == expected


def test_opening_a_corpus_loads_nothing_that_only_building_one_needs(tmp_path: Path) -> None:
    corpus = written(tmp_path / "store")[0]
    program = """import sys
from lambert.corpus.store import Corpus
from lambert.data import dataloader
Corpus.open(sys.argv[1])
print(*(name for name in ("sentencex", "charset_normalizer", "lambert.corpus.build") if name in sys.modules))"""
    command = [sys.executable, "-c", program, corpus.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == []


def test_reading_takes_no_more_memory_than_the_span(tmp_path: Path) -> None:
    split = written(tmp_path / "store", shard_tokens=1 << 20)[0].split("train")
    before = pa.total_allocated_bytes()
    first, second = split.tokens(3, 40), split.tokens(3, 50)
    assert first.tolist() == second[:37].tolist() and first.nbytes == 2 * 37
    assert not first.flags.writeable
    assert pa.total_allocated_bytes() == before


def test_other_readers_open_the_shards(tmp_path: Path) -> None:
    corpus, splits = written(tmp_path / "store")
    files = [corpus.path / entry["file"] for entry in corpus.manifest["shards"] if entry["split"] == "train"]
    rows = [row for file in files for row in pa.ipc.open_file(str(file)).read_all().column("sentences").to_pylist()]
    assert rows == splits["train"]


def test_a_split_is_sent_to_another_process_by_its_path(tmp_path: Path) -> None:
    split = written(tmp_path / "store")[0].split("train")
    _ = split.tokens(0, 10), split.sentence_offsets
    sent = pickle.dumps(split)
    assert len(sent) < 500
    assert len(pickle.dumps(split.corpus)) < 500
    assert np.array_equal(pickle.loads(sent).tokens(5, 90), split.tokens(5, 90))


def test_the_fingerprint_tells_contents_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, _ = written(tmp_path / "store")
    again, _ = written(tmp_path / "other" / "name")
    different, _ = written(tmp_path / "third", size=51)
    assert first.fingerprint == again.fingerprint != different.fingerprint
    assert len(first.fingerprint) == 64


def test_an_empty_split(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path, 50)
    writer = ShardWriter(tmp_path, "00000-", token_type(tokenizer))
    add(writer, "train", [[1, 2]])
    close(tmp_path, writer, tokenizer)
    split = Corpus.open(tmp_path).split("held_out")
    assert (split.document_count, split.token_count) == (0, 0)
    assert split.document_offsets.tolist() == split.sentence_offsets.tolist() == [0]
    assert split.tokens(0, 0).tolist() == []
    assert split.token_counts().sum() == 0


def edit_manifest(folder: Path, **changes: object) -> None:
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text("utf-8")) | changes
    file.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, r"format version 2, .* reads 3\. Prepare it again with `lambert prepare`"),
        ({"format_version": 4}, "format version 4"),
        ({"format_version": None}, "no format_version"),
        ({"vocabulary_size": "50"}, "'vocabulary_size' is missing or not int"),
        ({"vocabulary_size": None}, "'vocabulary_size' is missing or not int"),
        ({"shards": [{"file": "train-00000-000.arrow"}]}, "'split' is missing"),
        ({"token_type": "float16"}, "token_type is 'float16'"),
        ({"tokenizer_sha256": "0"}, "not the tokenizer that made this store"),
        ({"vocabulary_size": 49}, "49 .* 50"),
    ],
)
def test_a_manifest_that_does_not_fit(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    written(tmp_path / "store")
    edit_manifest(tmp_path / "store", **changes)
    with pytest.raises(UserError, match=message):
        Corpus.open(tmp_path / "store")


def test_folders_that_are_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a corpus"):
        Corpus.open(tmp_path / "missing")
    (tmp_path / "manifest.json").write_text("{half", encoding="utf-8")
    with pytest.raises(UserError, match=r"manifest\.json cannot be used"):
        Corpus.open(tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    corpus, _ = written(tmp_path / "store")
    file = corpus.path / "train-00000-001.arrow"
    whole = file.read_bytes()
    place = len(whole) // 2
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    Corpus.open(corpus.path)
    with pytest.raises(UserError, match=r"train-00000-001\.arrow.*SHA-256"):
        Corpus.open(corpus.path).verify()
    file.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"train-00000-001\.arrow"):
        Corpus.open(corpus.path)
    file.unlink()
    with pytest.raises(UserError, match=r"train-00000-001\.arrow cannot be used: it is missing"):
        Corpus.open(corpus.path)
    file.write_bytes(b"x" * len(whole))
    with pytest.raises(UserError, match=r"train-00000-001\.arrow"):
        Corpus.open(corpus.path).split("train").tokens(0, 80)
