"""`plan --dry-run`: what is printed, and what is refused on one line."""

from __future__ import annotations

import json

import pytest

from lambert.cli.main import main
from lambert.corpus.store import Corpus
from lambert.planning.memory import PROCESS_BYTES

CALL = [
    *("plan", "--model", "2x64", "--batch-size", "48", "24", "--samples", "4800", "--micro-batch-size", "4"),
    *("--precision", "float32", "--optimizer", "lamb"),
]


def test_a_plan_on_simulated_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CALL, "--dry-run", "6", "--json"]) == 0
    output = capsys.readouterr().out
    results = json.loads(output.splitlines()[-1])
    found, parameters = results["dry_run"], results["parameters"]
    assert "phase 1   12 micro-batches, 2 a rank" in output and "goes to exactly one" in output
    assert found["replicated"]["state_bytes"] == 16 * parameters
    assert found["replicated"]["phases"][0]["collectives"] == {"all-reduce": {"number": 1, "bytes": 4 * parameters}}
    assert found["replicated"]["phases"][0]["ring_bytes"] == round(2 * 5 / 6 * 4 * parameters)
    sharded = found["sharded"]
    assert sharded["parameters"] == parameters and 6 * sharded["parameters_least"] < parameters
    numbers = [[kind["number"] for kind in phase["collectives"].values()] for phase in sharded["phases"]]
    assert numbers == [[2 * 5, 3], [4 * 5, 3]]  # two and four micro-batches of two layers and the rest
    for way in (found["replicated"], sharded):
        for phase in way["phases"]:
            assert phase["memory_bytes"] > phase.get("state_bytes", found["replicated"]["state_bytes"])
    # A simulated rank may be a GPU; the plan is for a process here.
    assert found["replicated"]["phases"][1]["memory_bytes"] == results["memory_bytes"] - PROCESS_BYTES
    assert [shares["most"] for shares in found["samples"]] == [2, 4]


def test_ranks_that_wait_and_shards_that_cannot_be(small_corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CALL, "--corpus", str(small_corpus.path), "--dry-run", "5"]) == 0
    output = capsys.readouterr().out
    assert "12 micro-batches, 2 of 5 ranks do 3, the others 2: 20 % of all ranks' time is waiting" in output
    assert "48 examples of the corpus goes to exactly one" in output
    assert "sharded   not possible: 5 ranks of a sharded model" in output and "remedy" not in output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--dry-run", "0"], "a dry run of 0 ranks"),
        (["--dry-run", "2000"], "from 2 to 1,024"),
        (["--dry-run", "13"], "13 ranks for 12 micro-batches of phase 1"),
        (["--dry-run", "4", "--cluster", "tpu-v3", "--chips", "4"], "--dry-run with --cluster"),
        (["--dry-run", "4", "--chips", "4"], "--dry-run with --cluster or --chips"),
        (["--dry-run", "many"], "many"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CALL, *words]) == 2
    assert told in capsys.readouterr().err
