"""`prepare --tokenizer bpe`, or `--vocab` of a published ModernBERT, and every command after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from finetune.squad.articles import HARBOUR, squad_document
from lambert.cli.main import main
from modernbert_bpe import TEXT, odd_lines, published_folder

OPTIONS = [
    *("--batch-size", "8", "--samples", "32", "--sequence-lengths", "24", "--probe-seconds", "0", "--threads", "1"),
    *("--evaluation-samples", "8"),
]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n\n".join(f"{TEXT[n % 4]}\n{TEXT[n % 3]} {HARBOUR}" for n in range(60)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def learned(text: Path) -> Path:
    corpus = text.with_name("learned")
    assert main(["prepare", str(text), "--tokenizer", "bpe", "--vocab-size", "400", "--out", str(corpus)]) == 0
    return corpus


def same_ids(folder: Path, other: Path) -> bool:
    one, two = (transformers.AutoTokenizer.from_pretrained(path) for path in (folder, other))
    found: bool = one(odd_lines(200))["input_ids"] == two(odd_lines(200))["input_ids"]
    return found


@pytest.mark.parametrize(("architecture", "masking"), [("modernbert", "token"), ("bert", "whole_word")])
def test_every_command_takes_a_corpus_of_it(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], architecture: str, masking: str
) -> None:
    run = tmp_path / "run"
    kind = ["--model", "1x32", "--architecture", architecture, "--masking", masking]
    assert main(["plan", "--corpus", str(learned), *kind, *OPTIONS[:6]]) == 0
    assert main(["pretrain", "--corpus", str(learned), *kind, *OPTIONS, "--out", str(run)]) == 0
    assert main(["export", str(run), str(tmp_path / "exported")]) == 0
    assert "the same ids of 1,000 lines and the same logits" in capsys.readouterr().out
    assert same_ids(learned / "tokenizer", tmp_path / "exported")
    assert main(["fill", str(run), "The quick [MASK] jumps", "--candidates", "400", "--json"]) == 0
    own = json.loads(capsys.readouterr().out.splitlines()[-1])["sentences"][0]["blanks"][0]
    found: Any = transformers.pipeline("fill-mask", str(run / "huggingface"), top_k=400)("The quick [MASK] jumps")
    mine, theirs = {one["word"] for one in own}, {one["token_str"] for one in found}
    assert {" fox", "s", "[SEP]"} <= mine and {word for word in theirs if "\ufffd" not in word} <= mine
    if masking == "token":
        fine_tunes(run, tmp_path)


def fine_tunes(run: Path, folder: Path) -> None:
    questions = folder / "squad.json"
    questions.write_text(json.dumps(squad_document((HARBOUR, [("a", "Who?", [("1843", HARBOUR.index("1843"))])]))))
    data = ["--train", str(questions), "--dev", str(questions), "--out", str(folder / "squad")]
    assert main(["squad", str(run), *data, "--epochs", "1", "--sequence-length", "160", "--precision", "float32"]) == 0
    (answer,) = json.loads((folder / "squad/predictions.json").read_text()).values()
    assert answer == answer.strip() and answer in HARBOUR


def test_a_published_model_is_continued(
    text: Path, learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its vocabulary has fewer entries than the model rows, and tokens that were added to it."""
    model, corpus, run = published_folder(tmp_path / "model"), tmp_path / "corpus", tmp_path / "run"
    assert main(["prepare", str(text), "--vocab", str(model), "--out", str(corpus)]) == 0
    assert main(["inspect", str(corpus)]) == 0
    more = ["--init-from", str(model), "--masking", "span", *OPTIONS, "--out", str(run)]
    assert main(["pretrain", "--corpus", str(corpus), *more]) == 0
    assert main(["export", str(run), str(tmp_path / "exported")]) == 0
    assert same_ids(model, tmp_path / "exported")
    configs = (json.loads((folder / "config.json").read_text()) for folder in (model, tmp_path / "exported"))
    assert {(config["vocab_size"], config["pad_token_id"]) for config in configs} == {(512, 359)}
    capsys.readouterr()
    assert main(["pretrain", "--corpus", str(learned), "--init-from", str(model), *OPTIONS, "--out", "never"]) == 2
    assert f"the tokenizer of {model} is not that of {learned}: merges is" in capsys.readouterr().err
