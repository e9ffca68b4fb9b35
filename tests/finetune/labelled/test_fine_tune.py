"""From a file of labelled examples to metrics and a model that `transformers.pipeline` opens."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from finetune.squad.articles import CAFE, HARBOUR
from lambert.cli.main import main
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.corpus.vocabulary import train_vocabulary
from lambert.errors import UserError
from lambert.finetune import best_model, job
from lambert.finetune.labelled.api import fine_tune, read_examples
from lambert.finetune.labelled.sequences import LabelledSettings
from lambert.model.bert import BertConfig
from lambert.model.heads import pretraining_model
from lambert.model.huggingface import save_model
from lambert.model.modernbert import ModernBertConfig
from lambert.report import write_finetune_page

SETTINGS = LabelledSettings(learning_rate=5e-3, epochs=30, batch_size=8, micro_batch_size=4, sequence_length=24)
WORDS = HARBOUR.split()
GOOD, BAD = "harbour pier boats", "storm broke the lamp"
SIZES: dict[str, Any] = {
    "layers": 1, "hidden_size": 32, "attention_heads": 2, "feed_forward_size": 64, "maximum_positions": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_vocabulary([HARBOUR, CAFE, "Edna Harbour pier good bad"] * 3, 400, cased=False)


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def folder(request: pytest.FixtureRequest, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    entries = tokenizer.get_vocab_size()
    config = BertConfig(vocabulary_size=entries, dropout=0.0, **SIZES)
    if request.param == "modernbert":
        config = ModernBertConfig(vocabulary_size=entries, **SIZES)
    path = tmp_path_factory.mktemp("labelled") / request.param
    save_model(pretraining_model(config), path)
    save_tokenizer(tokenizer, path)
    return path


def rows(label: Callable[[int], Any], count: int = 24) -> list[dict[str, Any]]:
    """Texts whose label `label` knows from whether they are good."""
    return [{"text": f"{GOOD if n % 2 else BAD} {WORDS[n]}", "label": label(n % 2)} for n in range(count)]


def test_classes(folder: Path, tmp_path: Path) -> None:
    train = rows(lambda good: "very good" if good else "bad")
    result = fine_tune(folder, train, dev=train, settings=SETTINGS, seeds=2, out=tmp_path)
    assert result.kind == "classification" and result.labels == ("bad", "very good")
    assert result.score == result.metrics["macro_f1"] == 100.0
    assert result.majority_baseline["accuracy"] == pytest.approx(50.0)
    assert result.details["confusion"]["counts"] == [[12, 0], [0, 12]] and result.details["errors"] == []
    assert result.data["examples_by_label"] == {"bad": 12, "very good": 12}
    said = transformers.pipeline("text-classification", str(tmp_path / "model"))([row["text"] for row in train])
    assert [one["label"] for one in said] == [row["label"] for row in train]
    assert json.loads((tmp_path / "predictions-seed-1.json").read_text()) == [row["label"] for row in train]


def test_several_labels(folder: Path, tmp_path: Path) -> None:
    train = rows(lambda good: ["sea", "good"] if good else ["sea"])
    result = fine_tune(folder, train, dev=train, settings=SETTINGS, out=tmp_path)
    assert result.kind == "multi-label" and result.metrics["exact_match"] == 100.0
    pipeline = transformers.pipeline("text-classification", str(tmp_path / "model"), top_k=None)
    scores = {one["label"]: one["score"] for one in pipeline([BAD])[0]}
    assert scores["sea"] > 0.5 > scores["good"]  # sigmoids, which need not add up to 1


@pytest.mark.parametrize("several", [False, True])
def test_a_label_without_development_examples_has_no_f1(folder: Path, tmp_path: Path, several: bool) -> None:
    train = [row | {"label": [row["label"]] if several else row["label"]} for row in rows(lambda good: "ab"[good])]
    other = [{"text": "the lighthouse", "label": ["c"] if several else "c"}]
    result = fine_tune(folder, train + other, dev=train, settings=SETTINGS, out=tmp_path)
    scores = {one["label"]: (one["precision"], one["recall"], one["f1"]) for one in result.details["classes"]}
    assert scores == {"a": (100, 100, 100), "b": (100, 100, 100), "c": (None, None, None)}
    assert result.metrics["macro_f1"] == 100.0
    page = write_finetune_page(result.to_dict(), tmp_path / "report.html").read_text()
    assert '<td class="">c</td><td class="number">–</td>' in page
    assert "neither given nor predicted" in page
    given = write_finetune_page(fine_tune(folder, train, dev=train, settings=SETTINGS).to_dict(), tmp_path / "b.html")
    assert "neither given nor predicted" not in given.read_text()


def test_numbers(folder: Path, tmp_path: Path) -> None:
    train = rows(lambda good: 4.5 if good else 1.25)
    result = fine_tune(folder, train, dev=train, settings=SETTINGS, out=tmp_path)
    assert result.kind == "regression" and result.metrics["pearson"] > 95 and result.metrics["rmse"] < 0.5
    pipeline = transformers.pipeline("text-classification", str(tmp_path / "model"))
    assert pipeline(GOOD)[0]["score"] == pytest.approx(4.5, abs=0.6)


@pytest.mark.parametrize(("factor", "offset"), [(1e3, 0.5), (1e-4, 0.0), (1.0, 2e4)])
def test_numbers_of_any_scale_are_learned_alike(folder: Path, tmp_path: Path, factor: float, offset: float) -> None:
    plain = rows(lambda good: 4.5 if good else 1.25)
    scaled = [row | {"label": row["label"] * factor + offset} for row in plain]
    first = fine_tune(folder, plain, dev=plain, settings=SETTINGS)
    second = fine_tune(folder, scaled, dev=scaled, settings=SETTINGS, out=tmp_path)
    assert second.metrics["pearson"] == pytest.approx(first.metrics["pearson"], abs=0.5)
    assert second.metrics["rmse"] == pytest.approx(first.metrics["rmse"] * factor, rel=0.02)
    assert second.data["label_scale"]["mean"] == pytest.approx(2.875 * factor + offset)
    assert second.data["label_scale"]["deviation"] == pytest.approx(1.625 * factor)  # half of 4.5 − 1.25
    pipeline = transformers.pipeline("text-classification", str(tmp_path / "model"))
    said = [one["score"] for one in pipeline([row["text"] for row in scaled], function_to_apply="none")]
    # float32 holds 2e4 to some 1e-3
    assert said == pytest.approx(list(second.seeds[0].predictions), abs=1e-4 * factor + 1e-6 * offset)


def test_a_model_no_better_than_a_constant_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    still: dict[str, Any] = {"learning_rate": 1e-9, "epochs": 1, "sequence_length": 24}
    train = rows(lambda good: 4.5 if good else 1.25)
    fine_tune(folder, train, dev=[train[0] | {"label": 2.875}, *train[1:]], **still)
    assert "no better than always predicting the mean of the training labels (rmse " in caplog.text
    caplog.clear()
    words = [*rows(str), *rows(lambda good: "0", 10)]
    fine_tune(folder, words, dev=words, **still)
    assert "no better than always predicting the most frequent label (macro_f1 " in caplog.text
    caplog.clear()
    fine_tune(folder, train, dev=train, settings=SETTINGS)
    assert "no better" not in caplog.text and "float32" not in caplog.text
    close = rows(lambda good: 1.7e9 + good / 2)
    read_examples(close, dev=close)
    assert "near 1.7e+09 and differ by some 0.25, which float32 hardly tells apart" in caplog.text


def test_tags(folder: Path, tmp_path: Path) -> None:
    names = ("Edna", "Harbour", "pier")
    train = [
        {"words": ["the", names[n % 3], *GOOD.split(), WORDS[n]], "tags": ["O", "B-NAME", *"OOOO"]} for n in range(24)
    ]
    result = fine_tune(folder, train, dev=train, settings=SETTINGS, out=tmp_path)
    assert result.kind == "tags" and result.metrics["span_f1"] == 100.0 > result.majority_baseline["span_f1"]
    pipeline = transformers.pipeline("token-classification", str(tmp_path / "model"), aggregation_strategy="first")
    found = pipeline("the Edna harbour pier boats")
    assert [(one["entity_group"], one["word"].strip()) for one in found] == [("NAME", "edna")]


def test_the_best_seed_is_kept_and_made_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, short = rows(str), {"epochs": 1, "learning_rate": 1e-3, "sequence_length": 24}
    first = fine_tune(folder, train, dev=train, seeds=3, out=tmp_path, **short)
    assert first.best_seed == max(first.seeds, key=lambda one: (one.score, -one.seed)).seed
    record = tmp_path / "model" / "fine_tuning.json"
    assert json.loads(record.read_text())["seed"] == first.best_seed
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    (tmp_path / "model" / "model.safetensors").unlink()
    record.unlink()
    trained: list[int] = []
    fine_tune_job = job.fine_tune
    monkeypatch.setattr(
        job, "fine_tune", lambda *args, **options: (trained.append(options["seed"]), fine_tune_job(*args, **options))[1]
    )
    fine_tune(folder, train, dev=train, seeds=3, out=tmp_path, **short)
    assert trained == [first.best_seed]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights
    fine_tune(folder, train, dev=train, seeds=3, out=tmp_path, **short)
    assert trained == [first.best_seed]


def test_a_model_that_cannot_be_written_loses_no_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, short = rows(str), {"epochs": 1, "learning_rate": 1e-3, "sequence_length": 24}
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched, pytest.raises(UserError, match="the disk is full"):
        patched.setattr(best_model, "save_model", Mock(side_effect=full))
        fine_tune(folder, train, dev=train, seeds=2, out=tmp_path, **short)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["seed-0.json"]
    result = fine_tune(folder, train, dev=train, seeds=2, out=tmp_path, **short)
    assert [one.reused for one in result.seeds] == [True, False]
    record = json.loads((tmp_path / "model" / "fine_tuning.json").read_text())
    assert record["seed"] == result.best_seed


def test_a_rate_is_chosen_on_held_out_training_examples(folder: Path) -> None:
    train = rows(str)
    result = fine_tune(folder, train, dev=train[:4], learning_rates=(1e-6, 5e-3), epochs=10, sequence_length=24)
    assert [trial.learning_rate for trial in result.trials] == [1e-6, 5e-3]
    assert result.settings.learning_rate == max(result.trials, key=lambda trial: trial.score or 0).learning_rate


@pytest.mark.parametrize(
    ("examples", "options", "said"),
    [
        ([{"text": "a b", "label": "x"}] * 3, {}, "only one text"),
        (rows(lambda good: "same"), {}, "all training labels are 'same'"),
        (rows(lambda good: 2.5), {}, "all training labels are 2.5, so there is nothing to predict"),
        (rows(lambda good: 2.5 + good * 1e200), {}, "the label in entry 2 is 1e[+]200, and float32 ends at 1e[+]38"),
        ([], {}, "list of examples is empty"),
        (rows(str), {"label": "stars"}, "no column 'stars'.*`label`; there is 'text', 'label'"),
        (rows(str), {"task": "sentiment"}, "unknown kind of labels"),
        (rows(str), {"dev_fraction": 1.5}, "dev_fraction"),
        (
            rows(str),
            {"dev": rows(str), "dev_fraction": 0.1},
            "both `dev` and `dev_fraction` are given. Give one of them",
        ),
        (rows(str), {"task": "classification", "label_separator": "|"}, "`label_separator` is for multi-label"),
        ([{"text": " ", "label": "x"}] * 3, {}, "'text' is empty"),
        ([{"body": "a", "other": "b", "label": 1}], {"text": ()}, None),
        ([{"one": "a", "other": "b", "label": 1}], {}, "which column of the list holds the texts"),
        ([{"text": "a", "colour": "b", "size": 1}], {}, "which column of the list holds the labels"),
        (rows(str), {"learning_rates": (1e-3,), "learning_rate": 1e-3}, "both `learning_rate`"),
    ],
)
def test_wrong_input(folder: Path, examples: list[Any], options: dict[str, Any], said: str | None) -> None:
    if said is None:
        said = "only one text"
    with pytest.raises(UserError, match=said):
        fine_tune(folder, examples, **options)


def test_labels_that_differ_by_case_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    train = [
        {"text": f"{GOOD} {word}", "label": ("So so", "so  So", "bad", "Bad", "good")[n % 5]}
        for n, word in enumerate(WORDS)
    ]
    read_examples(train)
    assert caplog.text.count("case or spaces alone") == 1
    assert "'so  So' and 'So so'; 'bad' and 'Bad'. Write them in one way" in caplog.text


def test_a_development_file_needs_the_same_columns(folder: Path) -> None:
    other = [{"sentence": GOOD, "label": "0"}]
    with pytest.raises(UserError, match=r"no column 'text', as the training examples do.*there is 'sentence', 'label'"):
        fine_tune(folder, rows(str), dev=other, settings=SETTINGS)


def test_few_development_examples_are_told(caplog: pytest.LogCaptureFixture) -> None:
    read_examples(rows(str), dev=rows(str) * 5)
    assert "by chance alone" not in caplog.text
    read_examples(rows(str), dev=rows(str)[:4])
    assert "Only 4 examples to measure on: by chance alone an accuracy may be wrong by some 49 points" in caplog.text


def test_one_text_with_several_labels(caplog: pytest.LogCaptureFixture) -> None:
    words = [*rows(str), {"text": f"{BAD} {WORDS[0]}", "label": "1"}]
    read_examples(words, dev=words[:1])
    assert "1 text occurs with several labels, the first in entry 1 and " in caplog.text
    assert "1 of 1 development texts is a training text, too" in caplog.text and "Only 1 example to" in caplog.text
    again = [*words, {"text": f"{GOOD} {WORDS[1]}", "label": "0"}]
    assert read_examples(again, dev=words[:1]).data["conflicts"] == 2 and "2 texts occur with" in caplog.text
    numbers = rows(lambda good: 4.5 if good else 1.25)  # standard deviation 1.6
    for other, found in ((1.3, 0), (4.0, 1)):
        examples = read_examples([*numbers, numbers[0] | {"label": other}], dev=numbers)
        assert examples.data["conflicts"] == found


def test_the_baseline_by_its_name(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tags.conll"
    file.write_text("\n\n".join(f"the O\n{word} B-X\nboats O" for word in WORDS[:30]))
    assert main(["finetune", str(folder), str(file), "--out", str(tmp_path / "out"), "--epochs", "1"]) == 0
    assert "; always O: span_f1 0.00" in capsys.readouterr().out
    assert "always O" in (tmp_path / "out" / "report.html").read_text()


def test_from_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "reviews.csv", tmp_path / "out"
    lines = ["id,review,sentiment", *(f'{n},"{GOOD if n % 2 else BAD}, <b>{WORDS[n]}</b>",{n % 2}' for n in range(40))]
    file.write_text("\n".join([*lines, '99,"",1', "100,storm broke the lamp,"]) + "\n")
    command = ["finetune", str(folder), str(file), "--out", str(out), "--seeds", "2", "--epochs", "1", "--json"]
    assert main([*command, "--precision", "float32"]) == 0
    printed = capsys.readouterr()
    results = json.loads(printed.out.splitlines()[-1])
    assert results == json.loads((out / "finetune.json").read_text())
    assert "classification: texts in 'review', labels in 'sentiment'" in printed.out
    assert "1 of 42 rows is left out, first in line 42: 'review' is empty" in printed.err
    assert "; majority-class baseline: macro_f1" in printed.out
    file.with_name("numbers.csv").write_text("\n".join(["text,label", *(f"{GOOD} {n},{n}.5" for n in range(40))]))
    numbers = ["finetune", str(folder), str(tmp_path / "numbers.csv"), "--out", str(tmp_path / "numbers")]
    assert main([*numbers, "--epochs", "1", "--precision", "float32"]) == 0
    assert "; mean of the training examples: pearson 0.00" in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert "Confusion" in page and "<b>" not in page
    assert main(["finetune", str(folder), str(file), "--out", str(out), "--label", "stars"]) == 2
    assert "no column 'stars'" in capsys.readouterr().err
    assert main(["finetune", str(folder), str(tmp_path / "none.csv"), "--out", str(out)]) == 2
