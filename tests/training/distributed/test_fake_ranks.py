"""What a step of several ranks asks of a GPU and of the group, counted on a fake one: `fake_cuda.ranks`."""

from __future__ import annotations

from typing import Any

import pytest

from fake_cuda import build
from fake_cuda.report import run

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=build.missing() or "")


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run("ranks", tmp_path_factory.mktemp("fake_cuda") / "ranks.json")


def test_control_sums_do_not_touch_the_gpu(counted: dict[str, Any]) -> None:
    """A step of several ranks waits for its GPU no more often than one of a single rank, and uploads no more."""
    assert len(counted["counts"]) == 9
    for case, found in counted["counts"].items():
        assert found["syncs"] <= 2, (case, found["where"])
        assert not any("distributed/" in place for place in found["where"]), (case, found["where"])
        assert found["collectives on cpu"] == found["blocking on cpu"] <= 4, case
        assert found["blocking on cuda"] <= 1, case  # losses and counts of correct predictions


@pytest.mark.parametrize(
    ("case", "collectives"),
    [
        ("4 ranks, buckets", 2),
        ("4 ranks, bfloat16 reduction", 2),
        ("8 ranks, buckets", 2),
        ("4 ranks, tree", 2 * 2 * 4),  # gradients and losses: two halvings and two doublings, each sends and receives
        ("1024 ranks, tree", 2 * 2 * 20),
    ],
)
def test_gradients_are_reduced_on_the_gpu(counted: dict[str, Any], case: str, collectives: int) -> None:
    found = [one["collectives on cuda"] for name, one in counted["counts"].items() if name.startswith(case)]
    assert found and set(found) == {collectives}


def test_a_step_of_1024_ranks_asks_what_one_of_8_asks(counted: dict[str, Any]) -> None:
    few, many = (counted["counts"][f"{count} ranks, buckets, bfloat16-master"] for count in (8, 1_024))
    assert few == many


def test_a_reduction_in_the_wrong_place_is_seen(counted: dict[str, Any]) -> None:
    assert {"syncs", "uploads", "blocking on cuda"} <= set(counted["faults"]["control sums on the GPU"])
    assert {"syncs", "collectives on cpu"} <= set(counted["faults"]["gradients on the CPU"])


def test_a_group_with_gpus_has_a_backend_for_each_kind_of_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from lambert.training.distributed import process_group as module

    begun: dict[str, Any] = {}
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(module, "join_store", lambda seconds: None)
    monkeypatch.setattr(module, "_peers", lambda *_: None)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, **options: begun.update(backend=backend, **options)
    )
    processes = module.init_process_group()
    assert processes.device.type == "cuda"
    assert torch.distributed.BackendConfig(begun["backend"]).get_device_backend_map() == {"cpu": "gloo", "cuda": "nccl"}
