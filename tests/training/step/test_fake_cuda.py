"""What training asks of a GPU, counted on one that computes nothing (`fake_cuda`): syncs, copies, launches, devices."""

from __future__ import annotations

from typing import Any

import pytest

from fake_cuda import build
from fake_cuda.report import run

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
        ("2 layers, lans, bfloat16-autocast", 303),
        ("2 layers, lars, bfloat16-autocast", 148),
        ("2 layers, muon, bfloat16-master", 234),
        ("2 layers, adamw, float32", 86),
    ],
)
def test_a_step_waits_for_the_device_and_launches_no_more_than_it_must(
    counted: dict[str, Any], case: str, launches: int
) -> None:
    counts = counted["counts"][case]
    assert counts["syncs"] <= 1, counts["where"]
    assert counts["launches"] <= launches
    assert counts["pageable"] == 0


def test_the_optimizer_waits_for_nothing(counted: dict[str, Any]) -> None:
    """The device skips steps; what LAMB uploads does not change in these."""
    found = {case: counts["optimizer"] for case, counts in counted["counts"].items()}
    assert sum("and a loss scale" in case for case in found) == 3
    assert all(counts == {"syncs": 0, "uploads": 0} for counts in found.values()), found


def test_every_planted_fault_is_caught(counted: dict[str, Any]) -> None:
    sound = counted["faults"].pop("no fault")
    assert sound == ""
    missed = [name for name, how in counted["faults"].items() if not how]
    assert len(counted["faults"]) >= 8 and not missed
