"""Several seeds and rates: what is kept and not done again, what is refused, v2.0 from training to the files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from finetune.squad.articles import CAFE, HARBOUR
from lambert.corpus.vocabulary import save_tokenizer
from lambert.errors import UserError
from lambert.finetune.loop import Diverged
from lambert.finetune.squad import comparison
from lambert.finetune.squad.comparison import fine_tune_and_evaluate
from lambert.finetune.squad.data import Answer, Question, QuestionFile
from lambert.finetune.squad.features import SquadSettings
from lambert.finetune.squad.prediction_files import score_file
from lambert.finetune.squad.results import result_fields, write_result
from lambert.finetune.squad.settings import FineTuneProgress, SquadSettings
from lambert.finetune.squad.tuning import RateTrial, choose, divide
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import save_model

ASKED = [
    ("Who was the engineer of the harbour?", HARBOUR, "Edna Marlowe"),
    ("When was the harbour built?", HARBOUR, "1843"),
    ("What did it cost?", HARBOUR, "12,500 pounds"),
    ("Where is the café?", CAFE, "São Paulo"),
    ("Who lent money?", CAFE, "日本銀行"),
]
QUESTIONS = [
    Question(f"q{index}", asked, context, (Answer(text, context.index(text)),), article=context is CAFE)
    for index, (asked, context, text) in enumerate(ASKED)
]
UNANSWERED = [Question("n0", "Who painted the lamp?", HARBOUR, ()), Question("n1", "Who ate cake?", CAFE, (), 1)]
SETTINGS = SquadSettings(
    learning_rate=3e-3,
    epochs=1,
    batch_size=8,
    shape=SquadSettings(sequence_length=64, document_stride=24, question_length=16),
)
RATED = dataclasses.replace(SETTINGS, learning_rate=None)


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pre-trained model without dropout (with random weights)."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("squad") / "model"
    config = BertConfig(
        vocabulary_size=tokenizer.get_vocab_size(), layers=2, hidden_size=64, attention_heads=2, feed_forward_size=128,
        maximum_positions=64, dropout=0.0,
    )  # fmt: skip
    save_model(BertForPreTraining(config), path)
    save_tokenizer(tokenizer, path)
    return path


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float, int]]:
    """(seed, rate, questions) of every fine-tuning that is really done."""
    done: list[tuple[int, float, int]] = []
    real = comparison.fine_tune

    def counted(model: Any, tokenizer: Any, questions: Any, settings: Any, *, seed: int, progress: Any) -> Any:
        done.append((seed, settings.learning_rate, len(questions)))
        return real(model, tokenizer, questions, settings, seed=seed, progress=progress)

    monkeypatch.setattr(comparison, "fine_tune", counted)
    return done


Trained = list[tuple[int, float, int]]


def test_finished_seeds_are_not_done_again(folder: Path, tmp_path: Path, trained: Trained) -> None:
    keep = tmp_path / "kept"
    first = fine_tune_and_evaluate(folder, QUESTIONS, QUESTIONS, SETTINGS, seeds=(0, 1), keep=keep)
    assert [seed for seed, _, _ in trained] == [0, 1]
    again = fine_tune_and_evaluate(folder, QUESTIONS, QUESTIONS, SETTINGS, seeds=(0, 1, 2), keep=keep)
    assert [seed for seed, _, _ in trained] == [0, 1, 2]
    assert [seed.reused for seed in again.seeds] == [True, True, False]
    for before, after in zip(first.seeds, again.seeds, strict=False):
        assert dataclasses.replace(after, reused=False) == before
    (keep / "seed-1.json").write_text('{"made_from": ')  # damaged: done again, and the same as before
    mended = fine_tune_and_evaluate(folder, QUESTIONS, QUESTIONS, SETTINGS, seeds=(0, 1), keep=keep)
    assert [seed for seed, _, _ in trained] == [0, 1, 2, 1]
    assert mended.seeds[1].predictions == first.seeds[1].predictions and mended.f1 == first.f1
    assert not list(keep.glob("*.partial"))


def test_what_was_made_from_something_else_is_refused_before_any_work(
    folder: Path, tmp_path: Path, trained: Trained
) -> None:
    def ask(settings: SquadSettings = SETTINGS, dev: list[Question] = QUESTIONS, **others: Any) -> None:
        fine_tune_and_evaluate(folder, QUESTIONS, dev, settings, seeds=(4, 0), keep=tmp_path, **others)

    fine_tune_and_evaluate(folder, QUESTIONS, QUESTIONS, SETTINGS, seeds=(0,), keep=tmp_path)
    with pytest.raises(UserError, match=r"seed-0.json .*\(settings.epochs: 1 there, 2 now\)"):
        ask(dataclasses.replace(SETTINGS, epochs=2))
    with pytest.raises(UserError, match=r"settings.learning_rate: 0.003 there, 0.0003 now"):
        ask(RATED)
    with pytest.raises(UserError, match=r"questions.dev: \w{12}… there, \w{12}… now"):
        ask(dev=QUESTIONS[:2])
    with pytest.raises(UserError, match=r"random_weights: False there, True now.*--fresh"):
        ask(random_weights=True)
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.1}))
    with pytest.raises(UserError, match=r"\(model: \w{12}… there"):
        fine_tune_and_evaluate(other, QUESTIONS, QUESTIONS, SETTINGS, seeds=(0,), keep=tmp_path)
    assert len(trained) == 1


def test_rates_are_tried_on_held_out_training_questions_with_the_first_seed(
    folder: Path, tmp_path: Path, trained: Trained
) -> None:
    division = divide(QUESTIONS)
    told: list[Any] = []
    stages: list[FineTuneProgress] = []
    asked: dict[str, Any] = {"keep": tmp_path, "learning_rates": (1e-30, 3e-3)}
    result = fine_tune_and_evaluate(
        folder, QUESTIONS, QUESTIONS, RATED, seeds=(5, 6), tuned=told.append, progress=stages.append, **asked
    )
    tuning = result.tuning
    assert tuning is not None and told == [tuning] and tuning.seed == 5
    learned = len(division.learned)
    assert trained[:2] == [(5, 1e-30, learned), (5, 3e-3, learned)]
    assert trained[2:] == [(5, result.learning_rate, 5), (6, result.learning_rate, 5)]
    assert result.learning_rate == tuning.learning_rate == choose(tuning.trials)
    assert (tuning.learned_questions, tuning.held_out_questions) == (learned, len(division.held_out))
    assert tuning.held_out == f"1 of 2 paragraphs of the training file, {len(division.held_out)} of 5 questions"
    parts = list(dict.fromkeys(stage.part for stage in stages))
    assert parts == [
        "learning rate 1e-30 (1 of 2)",
        "learning rate 0.003 (2 of 2)",
        "seed 5 (1 of 2)",
        "seed 6 (2 of 2)",
    ]
    again = fine_tune_and_evaluate(folder, QUESTIONS, QUESTIONS, RATED, seeds=(5, 6), **asked)
    assert len(trained) == 4 and again.tuning == tuning and again.f1 == result.f1
    written = json.loads(json.dumps(result_fields(result)))
    assert [trial["learning_rate"] for trial in written["tuning"]["trials"]] == [1e-30, 3e-3]


def test_a_rate_that_diverges_is_only_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Trained
) -> None:
    counted = comparison.fine_tune

    def diverging(model: Any, tokenizer: Any, questions: Any, settings: Any, **others: Any) -> Any:
        done = counted(model, tokenizer, questions, settings, **others)
        if settings.learning_rate == 1.0:
            raise Diverged("the loss became nan at step 1", remedy="Lower the learning rate")
        return done

    monkeypatch.setattr(comparison, "fine_tune", diverging)
    for _ in range(2):  # the second time from what is kept
        result = fine_tune_and_evaluate(folder, QUESTIONS, QUESTIONS, RATED, learning_rates=(1.0, 1e-3), keep=tmp_path)
        assert result.tuning is not None and result.learning_rate == 1e-3
        assert result.tuning.trials[0] == RateTrial(1.0, None, None, None, "the loss became nan at step 1")
    assert len(trained) == 3


def test_the_best_rate_and_of_equals_the_lowest() -> None:
    def trial(rate: float, f1: float | None) -> RateTrial:
        return RateTrial(rate, f1, f1, 1.0, None if f1 is not None else "it diverged")

    assert choose([trial(5e-5, 70.0), trial(3e-5, 80.0), trial(1e-4, 75.0)]) == 3e-5
    assert choose([trial(5e-5, 80.0), trial(3e-5, 80.0), trial(1e-4, 1.0)]) == 3e-5
    with pytest.raises(UserError, match=r"no learning rate came to an end \(it diverged\)"):
        choose([trial(1e-4, None)])


def test_a_tenth_is_held_out_by_whole_articles() -> None:
    questions = [Question(f"q{n}", "?", f"context {n // 3}", (Answer("c", 0),), article=n // 10) for n in range(300)]
    division = divide(questions)
    assert (division.unit, division.units, division.all_units) == ("articles", 3, 30)
    assert len(division.held_out) == 30 and len(division.learned) == 270
    assert not {q.article for q in division.held_out} & {q.article for q in division.learned}
    assert divide(questions) == division
    few = divide([dataclasses.replace(question, article=0) for question in questions])
    assert few.unit == "paragraphs" and few.units == 10
    assert not {q.context for q in few.held_out} & {q.context for q in few.learned}
    with pytest.raises(UserError, match="all training questions are about one paragraph"):
        divide(questions[:3])


def test_a_model_learns_where_there_is_no_answer(folder: Path, tmp_path: Path, write: Callable[..., Path]) -> None:
    asked = [*QUESTIONS, *UNANSWERED]
    settings = dataclasses.replace(SETTINGS, epochs=120)
    keep = tmp_path / "kept"
    result = fine_tune_and_evaluate(folder, asked, asked, settings, version="2.0", keep=keep)
    (seed,) = result.seeds
    assert seed.null_odds is not None and seed.best is not None and result.version == "2.0"
    assert {name for name, text in seed.predictions.items() if not text} == {"n0", "n1"}
    assert all((odds > 0) == (name in ("n0", "n1")) for name, odds in seed.null_odds.items())
    assert result.f1 == result.best_f1 == 100 and all(seed.spans.values())
    assert result.has_answer is not None and result.has_answer.questions == 5
    assert result.no_answer is not None and result.no_answer.questions == 2

    # The threshold costs no training, and the files hold what the official script needs for both sets of figures.
    never = dataclasses.replace(settings, null_threshold=1e9)
    result = fine_tune_and_evaluate(folder, asked, asked, never, version="2.0", keep=keep)
    assert result.seeds[0].reused and result.seeds[0].predictions == seed.spans
    assert result.no_answer == dataclasses.replace(result.no_answer, f1=0.0) and result.best_f1 == 100  # type: ignore[type-var]
    write_result(result, tmp_path)
    dev = QuestionFile(tmp_path, tuple(asked), 0, "2.0")
    assert score_file(tmp_path / "predictions.json", dev).f1 == result.f1
    scored = score_file(tmp_path / "spans.json", dev, null_odds=tmp_path / "null_odds.json")
    assert scored.best == result.seeds[0].best
    fields = json.loads((tmp_path / "squad.json").read_text())
    assert fields["version"] == "2.0" and fields["seeds"][0]["best"]["f1"] == 100
    assert not {"predictions", "spans", "null_odds"} & set(fields["seeds"][0])


def test_versions_are_not_mixed(folder: Path) -> None:
    with pytest.raises(UserError, match=r"are SQuAD v2.0, and every training question has an answer"):
        fine_tune_and_evaluate(folder, QUESTIONS, UNANSWERED, SETTINGS, version="2.0")
    with pytest.raises(UserError, match=r"are SQuAD v1.1, and some training questions have no answer"):
        fine_tune_and_evaluate(folder, UNANSWERED, QUESTIONS, SETTINGS)


@pytest.mark.parametrize(
    ("settings", "rates", "said"),
    [
        (SETTINGS, (1e-3,), "both a learning rate and several"),
        (RATED, (1e-3, 0.001), "Give each once"),
        (RATED, (1e-3, -1.0), "learning_rate = -1.0"),
    ],
)
def test_impossible_rates(folder: Path, settings: SquadSettings, rates: tuple[float, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fine_tune_and_evaluate(folder, QUESTIONS, QUESTIONS, settings, learning_rates=rates)
