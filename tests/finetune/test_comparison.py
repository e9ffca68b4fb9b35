"""Several models through the same fine-tunings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lambert.cli.main import main
from lambert.errors import UserError
from lambert.finetune import job
from lambert.finetune.comparison import RANDOM_WEIGHTS, compare_models
from lambert.finetune.seeds import mean_interval
from lambert.report.fine_tuning import TWO_SEEDS

SHORT = {"epochs": 1, "sequence_length": 32}


def test_models_are_compared_by_the_same_seeds(
    tiny_places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [tiny_places["model"], shutil.copytree(tiny_places["model"], tmp_path / "other")]
    glue = Path(tiny_places["glue"]).parent
    arguments = {"data": [tiny_places["labels"]], "glue": glue, "tasks": ["rte"], "seeds": 2, "random_weights": True}
    compared = compare_models(models, out=tmp_path / "out", **arguments, **SHORT)  # type: ignore[arg-type]
    assert compared.models == ("model", "other", RANDOM_WEIGHTS) and compared.tasks == ("rte", "labels")
    assert [entry.model for entry in compared.entries] == [*compared.models] * 2
    first, other, _ = compared.entries[3:]
    assert first.difference is None and first.scored == ("macro_f1",)
    seeds = [json.loads((Path(entry.folder) / "finetune.json").read_text())["seeds"] for entry in (first, other)]
    differences = [theirs["score"] - ours["score"] for ours, theirs in zip(*seeds, strict=True)]
    assert other.difference == pytest.approx(sum(differences) / 2)
    assert other.difference_interval == pytest.approx(mean_interval(differences))
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == json.loads(json.dumps(compared.to_dict()))
    monkeypatch.setattr(job, "fine_tune", lambda *args, **options: pytest.fail("trained again"))
    again = compare_models(models, out=tmp_path / "out", **arguments, **SHORT)  # type: ignore[arg-type]
    assert again == compared


def test_from_the_command_line(tiny_places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = shutil.copytree(tiny_places["model"], tmp_path / "other")
    words = ["compare", tiny_places["model"], str(other), "--data", tiny_places["labels"], "--epochs", "1"]
    words += ["--glue", str(Path(tiny_places["glue"]).parent), "--tasks", "rte"]
    assert main([*words, "--out", str(tmp_path), "--sequence-length", "32", "--precision", "float32"]) == 0
    printed = capsys.readouterr().out
    assert "±" in printed and "labels" in printed
    page = (tmp_path / "report.html").read_text()
    assert "2 models compared" in page and "Minus model" in page
    assert page.count("On the development set") == 1 and "ModernBERT-base, 149M" in page


def test_two_seeds_get_no_interval(
    tiny_places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--epochs", "1", "--sequence-length", "32", "--seeds", "2"]
    compared = ["compare", tiny_places["model"], "--random-weights", "--data", tiny_places["labels"]]
    assert main([*compared, "--out", str(tmp_path), *words]) == 0
    printed = capsys.readouterr().out
    assert "±" not in printed and TWO_SEEDS in printed
    page = (tmp_path / "report.html").read_text()
    assert "±" not in page and TWO_SEEDS in page
    finetuned = ["finetune", tiny_places["model"], tiny_places["labels"], "--out", str(tmp_path / "own"), *words]
    assert main(finetuned) == 0
    assert TWO_SEEDS in capsys.readouterr().out


@pytest.mark.parametrize(
    ("models", "options", "said"),
    [
        ([], {"data": ["a.csv"]}, "no model is given"),
        (["{model}", "{model}"], {"data": ["a.csv"]}, "given twice"),
        (["{model}"], {}, "nothing to fine-tune on"),
        (["{model}"], {"tasks": ["rte"]}, "no folder of GLUE"),
        (["{model}"], {"tasks": ["rte"], "glue": "{empty}"}, "no folder for rte"),
        (["{model}"], {"data": ["a.csv", "b/a.csv"]}, "two tasks are called 'a'"),
        (["{empty}"], {"data": ["a.csv"]}, "config.json"),
        (["{model}"], {"data": ["{labels}", "no.csv"]}, "no.csv cannot be read"),
        (["{model}"], {"glue": "{glue}/..", "tasks": ["rte"], "own": {"label": "stars"}}, "`label` is of `data`, and"),
        (["{model}"], {"data": ["{labels}"], "own": {"label": "stars"}}, "no column 'stars'"),
    ],
)
def test_wrong_input(
    tiny_places: dict[str, str], tmp_path: Path, models: list[str], options: dict[str, object], said: str
) -> None:
    given = [model.format(**tiny_places) for model in models]
    options = {
        name: value.format(**tiny_places) if isinstance(value, str) else value for name, value in options.items()
    }
    if "data" in options:
        options["data"] = [name.format(**tiny_places) for name in options["data"]]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=said):
        compare_models(given, out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
