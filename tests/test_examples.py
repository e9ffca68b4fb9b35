"""The notebooks in examples/ run from top to bottom, and so does the comparison of batch sizes on MNIST."""

from __future__ import annotations

import gzip
import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.append(str(EXAMPLES))
import mnist_batch_sizes  # noqa: E402
import mnist_training  # noqa: E402

TRAIN, TEST, HELD_OUT = 96, 40, 32
BATCHES, EPOCHS, SEEDS = (8, 16), 2, 2


def code_of(notebook: Path) -> str:
    """Its code cells as one program; the value of a cell's last line is not shown."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    """In an empty folder, as a person runs it; the trained model beats the unigram baseline of its text."""
    program = tmp_path / "notebook.py"
    check = "assert run.metrics['eval_mlm_loss'] < run.metrics['eval_unigram_loss'], run.metrics"
    program.write_text(f"{code_of(notebook)}\n\n{check}\nprint(result.f1)\n", encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert 0 <= float(ended.stdout.splitlines()[-1]) <= 100


def idx(*sizes: int, content: bytes, kind: int = 8) -> bytes:
    """An IDX file: 0, 0, the type of numbers, how many dimensions, their sizes from the highest byte, the numbers."""
    return struct.pack(f">4B{len(sizes)}I", 0, 0, kind, len(sizes), *sizes) + content


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """MNIST's four files, some packed: a bright bar in one of ten places."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.zeros((count, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = 5 * (label // 2) + 2, 14 * (label % 2) + 2
            image[row : row + 5, column : column + 10] = 250
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(count, 28, 28, content=images.tobytes()))
        packed = gzip.compress(idx(count, content=labels.tobytes()))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(packed)
    return folder


@pytest.fixture
def compare(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Runs the comparison on few images and returns its JSON line; options are added to its command line."""

    def run(*more: str) -> dict[str, Any]:
        sizes = ["--batches", *map(str, BATCHES), "--tuning-batch", "16", "--held-out", str(HELD_OUT)]
        numbers = ["--epochs", str(EPOCHS), "--seeds", str(SEEDS)]
        places = ["--data", str(digits), "--out", str(tmp_path / "runs" / "mnist.jsonl")]
        monkeypatch.setattr(sys, "argv", ["mnist_batch_sizes.py", *places, *sizes, *numbers, *more])
        mnist_batch_sizes.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    return run


def journal_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs" / "mnist.jsonl").read_text("utf-8").splitlines()]


def test_every_optimizer_gets_the_same_rates_and_seeds(compare: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Six values of c on held-out images; then c, c / 2 and 2c on the test set, with the rates that the rule says."""
    found = compare("--picture", str(tmp_path / "mnist.svg"))
    lines = journal_of(tmp_path)
    for line in lines:
        steps = EPOCHS * line["train_images"] // line["batch_size"]
        assert line["learning_rate"] == pytest.approx(line["constant"] / math.sqrt(steps))
    for name in ("LAMB", "LARS", "AdamW", "SGD"):
        own = [line for line in lines if line["optimizer"] == name]
        tuned = [line for line in own if line["train_images"] == TRAIN - HELD_OUT]
        best = max(tuned, key=lambda line: (line["accuracy"], -line["loss"]))["constant"]
        assert found["constants"][name] == best
        assert len({line["constant"] for line in tuned}) == 6
        measured = {(line["batch_size"], line["constant"] / best, line["seed"])
                    for line in own if line["train_images"] == TRAIN}  # fmt: skip
        wanted = {*product(BATCHES, (1.0,), range(SEEDS)), *product(BATCHES, (0.5, 2.0), (0,))}
        assert measured == wanted
        assert len(own) == len(tuned) + len(wanted)
    assert max(row["accuracy"] for row in found["rows"] if row["optimizer"] == "LAMB") == 100
    assert "AdamW" in (tmp_path / "mnist.svg").read_text("utf-8")


def test_a_run_that_did_not_learn_leaves_the_others_apart_in_the_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn = list[dict[str, Any]]()
    monkeypatch.setattr(mnist_batch_sizes, "write_picture", lambda picture, out: drawn.append(picture))
    row = {"times": 1.0, "batch_size": 32, "half_interval": None}
    rows = [
        {**row, "optimizer": "LAMB", "accuracy": 99.2},
        {**row, "optimizer": "LARS", "accuracy": 98.6},
        {**row, "optimizer": "SGD", "accuracy": 11.35},
    ]
    mnist_batch_sizes.draw(rows, tmp_path / "mnist.svg")
    scale = drawn[0]["encoding"]["y"]["scale"]
    assert 96 < scale["domainMin"] < 98.6
    assert 99.2 <= scale["domainMax"] <= 100
    assert all(layer["mark"]["clip"] for layer in drawn[0]["layer"])


def test_an_interrupted_comparison_continues(compare: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """From a journal whose last line is torn it comes to the same results, and makes no run again."""
    path = tmp_path / "runs" / "mnist.jsonl"
    whole = compare()
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-3]) + lines[-3][:20], "utf-8")
    partial = compare("--report")
    assert len(partial["rows"]) < len(whole["rows"]) and journal_of(tmp_path) == list(map(json.loads, lines[:-3]))
    again = compare()
    assert again["rows"] == whole["rows"]
    assert path.read_text("utf-8").startswith("".join(lines[:-3])) and len(journal_of(tmp_path)) == len(lines)


def test_the_rate_warms_up_and_decays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a tenth of 20 steps to the peak, then along a line that would reach 0 after the last."""
    rates = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            rates.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(mnist_training, "make_optimizer", lambda name, model, lr: Recorder(model.parameters(), lr))
    data = mnist_training.Data(torch.zeros(10, 1, 28, 28), torch.zeros(10, dtype=torch.int64))
    mnist_training.train(mnist_training.Run("SGD", 4, math.sqrt(20), 0, 8, 10), data)
    assert rates == pytest.approx([0.5, 1.0, *(left / 18 for left in range(18, 0, -1))])


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"
PIXELS = bytes(TRAIN * 28 * 28)
MALFORMED = {
    "empty": (IMAGES, b""),
    "a part of the head": (IMAGES, idx(TRAIN, 28, 28, content=b"")[:11]),
    "labels as images": (IMAGES, idx(TRAIN, content=bytes(TRAIN))),
    "floats": (IMAGES, idx(TRAIN, 28, 28, content=PIXELS, kind=13)),
    "a web page": (IMAGES, b"<!DOCTYPE html><html></html>"),
    "too short": (IMAGES, idx(TRAIN, 28, 28, content=PIXELS[:-1])),
    "too long": (IMAGES, idx(TRAIN, 28, 28, content=PIXELS + b"0")),
    "says more than memory holds": (IMAGES, idx(2**32 - 1, 2**32 - 1, 2**32 - 1, content=PIXELS)),
    "other pixels": (IMAGES, idx(TRAIN, 28, 14, content=PIXELS[::2])),
    "fewer labels than images": (LABELS, gzip.compress(idx(TRAIN - 1, content=bytes(TRAIN - 1)))),
    "a label of 10": (LABELS, gzip.compress(idx(TRAIN, content=bytes([10] * TRAIN)))),
    "not packed": (LABELS, idx(TRAIN, content=bytes(TRAIN))),
    "packed, cut off": (LABELS, gzip.compress(idx(TRAIN, content=bytes(TRAIN)))[:-12]),
    "packed, damaged": (LABELS, gzip.compress(b"")[:10] + b"\xff" * 30),
}


@pytest.mark.parametrize(("name", "content"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_told_in_one_line(name: str, content: bytes, digits: Path) -> None:
    (digits / name).write_bytes(content)
    with pytest.raises(SystemExit) as told:
        mnist_training.read_data(digits, "train")
    assert "\n" not in str(told.value) and str(digits) in str(told.value) and "get " in str(told.value)


def test_a_missing_file_is_told_in_one_line(digits: Path) -> None:
    (digits / IMAGES).unlink()
    with pytest.raises(SystemExit, match=rf"has neither {IMAGES} nor {IMAGES}\.gz; give the folder .* as --data$"):
        mnist_training.read_data(digits, "train")


@pytest.mark.parametrize(
    ("content", "told"), [("{}\n", "not a journal"), ("text\n", "not a journal"), ("text", "not a journal")]
)
def test_another_file_is_not_written_over(content: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content, "utf-8")
    with pytest.raises(SystemExit, match=told):
        mnist_batch_sizes.Journal(path)
    assert path.read_text("utf-8") == content


def test_what_cannot_be_is_refused_before_anything_runs(
    compare: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in (["--held-out", str(TRAIN)], ["--batches", "65"], ["--epochs", "0"], ["--picture", "mnist.gif"]):
        with pytest.raises(SystemExit):
            compare(*option)
        assert "error: " in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
