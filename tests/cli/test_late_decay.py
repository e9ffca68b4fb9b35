"""`--decay-from`: the decay of a constant-rate run, begun late from one of its checkpoints."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lambert.cli.main import main
from lambert.corpus.store import Corpus
from lambert.runlog.reader import read_run

QUIET = ["--evaluation-samples", "8", "--probe-seconds", "0", "--threads", "1"]
STABLE = [
    *("--model", "2x32", "--batch-size", "8", "--samples", "96", "--sequence-lengths", "32", "--warmup-ratio", ".25"),
    *("--lr-scheduler-type", "constant_with_warmup", "--micro-batch-size", "4", "--precision", "float32", *QUIET),
]


@pytest.fixture(scope="module")
def stable(small_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps at batch 8, three of them warm-up, with all checkpoints."""
    folder = tmp_path_factory.mktemp("stable") / "run"
    kept = ["--checkpoint-steps", "1", "--keep-last", "12"]
    assert main(["pretrain", "--corpus", str(small_corpus.path), *STABLE, *kept, "--out", str(folder)]) == 0
    return folder


def decay(corpus: Corpus, start: Path, out: Path, *more: str) -> int:
    given = ["--decay-from", str(start), *QUIET, *more, "--out", str(out)]
    return main(["pretrain", "--corpus", str(corpus.path), *given])


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step}" / "model.safetensors")


def test_it_ends_in_the_weights_of_a_run_that_planned_it(stable: Path, small_corpus: Corpus, tmp_path: Path) -> None:
    start, recipe = stable / "checkpoints" / "step-9", tmp_path / "planned.toml"
    assert decay(small_corpus, start, tmp_path / "late", "--decay-ratio", ".25", "--sequence-lengths", "64") == 0
    rate = tomllib.loads((stable / "recipe.toml").read_text())["phases"][0]["peak_learning_rate"]["value"]
    recipe.write_text(
        'optimizer = "muon"\n'
        "phases = [{ sequence_length = 32, batch_size = 8, steps = 9, warmup_steps = 3, stable_ratio = 0.5, "
        f'decay = "1-sqrt", peak_learning_rate = {rate} }}, '
        "{ sequence_length = 64, batch_size = 8, steps = 3, continues = true }]\n"
    )
    planned = ["--recipe", str(recipe), "--model", "2x32", "--micro-batch-size", "4", "--precision", "float32", *QUIET]
    assert main(["pretrain", "--corpus", str(small_corpus.path), *planned, "--out", str(tmp_path / "planned")]) == 0
    late, whole = weights(tmp_path / "late", 12), weights(tmp_path / "planned", 12)
    assert late.keys() == whole.keys()
    assert all(torch.equal(late[name], whole[name]) for name in whole)
    one, other = read_run(tmp_path / "late"), read_run(tmp_path / "planned")
    assert list(one.steps) == list(other.steps) == list(range(1, 13))
    assert list(one.series["learning_rate"]) == list(other.series["learning_rate"])
    assert one.series["learning_rate"][8:] == pytest.approx(
        [rate * part for part in (1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5)]
    )


def test_an_interrupted_decay_resumes_without_the_run_that_it_came_from(
    stable: Path, small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "late"
    shutil.copytree(stable, source)
    assert decay(small_corpus, source, out) == 0
    shutil.rmtree(source)
    last = max(int(path.name.removeprefix("step-")) for path in (out / "checkpoints").iterdir())
    assert last == 13  # a tenth of all samples
    shutil.rmtree(out / "checkpoints" / "step-13")
    assert decay(small_corpus, source, out) == 0
    assert json.loads((out / "journal.jsonl").read_text().splitlines()[-1])["event"] == "end"
    capsys.readouterr()
    assert decay(small_corpus, source, out, "--decay-ratio", ".5") == 2
    assert "holds a run with other settings: --samples" in capsys.readouterr().err


def test_two_ranks_decay_with_the_micro_batches_that_the_message_names(
    stable: Path, small_corpus: Corpus, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ("--processes", "4", "--restarts", "0")
    assert decay(small_corpus, stable, tmp_path / "late", *given) == 2
    assert "4 ranks for 2 micro-batches of phase 1. Give a --micro-batch-size up to 2" in capfd.readouterr().err
    assert decay(small_corpus, stable, tmp_path / "late", "--micro-batch-size", "2") == 0
    assert tomllib.loads((tmp_path / "late" / "recipe.toml").read_text())["micro_batch_sizes"] == [2, 2]


def test_fresh_decays_again(stable: Path, small_corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "late"
    assert decay(small_corpus, stable, out) == 0
    assert decay(small_corpus, stable / "checkpoints" / "step-6", out, "--fresh", "--batch-size", "2") == 0
    phases = tomllib.loads((out / "recipe.toml").read_text())["phases"]
    assert [(phase["batch_size"], phase["steps"]["value"]) for phase in phases] == [(8, 6), (2, 3)]


@pytest.mark.parametrize(
    ("start", "more", "told"),
    [
        ("checkpoints/step-2", [], "Choose a checkpoint of steps 3 to 12, which have it"),
        ("", ["--batch-size", "0"], "batch size 0. Give a whole number of sequences from 1"),
        ("", ["--sequence-lengths", "3"], "sequence length 3. Give a whole number of tokens from 8"),
        ("", ["--batch-size", "5000", "--decay-ratio", ".999"], "a batch of 5,000 is more than the"),
        ("checkpoints/step-40", [], "no checkpoint of step 40. Choose one of 1, 2, 3"),
        ("checkpoints", [], "is not a run"),
        ("", ["--model", "tiny", "--seed", "1"], "--model and --seed beside --decay-from"),
        ("", ["--batch-size", "8", "4"], "several phases beside --decay-from"),
        ("", ["--decay-ratio", "1"], "--decay-ratio = 1"),
        ("", ["--decay-ratio", ".001"], "less than a step of 8. Give a larger --decay-ratio"),
    ],
)  # fmt: skip
def test_what_cannot_decay_is_told(
    stable: Path, small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    start: str, more: list[str], told: str,
) -> None:  # fmt: skip
    assert decay(small_corpus, stable / start, tmp_path / "late", *more) == 2
    error = capsys.readouterr().err
    assert told in error
    assert not (tmp_path / "late").exists() or not list((tmp_path / "late").iterdir())


def test_the_folder_of_another_run_is_refused(
    stable: Path, small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decay(small_corpus, stable, stable) == 2
    assert f"--decay-from and --out are both {stable}. Choose another --out" in capsys.readouterr().err
    shutil.copytree(stable, tmp_path / "other")
    assert decay(small_corpus, stable, tmp_path / "other") == 2
    assert (
        "other holds a run without a decay of its own. Choose another --out, or add --fresh" in capsys.readouterr().err
    )


def test_a_decayed_run_does_not_decay_again(
    stable: Path, small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decay(small_corpus, stable, tmp_path / "late") == 0
    assert decay(small_corpus, tmp_path / "late", tmp_path / "later") == 2
    assert "which is not the run's peak" in capsys.readouterr().err
