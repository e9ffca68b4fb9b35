"""Every numeric option of every subcommand at the edges of numbers: taken, or one line on standard error."""

from __future__ import annotations

import dataclasses
import json
import re
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lambert.cli.main import SUBCOMMANDS, main
from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.corpus.vocabulary import train_vocabulary
from lambert.errors import UserError
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import save_model

EDGES = ("-1", "0", str(2**31), str(2**63), "nan", "inf")
TEXT = "the old clerk opened the garden in june"
SECONDS = 20
"""After which an option counts as one that hangs."""


class Enough(UserError):
    """Raised where training would begin: what was asked for has been checked by then."""


def hangs(*_: Any) -> None:
    raise AssertionError(f"busy for {SECONDS} s")


@pytest.fixture(autouse=True)
def stop_before_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def enough(*_: Any, **__: Any) -> None:
        raise Enough("enough", remedy="Go on")

    for where in ("training.loop.train_step", "finetune.loop.train_step", "planning.probe.probe_step"):
        monkeypatch.setattr(f"lambert.{where}", enough)
    signal.signal(signal.SIGALRM, hangs)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory, small_corpus: Corpus) -> dict[str, list[str]]:
    """A command line of each subcommand that does little."""
    folder = tmp_path_factory.mktemp("numbers")
    tokenizer = train_vocabulary([TEXT] * 3, 100, cased=False)
    sizes = {"layers": 1, "hidden_size": 32, "attention_heads": 2, "feed_forward_size": 64, "maximum_positions": 80}
    model = str(folder / "model")
    save_model(BertForPreTraining(BertConfig(vocabulary_size=tokenizer.get_vocab_size(), **sizes)), Path(model))
    save_tokenizer(tokenizer, Path(model))
    (folder / "text.txt").write_text((TEXT + ".\n\n") * 50)
    answer = {"id": "a", "question": "When?", "answers": [{"text": "june", "answer_start": 35}]}
    squad = {"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": TEXT, "qas": [answer]}]}]}
    questions = folder / "squad.json"
    questions.write_text(json.dumps(squad))
    task = folder / "RTE"
    task.mkdir()
    for name in ("train", "dev"):
        (task / f"{name}.tsv").write_text(f"index\tsentence1\tsentence2\tlabel\n0\t{TEXT}\t{TEXT}\tentailment\n")
    corpus = str(small_corpus.path)
    short = ["--corpus", corpus, "--model", "2x32", "--batch-size", "8", "--sequence-lengths", "32", "64"]
    return {
        "demo": [],
        "prepare": [str(folder / "text.txt"), "--vocab-size", "100", "--workers", "1"],
        "inspect": [corpus],
        "plan": [*short, "--samples", "16", "--probe-seconds", "0"],
        "pretrain": [*short, "--samples", "16", "--probe-seconds", "0"],
        "sweep": ["nowhere.toml"],
        "squad": [model, "--train", str(questions), "--dev", str(questions), "--sequence-length", "80"],
        "glue": [model, "rte", "--data", str(folder), "--sequence-length", "80"],
        "fill": [model, f"{TEXT} [MASK]"],
    }


def numeric_options(subcommand: str) -> list[str]:
    fields = dataclasses.fields(SUBCOMMANDS[subcommand])  # type: ignore[arg-type]
    return [field.name for field in fields if re.search(r"\b(int|float)\b", str(field.type))]


NUMERIC = [(name, option) for name in SUBCOMMANDS for option in numeric_options(name)]


def test_no_subcommand_is_left_out(commands: dict[str, list[str]]) -> None:
    assert {name for name, _ in NUMERIC} <= commands.keys() and len(NUMERIC) > 60


@pytest.mark.parametrize(("subcommand", "option"), NUMERIC)
def test_a_number_at_the_edge_is_taken_or_refused_in_one_line(
    commands: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], subcommand: str, option: str
) -> None:
    out = (
        ["--out", str(tmp_path / "out")]
        if "out" in {f.name for f in dataclasses.fields(SUBCOMMANDS[subcommand])}
        else []
    )  # type: ignore[arg-type]
    for value in EDGES:
        state, threads = torch.random.get_rng_state(), torch.get_num_threads()
        signal.alarm(SECONDS)
        code = main([subcommand, *commands[subcommand], *out, f"--{option.replace('_', '-')}", value])
        signal.alarm(0)
        torch.random.set_rng_state(state)
        torch.set_num_threads(threads)
        said = capsys.readouterr().err.splitlines()
        assert code in (0, 1, 2, 3), (value, code, said)
        assert code != 2 or any(line.startswith("lambert: ") for line in said[-1:]), (value, said)
        assert "Traceback" not in "\n".join(said)
