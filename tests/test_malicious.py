"""Files from strangers: no code in them runs, memory is bounded, and each is refused in one clear line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import malicious
from lambert.cli.main import main
from lambert.corpus.store import Corpus


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, small_corpus: Corpus) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("malicious")
    origin = folder / "a" / "b" / "origin"
    origin.mkdir(parents=True)
    shutil.copytree(small_corpus.path, origin / "corpus")
    (origin / "text.txt").write_text("Bada fefi.\n" * 50)
    words = ["pretrain", "--corpus", str(origin / "corpus"), "--out", str(origin / "run"), *malicious.OPTIONS]
    assert main([*words, "--evaluation-samples", "0", "--checkpoint-steps", "4", "--keep-last", "2"]) == 0
    shutil.copytree(origin / "run" / "huggingface", origin / "model")
    question = {"id": "1", "question": "Who?", "answers": [{"text": "Bada", "answer_start": 0}]}
    article = {"title": "Bada", "paragraphs": [{"context": "Bada fefi.", "qas": [question]}]}
    (origin / "dev.json").write_text(json.dumps({"version": "1.1", "data": [article]}))
    (origin / "predictions.json").write_text("{}")
    command = [sys.executable, str(Path(malicious.__file__)), str(origin), str(folder / "a" / "b")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert ended.returncode == 0, ended.stderr
    return {result["case"]: result for result in json.loads(ended.stdout.splitlines()[-1])}


@pytest.mark.parametrize("case", malicious.CASES)
def test_it_does_no_harm(results: dict[str, Any], case: str) -> None:
    result = results[case]
    assert result["good"], result


def test_memory_is_bounded(results: dict[str, Any]) -> None:
    grown = {case: result["grown"] for case, result in results.items()}
    assert max(grown.values()) < 800_000_000, grown
    assert max(result["child"] for result in results.values()) < 800_000_000  # the process that opens pickles


def test_the_canary_sings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its silence would say nothing."""
    import pickle

    monkeypatch.chdir(tmp_path)
    pickle.loads(malicious.PICKLE)
    assert malicious.CANARY.exists()
