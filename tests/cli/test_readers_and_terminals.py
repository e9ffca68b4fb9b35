"""What a command makes does not depend on who reads its words: a closed pipe, a full disk, a closed terminal."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from pathlib import Path

import pytest

import warm
from conftest import write_small_text
from lambert.cli.main import end
from lambert.corpus.store import Corpus

PRETRAIN = (
    "pretrain --corpus {corpus} --out {out} --model 1x32 --optimizer adamw --batch-size 4 --samples {samples} "
    "--sequence-lengths 16 --micro-batch-size 4 --evaluation-samples 4 --probe-seconds 0"
)
PREPARE = "prepare {text} --out {out} --vocab-size 200 --workers 1"


def _run(words: list[str], stdout: str, stderr: str) -> None:
    """The command line with other streams; `pipe` is one that nobody reads."""
    for descriptor, target in ((1, stdout), (2, stderr)):
        if target == "pipe":
            reader, stream = os.pipe()
            os.close(reader)
        else:
            stream = os.open(target, os.O_RDWR | os.O_CREAT)
        os.dup2(stream, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", closefd=False) for descriptor in (1, 2))
    sys.argv = ["lambert", *words]
    try:
        end()
    except SystemExit as ended:
        os._exit(int(str(ended.code)))  # multiprocessing would flush the streams once more


def _run_in_terminal(words: list[str], terminal: str) -> None:
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    _run(words, terminal, terminal)


@pytest.mark.parametrize("stream", ["pipe", "/dev/full"])
@pytest.mark.parametrize("words", [PRETRAIN, PREPARE])
def test_a_lost_output_changes_nothing_that_is_made(
    words: str, stream: str, tmp_path: Path, small_corpus: Corpus
) -> None:
    text, out, said = tmp_path / "text.txt", tmp_path / "out", tmp_path / "said"
    write_small_text(text)
    line = words.format(corpus=small_corpus.path, text=text, out=out, samples=40).split()
    assert warm.code_of(warm.start(_run, line, stream, str(said))) == 0
    assert (out / ("report.html" if words is PRETRAIN else "manifest.json")).stat().st_size
    told = "standard output cannot be written (No space left on device)" in said.read_text()
    assert told == (stream == "/dev/full") and "Traceback" not in said.read_text()
    assert warm.code_of(warm.start(_run, line, str(said), stream)) in (0, 2)  # 2: the corpus exists already


def test_a_listing_that_nobody_gets_is_an_error(tmp_path: Path, small_corpus: Corpus) -> None:
    said = tmp_path / "said"
    assert warm.code_of(warm.start(_run, ["inspect", str(small_corpus.path)], "/dev/full", str(said))) == 2
    assert said.read_text() == "lambert: No space left on device: while writing the output\n"
    assert warm.code_of(warm.start(_run, ["inspect", str(small_corpus.path)], "pipe", str(said))) == 1


def test_a_closed_terminal_saves_the_run(tmp_path: Path, small_corpus: Corpus) -> None:
    out = tmp_path / "out"
    line = PRETRAIN.format(corpus=small_corpus.path, out=out, samples=4_000_000).split()
    master, slave = pty.openpty()
    process = warm.start(_run_in_terminal, line, os.ttyname(slave))
    deadline, journal = time.monotonic() + warm.SECONDS, out / "journal.jsonl"
    while not (journal.exists() and journal.read_text().count('"event": "step"') > 2):
        assert process.is_alive() and time.monotonic() < deadline
        os.set_blocking(master, False)
        try:
            os.read(master, 1 << 16)  # a full terminal would block the run
        except BlockingIOError:
            time.sleep(0.02)
    os.close(slave)
    os.close(master)
    assert warm.code_of(process) == 129
    assert '"reason": "interrupted"' in journal.read_text().splitlines()[-1]
    assert (out / "checkpoints" / (out / "latest").read_text().strip() / "manifest.json").exists()
