"""What is said after a training whose scores fell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lambert.embeddings.advice import advice


def said(
    folder: Path, before: float, after: float, metric: str = "spearman", cosines: tuple[float, float] = (0.8, 0.5)
) -> str:
    return " | ".join(
        advice(
            folder,
            SimpleNamespace(
                before={metric: before},
                after={metric: after},
                mean_cosine_before=cosines[0],
                mean_cosine_after=cosines[1],
            ),
        )
    )


def test_a_score_that_fell_is_said_with_what_to_do(tmp_path: Path) -> None:
    assert said(tmp_path / "model", 47.0, 47.0) == said(tmp_path / "model", 47.0, 50.0) == ""
    fell = said(tmp_path / "model", 60.9, 59.3)
    assert "spearman fell from 60.90 to 59.30" in fell and "try another `learning_rate`" in fell
    assert "ndcg@10 fell" in said(tmp_path / "model", 60.9, 59.3, "ndcg_at_10")
    unscored = SimpleNamespace(before=None, after=None, mean_cosine_before=0.8, mean_cosine_after=0.5)
    assert list(advice(tmp_path, unscored)) == []


@pytest.mark.parametrize(("loss", "is_plateau"), [(6.9, True), (6.61, True), (6.55, False), (4.0, False)])
def test_a_run_that_hardly_beat_the_unigram_baseline_is_to_be_trained_further(
    make_run_folder: Callable[..., Path], loss: float, is_plateau: bool
) -> None:
    run = make_run_folder()
    journal = run / "journal.jsonl"
    *_, step = [line for line in journal.read_text().splitlines() if '"step"' in line]
    last = json.loads(step)["step"]
    record = {"event": "evaluation", "time": 1.0, "step": last, "mlm_loss": loss, "unigram_loss": 7.1}
    journal.write_text(journal.read_text() + json.dumps(record) + "\n")
    fell = said(run / "huggingface", 47.7, 46.0)
    assert ("pre-train it further first" in fell) == is_plateau
    assert (f"MLM loss {loss:.2f}, unigram baseline 7.10" in fell) == is_plateau


def test_equal_vectors_are_said_once(tmp_path: Path) -> None:
    collapsed = said(tmp_path, 47.0, 3.0, cosines=(0.8, 0.99))
    assert "nearly equal now (mean cosine 0.80 before, 0.99 after): lower the `learning_rate`" in collapsed
    assert "fell" not in collapsed
    assert "fell" in said(tmp_path, 47.0, 46.0, cosines=(0.98, 0.97))  # as near before
