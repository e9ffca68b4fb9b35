"""The card of a fine-tuned model says what `finetune.json` says, and the Hub can read its metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.embeddings.models import write_model

from lambert.cli.main import main
from lambert.report.finetune_card import render

FACTS: dict[str, Any] = {
    "task": "reviews",
    "kind": "classification",
    "metrics": {"macro_f1": 81.26, "accuracy": 90.0},
    "majority_baseline": {"macro_f1": 33.3, "accuracy": 50.0},
    "score_interval": [79.0, 83.5],
    "confidence": 0.95,
    "train_examples": 1_800,
    "dev_examples": 200,
    "settings": {"epochs": 3, "learning_rate": 1e-4},
    "seeds": [{}, {}, {}],
    "best_seed": 2,
    "data": {"texts": ["title", "body"], "examples_by_label": {"good | fine": 1_000, "bad": 800}},
}


def test_the_card_of_a_fine_tuned_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "reviews"
    write_model(run / "model", "bert")
    (run / "finetune.json").write_text(json.dumps(FACTS))
    for number, source in enumerate((run, run / "model")):
        assert main(["export", str(source), str(tmp_path / f"out{number}")]) == 0
        assert "Model card" in capsys.readouterr().out
        assert (tmp_path / f"out{number}" / "README.md").read_text() == render(FACTS, name="reviews")
    metadata, text = render(FACTS, name="reviews").split("---\n", 2)[1:]
    assert yaml.safe_load(metadata)["pipeline_tag"] == "text-classification"
    assert yaml.safe_load(metadata)["metrics"] == ["macro_f1", "accuracy"]
    for said in (
        "mean of 3 seeds",
        "| Macro F1 | 81.3 | 33.3 |",
        "95 % interval of the score over the seeds: 79.0 to 83.5",
        "| good \\| fine | 1,000 |",
        "On 200 other examples",
        '{"text": "one", "text_pair": "another"}',
        "seed 2, the best of 3",
        "learning rate 0.0001",
    ):
        assert said in text


def test_a_damaged_record_costs_the_card_and_not_the_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path / "model", "bert")
    for number, record in enumerate(("{", "[]", '{"kind": "tags"}')):
        (tmp_path / "finetune.json").write_text(record)
        assert main(["export", str(tmp_path), str(tmp_path / f"out{number}")]) == 0
        assert "has no card" in capsys.readouterr().err
        assert not (tmp_path / f"out{number}" / "README.md").exists()


def test_the_tags_of_words_have_their_own_pipeline() -> None:
    card = render(FACTS | {"kind": "tags", "data": {}, "score_interval": None, "seeds": [{}]}, name="dates")
    assert "pipeline_tag: token-classification" in card and '("a text")' in card
    assert "## Labels" not in card and "interval" not in card and "seeds" not in card.split("## Training")[0]
