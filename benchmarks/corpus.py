"""Preparing text and making examples from it, beside what others do with the same text on the same core.

Rivals: `tokenizers`' own `encode_batch` (which only makes ids), and google-research/bert's `tokenization.py` and
`create_pretraining_data.py` where a checkout of them is named (they run on a stand-in for the few calls of TensorFlow
that they make, and write nothing). Rounds are interleaved; the table gives medians with the least and the most.

    python benchmarks/corpus.py TEXT... --vocab VOCAB [--bert FOLDER] [--megabytes 140] [--rounds 3]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np

from lambert.corpus.build import build_corpus
from lambert.corpus.encoding import SentenceEncoder
from lambert.corpus.sentences import split_sentences
from lambert.corpus.sources import TextReader
from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import load_vocabulary
from lambert.data.dataloader import SampleStream, example_source
from lambert.data.objective import ObjectiveConfig

ENCODE_BATCH_BYTES = 20_000_000
BERT_SAMPLE_CHARACTERS = 6_000_000
BERT_DUPLICATES = 10


def seconds_of(work: Callable[[], Any]) -> float:
    """How long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, round by round."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds_of(work))
    return times


def beginning(files: Sequence[Path], megabytes: float, folder: Path) -> list[Path]:
    """The first lines of every file as plain files of equal size."""
    share = int(megabytes * 1e6 / len(files))
    made = []
    for number, file in enumerate(files):
        written, path = 0, folder / f"{number}.txt"
        with path.open("w", encoding="utf-8") as out:
            for document in TextReader([file]):
                text = "\n".join(document.paragraphs) + "\n\n"
                out.write(text)
                written += len(text.encode())
                if written >= share:
                    break
        made.append(path)
    return made


def prepare_rows(files: Sequence[Path], vocabulary: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """`prepare` end to end on one worker and on two, beside `encode_batch` alone."""
    tokenizer = load_vocabulary(vocabulary, cased=False)
    lines, characters = [], 0
    for line in (line for document in TextReader(files) for line in document.paragraphs):
        lines.append(line)
        characters += len(line.encode()) + 1
        if characters >= ENCODE_BATCH_BYTES:
            break
    size = sum(file.stat().st_size for file in files) / 1e6

    def prepare(workers: int) -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        words = [str(file) for file in files]
        command = [sys.executable, "-m", "lambert", "prepare", *words, "--out", str(folder / "out")]
        command += ["--vocab", str(vocabulary), "--workers", str(workers)]
        subprocess.run(command, check=True, capture_output=True)

    def encode_batch() -> None:
        for start in range(0, len(lines), 1_000):
            tokenizer.encode_batch(lines[start : start + 1_000], add_special_tokens=False)

    times = interleaved({"one": lambda: prepare(1), "two": lambda: prepare(2), "encode_batch": encode_batch}, rounds)
    one, two, alone = (statistics.median(times[name]) for name in ("one", "two", "encode_batch"))
    return [
        row("prepare, MB/s", size / one, "encode_batch alone", characters / 1e6 / alone, 2.0, times["one"], size),
        row("prepare with two workers, MB/s", size / two, "prepare with one", size / one, 1.8, times["two"], size),
    ]


def ids_row(files: Sequence[Path], vocabulary: Path, lines_wanted: int) -> dict[str, Any]:
    """Sentences whose ids differ from the tokenizer's own."""
    tokenizer = load_vocabulary(vocabulary, cased=False)
    tokenizer.encode_special_tokens = True
    encoder = SentenceEncoder(tokenizer)
    different = compared = 0
    for document in TextReader(files):
        sentences = [sentence for line in document.paragraphs for sentence in split_sentences(line, "en")]
        ids, lengths = encoder.encode(sentences)
        ours = np.split(ids, np.cumsum(lengths)[:-1])
        theirs = tokenizer.encode_batch(sentences, add_special_tokens=False)
        different += sum(a.tolist() != b.ids for a, b in zip(ours, theirs, strict=True))
        compared += len(sentences)
        if compared >= lines_wanted:
            break
    return {"case": f"sentences of {compared:,} with other ids", "ours": different, "rival": "tokenizers", "theirs": 0,
            "ratio": None, "target": 0, "spread": None}  # fmt: skip


def batch_rows(corpus: Path, rounds: int) -> list[dict[str, Any]]:
    """The cut, finished batches, and opening the corpus."""
    rows = []
    opened = interleaved({"open": lambda: Corpus.open(corpus)}, max(rounds, 5))["open"]
    rows.append(row("opening the corpus, s", statistics.median(opened), "", None, 0.2, opened, None))
    store = Corpus.open(corpus)
    for length, batch, target in ((128, 256, 100_000), (128, 1_024, None), (512, 64, 30_000)):
        if batch <= 256:
            rows.append(cut_row(store, length, rounds))
        for kind in KINDS if target else KINDS[:1]:
            rows.append(stream_row(store, length, batch, kind, rounds, target if kind == KINDS[0] else None))
    return rows


KINDS = (
    ObjectiveConfig(),
    ObjectiveConfig(pairing="none"),
    ObjectiveConfig(masking="whole_word"),
    ObjectiveConfig(masking="span"),
)
BATCHES = 100


def cut_row(store: Corpus, length: int, rounds: int) -> dict[str, Any]:
    """Cutting all documents into examples."""
    makes = [lambda: example_source(store, "train", sequence_length=length, seed=0, phase=1)] * (rounds + 1)
    times = [seconds_of(make) for make in makes][1:]
    count = len(makes[0]())
    return row(f"cut at {length}, examples/s", count / statistics.median(times), "", None, 200_000, times, count)


def stream_row(
    store: Corpus, length: int, batch: int, kind: ObjectiveConfig, rounds: int, target: int | None
) -> dict[str, Any]:
    """Finished batches: pairs, masks, padding, tensors."""
    stream = SampleStream(example_source(store, "train", sequence_length=length, seed=0, phase=1, objective=kind))
    stream.batch(0, batch)

    def make(first: int) -> None:
        for number in range(first, first + BATCHES):
            stream.batch(number * batch, batch)

    times = [seconds_of(functools.partial(make, start * BATCHES)) for start in range(rounds)]
    name = f"batches of {batch:,} × {length}, {kind.pairing}, {kind.masking}, sequences/s"
    amount = BATCHES * batch
    return row(name, amount / statistics.median(times), "", None, target, times, amount)


def bert_rows(folder: Path, files: Sequence[Path], vocabulary: Path, corpus: Path, rounds: int) -> list[dict[str, Any]]:
    """google-research/bert's pipeline on a part of the text, at its default of ten duplicates, beside ours."""
    tokenization, pipeline = load_bert(folder)
    tokenizer = tokenization.FullTokenizer(vocab_file=str(vocabulary), do_lower_case=True)
    documents: list[list[str]] = []
    size = 0
    for document in TextReader(files):
        documents.append([s for line in document.paragraphs for s in split_sentences(line, "en")])
        size += sum(map(len, documents[-1]))
        if size >= BERT_SAMPLE_CHARACTERS:
            break
    megabytes = sum(len(s.encode()) + 1 for document in documents for s in document) / 1e6
    part = corpus.parent / "bert-part.txt"
    part.write_text("\n\n".join("\n".join(document) for document in documents), encoding="utf-8")
    counts: dict[str, int] = {}

    def theirs() -> None:
        tokens = [[tokenizer.tokenize(sentence) for sentence in document] for document in documents]
        rng, words = random.Random(12345), list(tokenizer.vocab.keys())
        made = 0
        for _ in range(BERT_DUPLICATES):
            for number in range(len(tokens)):
                instances = pipeline.create_instances_from_document(tokens, number, 128, 0.1, 0.15, 20, words, rng)
                for instance in instances:
                    tokenizer.convert_tokens_to_ids(instance.tokens)
                made += len(instances)
        counts["theirs"] = made

    def ours() -> None:
        shutil.rmtree(corpus.parent / "bert-out", ignore_errors=True)
        build_corpus([part], corpus.parent / "bert-out", vocab=vocabulary, validation_fraction=0)
        stream = SampleStream(
            example_source(Corpus.open(corpus.parent / "bert-out"), "train", sequence_length=128, seed=0, phase=1)
        )
        for _ in range(BERT_DUPLICATES):
            for start in range(0, len(stream.examples), 1_024):
                stream.batch(start, 1_024)
        counts["ours"] = BERT_DUPLICATES * len(stream.examples)

    times = interleaved({"ours": ours, "theirs": theirs}, rounds)
    mine, other = statistics.median(times["ours"]), statistics.median(times["theirs"])
    name = f"text to {BERT_DUPLICATES} passes of examples of 128 ({counts['ours']:,} and {counts['theirs']:,}), MB/s"
    return [row(name, megabytes / mine, "google-research/bert", megabytes / other, 12.0, times["ours"], megabytes)]


def load_bert(folder: Path) -> tuple[Any, Any]:
    """The two files as modules, with what they ask of TensorFlow and six played by a few lines."""
    tensorflow = types.ModuleType("tensorflow")
    flags = types.SimpleNamespace(FLAGS=types.SimpleNamespace(do_whole_word_mask=False))
    for kind in ("string", "bool", "integer", "float"):
        setattr(flags, f"DEFINE_{kind}", lambda *_: None)
    tensorflow.flags = flags  # type: ignore[attr-defined]
    tensorflow.gfile = types.SimpleNamespace(GFile=_opened)  # type: ignore[attr-defined]
    six = types.ModuleType("six")
    six.PY2, six.PY3 = False, True  # type: ignore[attr-defined]
    sys.modules |= {"tensorflow": tensorflow, "six": six}
    sys.path.insert(0, str(folder))
    import create_pretraining_data
    import tokenization

    return tokenization, create_pretraining_data


def _opened(name: str, mode: str) -> Any:
    return Path(name).open(mode, encoding="utf-8")


def row(
    case: str,
    ours: float,
    rival: str,
    theirs: float | None,
    target: float | None,
    times: Sequence[float],
    amount: float | None,
) -> dict[str, Any]:
    """One line of the table; `amount` over the times is the spread of ours."""
    values = [amount / one if amount else one for one in times]
    return {
        "case": case, "ours": ours, "rival": rival or None, "theirs": theirs,
        "ratio": ours / theirs if theirs else None, "target": target, "spread": [min(values), max(values)],
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--bert", type=Path, help="folder with tokenization.py and create_pretraining_data.py")
    parser.add_argument("--megabytes", type=float, default=140.0, help="of text, in all")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = beginning(arguments.text, arguments.megabytes, folder)
        rows = prepare_rows(files, arguments.vocab, folder, arguments.rounds)
        rows.append(ids_row(arguments.text, arguments.vocab, 100_000))
        rows += batch_rows(folder / "out", arguments.rounds)
        if arguments.bert:
            rows += bert_rows(arguments.bert, files, arguments.vocab, folder / "out", 1)
    print(f"{'':66} {'ours':>12} {'theirs':>12} {'ratio':>7} {'target':>9}  least..most")
    for entry in rows:
        numbers = [entry["ours"], entry["theirs"], entry["ratio"], entry["target"]]
        shown = ["" if value is None else f"{value:,.2f}" if value < 100 else f"{value:,.0f}" for value in numbers]
        spread = "" if entry["spread"] is None else "..".join(f"{value:,.4g}" for value in entry["spread"])
        columns = f"{shown[0]:>12} {shown[1]:>12} {shown[2]:>7} {shown[3]:>9}"
        print(f"{entry['case']:66} {columns}  {spread} {entry['rival'] or ''}")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}"
    print(json.dumps({"benchmark": "corpus", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
