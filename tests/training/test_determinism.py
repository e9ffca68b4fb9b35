"""A deterministic run on a GPU asks PyTorch for deterministic algorithms; one on a CPU changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import lambert
from lambert.corpus.store import Corpus
from lambert.training.determinism import use_deterministic_algorithms


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    filled = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


def test_on_a_gpu_pytorch_and_cublas_are_told() -> None:
    use_deterministic_algorithms(torch.device("cuda"))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()  # attention would keep its atomics
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_workspace_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    use_deterministic_algorithms(torch.device("cuda", 0))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_on_a_cpu_nothing_changes(tmp_path: Path, small_corpus: Corpus) -> None:
    lambert.Trainer(
        small_corpus,
        out=tmp_path,
        model="1x64",
        batch_size=8,
        samples=16,
        sequence_lengths=(32,),
        probe_seconds=0,
        deterministic=True,
    )
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
