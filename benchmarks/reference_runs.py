"""SHA-256 of the weights of five small runs and of a corpus's ids, to compare before and after a change.

python benchmarks/reference_runs.py OUT

A change of structure must not change a bit. The hashes belong to a processor, a Python and a torch version: compare
two commits on one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

from lambert.corpus.store import Corpus

RUNS = {
    "lamb": ("--precision", "float32", "--optimizer", "lamb"),
    "muon": ("--precision", "float32", "--optimizer", "muon"),
    "two ranks": ("--precision", "float32", "--optimizer", "lamb", "--deterministic", "--processes", "2"),
    "bfloat16": ("--precision", "bfloat16-master", "--optimizer", "lamb"),
    "resumed": ("--precision", "float32", "--optimizer", "lamb"),
}
COMMON = (
    *("--model", "tiny", "--batch-size", "32", "--samples", "1600", "--sequence-lengths", "32", "64"),
    *("--micro-batch-size", "16", "--threads", "1", "--probe-seconds", "0", "--seed", "7"),
)


def command(*words: object) -> list[str]:
    """A `lambert` command."""
    return [sys.executable, "-m", "lambert", *map(str, words)]


def make_corpus(out: Path) -> str:
    """Build a corpus of the Python reference; returns the SHA-256 of its ids."""
    text = ("\n".join(line.strip() for line in body.splitlines() if line.strip()) for _, body in sorted(topics.items()))
    (out / "text.txt").write_text("\n\n".join(text), encoding="utf-8")
    options = ("--out", out / "corpus", "--vocab-size", 1_000, "--validation-fraction", 0.05)
    subprocess.run(command("prepare", out / "text.txt", *options), check=True, stdout=subprocess.DEVNULL)
    digest = hashlib.sha256()
    for name in ("train", "held_out"):
        split = Corpus.open(out / "corpus").split(name)
        digest.update(split.tokens(0, split.token_count).tobytes())
    return digest.hexdigest()


def train(out: Path, name: str) -> str:
    """Make one run; returns the SHA-256 of its weights."""
    run = out / name.replace(" ", "-")
    words = command("pretrain", "--corpus", out / "corpus", *COMMON, "--out", run, *RUNS[name])
    if name == "resumed":
        stopped = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        journal = run / "journal.jsonl"
        while not (journal.exists() and '"event": "step", ' in journal.read_text()) and stopped.poll() is None:
            time.sleep(0.02)
        stopped.send_signal(signal.SIGTERM)
        stopped.wait()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return hashlib.sha256((run / "huggingface" / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    """Print the hashes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="an empty folder")
    out = parser.parse_args().out
    out.mkdir(parents=True)
    hashes = {"corpus": make_corpus(out), **{name: train(out, name) for name in RUNS}}
    for name, found in hashes.items():
        print(f"{name:10} {found}")
    print(json.dumps({"benchmark": "reference_runs", "machine": platform.machine(), "sha256": hashes}))


if __name__ == "__main__":
    main()
