"""What training asks of a GPU, counted on one that computes nothing (`fake_cuda`): syncs, copies, launches, devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fake_cuda import build
from fake_cuda.report import run
from lambert.corpus.store import Corpus

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=build.missing() or "")


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Steps of several models and optimizers, and of planted faults."""
    return run("steps", tmp_path_factory.mktemp("fake_cuda") / "steps.json")


@pytest.mark.parametrize(
    ("case", "launches"),
    [
        ("12 layers, lamb, bfloat16-autocast", 121),
        ("12 layers, lamb, bfloat16-master", 111),
        ("12 layers, lamb, no attention dropout", 124),
        ("2 layers, lans, bfloat16-autocast", 266),
        ("2 layers, muon, bfloat16-master", 234),
        ("2 layers, adamw, float32", 86),
    ],
)
def test_a_step_waits_for_the_device_and_launches_no_more_than_it_must(
    counted: dict[str, Any], case: str, launches: int
) -> None:
    counts = counted["counts"][case]
    assert counts["syncs"] <= 1 + ("lans" in case), counts["where"]  # LANS reads whether the step is skipped
    assert counts["launches"] <= launches
    assert counts["pageable"] == 0


def test_the_optimizer_waits_for_nothing(counted: dict[str, Any]) -> None:
    """The device skips steps; what LAMB uploads does not change in these."""
    found = {case: counts["optimizer"] for case, counts in counted["counts"].items() if "lans" not in case}
    assert sum("and a loss scale" in case for case in found) == 3
    assert all(counts == {"syncs": 0, "uploads": 0} for counts in found.values()), found


def test_every_planted_fault_is_caught(counted: dict[str, Any]) -> None:
    sound = counted["faults"].pop("no fault")
    assert sound == ""
    missed = [name for name, how in counted["faults"].items() if not how]
    assert len(counted["faults"]) >= 8 and not missed


def test_pretrain_runs_from_the_command_line_to_the_export(tmp_path: Path, small_corpus: Corpus) -> None:
    words = ("--model", "2x128", "--optimizer", "lamb", "--batch-size", "8", "--samples", "64", "--probe-seconds", "0")
    lengths = (
        "--sequence-lengths",
        "32",
        "64",
        "--evaluation-samples",
        "8",
        "--evaluations-per-phase",
        "1",
        "--trust-ratios-per-phase",
        "1",
    )
    run_folder = tmp_path / "run"
    report = run(
        "program",
        tmp_path / "r.json",
        "pretrain",
        "--corpus",
        small_corpus.path,
        *words,
        *lengths,
        "--out",
        run_folder,
    )
    assert report["code"] == 0, report["said"]
    assert len(report["steps"]) == 7  # of eight: the last is not followed by another
    records = [json.loads(line) for line in (run_folder / "journal.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["event"] == "step"] == list(range(1, 9))
    middle = report["steps"][3]
    assert middle["syncs"] <= 2 and middle["downloads"] == 1
    assert (run_folder / "huggingface" / "model.safetensors").exists()


@pytest.mark.parametrize(("workers", "made"), [((), {"batches_0": 4}), (("--data-workers", "1"), {})])
def test_the_training_thread_makes_no_batch(
    tmp_path: Path, small_corpus: Corpus, workers: tuple[str, ...], made: dict[str, int]
) -> None:
    """A thread of its own or a process makes all of them; the step uploads no more than it did."""
    words = ("--model", "1x64", "--batch-size", "8", "--samples", "32", "--sequence-lengths", "32", *workers)
    words += ("--probe-seconds", "0", "--evaluation-samples", "0", "--out", str(tmp_path / "run"))
    report = run("program", tmp_path / "r.json", "pretrain", "--corpus", small_corpus.path, *words)
    assert report["code"] == 0, report["said"]
    assert report["batches"] == made
    assert report["steps"] and all(step["uploads"] <= 7 for step in report["steps"])


def test_a_deterministic_run_asks_pytorch_for_deterministic_algorithms(tmp_path: Path, small_corpus: Corpus) -> None:
    words = ("--model", "1x64", "--batch-size", "8", "--samples", "16", "--sequence-lengths", "32")
    words += ("--probe-seconds", "0", "--evaluation-samples", "0", "--out", str(tmp_path / "run"))
    for flags in ((), ("--deterministic", "--fresh")):
        report = run("program", tmp_path / "r.json", "pretrain", "--corpus", small_corpus.path, *words, *flags)
        assert report["code"] == 0, report["said"]
        assert report["deterministic"] is bool(flags)
