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
from report.fine_tuning_facts import squad_facts

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


def test_the_card_of_a_model_of_questions_and_of_a_task_of_glue(tmp_path: Path) -> None:
    for name, record in (("squad", squad_facts()), ("glue", FACTS | {"task": "mrpc", "data": {"texts": ["a", "b"]}})):
        write_model(tmp_path / name / "model", "bert")
        (tmp_path / name / f"{name}.json").write_text(json.dumps(record))
        assert main(["export", str(tmp_path / name), str(tmp_path / f"out-{name}")]) == 0
    card = (tmp_path / "out-squad" / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n", 2)[1])["pipeline_tag"] == "question-answering"
    for said in (
        "fine-tuned on SQuAD v2.0 (answers), 130,319 examples",
        "AutoModelForQuestionAnswering.from_pretrained(",
        "|  | model, mean of 3 seeds |\n| --- | --- |\n| Exact match | 61.0 |\n| F1 | 71.0 |",
        "95 % interval of the score over the seeds: 68.5 to 73.5",
    ):
        assert said in card
    assert "pipeline(" not in card and "frequent" not in card
    assert '"text_pair": "another"' in (tmp_path / "out-glue" / "README.md").read_text()


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
