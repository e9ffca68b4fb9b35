"""Shards of layers over 2 and 4 Gloo processes, with uneven rows, equal the whole update."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("sharded_program.py")
CLOSE = 1e-6


def results_of(processes: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    ended = subprocess.run([*command, str(PROGRAM)], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    results: dict[str, Any] = json.loads(next(line for line in ended.stdout.splitlines() if line.startswith("{")))
    return results


def check(results: dict[str, Any], name: str, all_reduces: int) -> None:
    for way in ("", "plain "):
        assert results[way + name]["difference"] <= CLOSE, (way + name, results[way + name])
        assert results[way + name]["all_reduces"] == all_reduces, (way + name, results[way + name])


@pytest.fixture(scope="module")
def two() -> dict[str, Any]:
    return results_of(2)


@pytest.fixture(scope="module")
def four() -> dict[str, Any]:
    return results_of(4)


@pytest.mark.parametrize("processes", ["two", "four"])
def test_one_dimension_takes_one_reduction_for_all_norms(processes: str, request: pytest.FixtureRequest) -> None:
    results = request.getfixturevalue(processes)
    check(results, "rows", 1)
    check(results, "rows, clipped", 2)  # one more for the global norm
    check(results, "copies", 0)
    check(results, "sliced rows", 1)
    check(results, "fully_shard", 2)


@pytest.mark.parametrize(
    ("name", "all_reduces"), [("LARS, rows", 1), ("LANS, rows", 2), ("LARS of 2017, rows", 1), ("Hyperball, rows", 2)]
)
def test_other_rules_over_shards(name: str, all_reduces: int, two: dict[str, Any]) -> None:
    assert two[name]["difference"] <= CLOSE
    assert two[name]["all_reduces"] == all_reduces


def test_two_dimensions_take_a_reduction_each_and_count_no_copy_twice(four: dict[str, Any]) -> None:
    check(four, "rows by columns", 4)
    check(four, "rows by copies", 2)
    check(four, "copies by columns", 2)
    check(four, "rows twice", 4)
    check(four, "hybrid fully_shard", 1)


def test_flat_shards_of_fsdp1_are_refused(two: dict[str, Any]) -> None:
    said = two["fsdp1"].split(" | ")
    assert len(said) == 2 and all("flat shard of FSDP1" in one for one in said), said


def test_a_shard_of_a_matrix_is_refused_where_whole_ones_are_needed(two: dict[str, Any]) -> None:
    assert "MuonHyperball needs whole matrices, and a parameter of shape (6, 6) is sharded" in two["Muon's direction"]
