"""Several seeds and rates: what is cached and not repeated, what is refused, v2.0 from training to the files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from finetune.squad.articles import CAFE, HARBOUR
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.errors import UserError
from lambert.finetune import job
from lambert.finetune.loop import Diverged
from lambert.finetune.runner import best_rate
from lambert.finetune.settings import FineTuneProgress
from lambert.finetune.squad.api import finetune_squad
from lambert.finetune.squad.data import Answer, Question, QuestionFile
from lambert.finetune.squad.prediction_files import score_file
from lambert.finetune.squad.results import RateTrial
from lambert.finetune.squad.settings import SquadSettings
from lambert.finetune.squad.tuning import hold_out
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
    sequence_length=64,
    document_stride=24,
    question_length=16,
)
F1 = attrgetter("f1")
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
    real = job.fine_tune

    def counted(
        model: Any, tokenizer: Any, preset: Any, questions: Any, settings: Any, *, seed: int, progress: Any
    ) -> Any:
        done.append((seed, settings.learning_rate, len(questions)))
        return real(model, tokenizer, preset, questions, settings, seed=seed, progress=progress)

    monkeypatch.setattr(job, "fine_tune", counted)
    return done


Trained = list[tuple[int, float, int]]


def test_finished_seeds_are_not_repeated(folder: Path, tmp_path: Path, trained: Trained) -> None:
    out, cache = tmp_path, tmp_path / "cache"
    first = finetune_squad(folder, QUESTIONS, QUESTIONS, settings=SETTINGS, seeds=(0, 1), out=out)
    assert [seed for seed, _, _ in trained] == [0, 1]
    again = finetune_squad(folder, QUESTIONS, QUESTIONS, settings=SETTINGS, seeds=(0, 1, 2), out=out)
    assert [seed for seed, _, _ in trained] == [0, 1, 2]
    assert [seed.reused for seed in again.seeds] == [True, True, False]
    for before, after in zip(first.seeds, again.seeds, strict=False):
        assert dataclasses.replace(after, reused=False) == before
    (cache / "seed-1.json").write_text('{"made_from": ')  # damaged: repeated, with the same result
    mended = finetune_squad(folder, QUESTIONS, QUESTIONS, settings=SETTINGS, seeds=(0, 1), out=out)
    assert [seed for seed, _, _ in trained] == [0, 1, 2, 1]
    assert mended.seeds[1].predictions == first.seeds[1].predictions and mended.f1 == first.f1
    assert not list(cache.glob("*.partial"))


def test_what_was_made_from_something_else_is_refused_before_any_work(
    folder: Path, tmp_path: Path, trained: Trained
) -> None:
    def ask(settings: SquadSettings = SETTINGS, dev: list[Question] = QUESTIONS, **others: Any) -> None:
        finetune_squad(folder, QUESTIONS, dev, settings=settings, seeds=(4, 0), out=tmp_path, **others)

    finetune_squad(folder, QUESTIONS, QUESTIONS, settings=SETTINGS, seeds=(0,), out=tmp_path)
    with pytest.raises(UserError, match=r"seed-0.json .*\(settings.epochs: 1 there, 2 now\)"):
        ask(dataclasses.replace(SETTINGS, epochs=2))
    with pytest.raises(UserError, match=r"settings.learning_rate: 0.003 there, 0.0003 now"):
        ask(RATED)
    with pytest.raises(UserError, match=r"examples.dev: \w{12}… there, \w{12}… now"):
        ask(dev=QUESTIONS[:2])
    with pytest.raises(UserError, match=r"random_weights: False there, True now.*`fresh=True`"):
        ask(random_weights=True)
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.1}))
    with pytest.raises(UserError, match=r"\(model: \w{12}… there"):
        finetune_squad(other, QUESTIONS, QUESTIONS, settings=SETTINGS, seeds=(0,), out=tmp_path)
    assert len(trained) == 1


def test_rates_are_tried_on_held_out_training_questions_with_the_first_seed(
    folder: Path, tmp_path: Path, trained: Trained
) -> None:
    split = hold_out(QUESTIONS)
    stages: list[FineTuneProgress] = []
    asked: dict[str, Any] = {"out": tmp_path, "learning_rates": (1e-30, 3e-3)}
    result = finetune_squad(folder, QUESTIONS, QUESTIONS, settings=RATED, seeds=(5, 6), progress=stages.append, **asked)
    tuning = result.tuning
    assert tuning is not None and tuning.seed == 5
    learned = len(split.train)
    assert trained[:2] == [(5, 1e-30, learned), (5, 3e-3, learned)]
    assert trained[2:] == [(5, result.settings.learning_rate, 5), (6, result.settings.learning_rate, 5)]
    assert result.settings.learning_rate == tuning.learning_rate == best_rate(tuning.trials, F1)
    assert (tuning.train_questions, tuning.held_out_questions) == (learned, len(split.held_out))
    assert tuning.held_out == f"1 of 2 paragraphs of the training file, {len(split.held_out)} of 5 questions"
    assert list(dict.fromkeys(stage.run for stage in stages)) == [
        "learning rate 1e-30 (1 of 2)",
        "learning rate 0.003 (2 of 2)",
        "seed 5 (1 of 2)",
        "seed 6 (2 of 2)",
    ]
    again = finetune_squad(folder, QUESTIONS, QUESTIONS, settings=RATED, seeds=(5, 6), **asked)
    assert len(trained) == 4 and again.tuning == tuning and again.f1 == result.f1
    written = json.loads(json.dumps(result.to_dict()))
    assert [trial["learning_rate"] for trial in written["tuning"]["trials"]] == [1e-30, 3e-3]


def test_a_rate_that_diverges_is_only_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Trained
) -> None:
    counted = job.fine_tune

    def diverging(model: Any, tokenizer: Any, preset: Any, questions: Any, settings: Any, **others: Any) -> Any:
        done = counted(model, tokenizer, preset, questions, settings, **others)
        if settings.learning_rate == 1.0:
            raise Diverged("the loss became nan at step 1", remedy="Lower the learning rate")
        return done

    monkeypatch.setattr(job, "fine_tune", diverging)
    for _ in range(2):  # the second time from the cache
        result = finetune_squad(folder, QUESTIONS, QUESTIONS, settings=RATED, learning_rates=(1.0, 1e-3), out=tmp_path)
        assert result.tuning is not None and result.settings.learning_rate == 1e-3
        assert result.tuning.trials[0] == RateTrial(1.0, None, None, None, "the loss became nan at step 1")
    assert len(trained) == 3


def test_the_best_rate_and_of_equals_the_lowest() -> None:
    def trial(rate: float, f1: float | None) -> RateTrial:
        return RateTrial(rate, f1, f1, 1.0, None if f1 is not None else "it diverged")

    assert best_rate([trial(5e-5, 70.0), trial(3e-5, 80.0), trial(1e-4, 75.0)], F1) == 3e-5
    assert best_rate([trial(5e-5, 80.0), trial(3e-5, 80.0), trial(1e-4, 1.0)], F1) == 3e-5
    with pytest.raises(UserError, match=r"every learning rate diverged \(it diverged\)"):
        best_rate([trial(1e-4, None)], F1)


def test_a_tenth_is_held_out_by_whole_articles() -> None:
    questions = [Question(f"q{n}", "?", f"context {n // 3}", (Answer("c", 0),), article=n // 10) for n in range(300)]
    split = hold_out(questions)
    assert (split.unit, split.units, split.all_units) == ("articles", 3, 30)
    assert len(split.held_out) == 30 and len(split.train) == 270
    assert not {q.article for q in split.held_out} & {q.article for q in split.train}
    assert hold_out(questions) == split
    few = hold_out([dataclasses.replace(question, article=0) for question in questions])
    assert few.unit == "paragraphs" and few.units == 10
    assert not {q.context for q in few.held_out} & {q.context for q in few.train}
    with pytest.raises(UserError, match="all training questions are about one paragraph"):
        hold_out(questions[:3])


def test_a_model_learns_where_there_is_no_answer(folder: Path, tmp_path: Path, write: Callable[..., Path]) -> None:
    asked = [*QUESTIONS, *UNANSWERED]
    settings = dataclasses.replace(SETTINGS, epochs=120)
    result = finetune_squad(folder, asked, asked, settings=settings, out=tmp_path)
    (seed,) = result.seeds
    assert seed.null_odds is not None and seed.best is not None and result.version == "2.0"
    assert {name for name, text in seed.predictions.items() if not text} == {"n0", "n1"}
    assert all((odds > 0) == (name in ("n0", "n1")) for name, odds in seed.null_odds.items())
    assert result.f1 == result.best_f1 == 100 and all(seed.spans.values())
    assert result.has_answer is not None and result.has_answer.questions == 5
    assert result.no_answer is not None and result.no_answer.questions == 2

    # Another threshold needs no training, and the files hold what the official script needs for both sets of metrics.
    never = dataclasses.replace(settings, null_threshold=1e9)
    result = finetune_squad(folder, asked, asked, settings=never, out=tmp_path)
    assert result.seeds[0].reused and result.seeds[0].predictions == seed.spans
    assert result.no_answer == dataclasses.replace(result.no_answer, f1=0.0) and result.best_f1 == 100  # type: ignore[type-var]
    dev = QuestionFile(tmp_path, tuple(asked), 0, "2.0")
    assert score_file(tmp_path / "predictions.json", dev).f1 == result.f1
    scored = score_file(tmp_path / "spans.json", dev, null_odds=tmp_path / "null_odds.json")
    assert scored.best == result.seeds[0].best
    fields = json.loads((tmp_path / "squad.json").read_text())
    assert fields["version"] == "2.0" and fields["seeds"][0]["best"]["f1"] == 100
    assert not {"predictions", "spans", "null_odds"} & set(fields["seeds"][0])


def test_a_cache_of_another_format_is_computed_again(folder: Path, tmp_path: Path, trained: Trained) -> None:
    finetune_squad(folder, QUESTIONS, QUESTIONS, settings=SETTINGS, out=tmp_path)
    path = tmp_path / "cache" / "seed-0.json"
    cached = json.loads(path.read_text())
    path.write_text(json.dumps(cached | {"format": cached["format"] - 1}))
    assert not finetune_squad(folder, QUESTIONS, QUESTIONS, settings=SETTINGS, out=tmp_path).seeds[0].reused
    assert json.loads(path.read_text())["format"] == cached["format"] and len(trained) == 2
    assert not finetune_squad(folder, QUESTIONS, QUESTIONS, settings=SETTINGS, out=tmp_path, fresh=True).seeds[0].reused


def test_files_and_options_by_name(folder: Path, tmp_path: Path, write: Callable[..., Path], document: Any) -> None:
    path = write(document)
    options: dict[str, Any] = {"epochs": 1, "sequence_length": 64, "question_length": 16, "precision": "float32"}
    result = finetune_squad(str(folder), str(path), path, seeds=2, learning_rate=1e-4, train_questions=2, **options)
    assert (result.train_questions, result.dev_questions, len(result.seeds)) == (2, 3, 2)
    assert result.settings.learning_rate == 1e-4 and result.version == "1.1"
    with pytest.raises(UserError, match=r"unknown argument 'learning_rates?_'.*Did you mean 'learning_rate'"):
        finetune_squad(folder, path, path, learning_rate_=1e-4)
    with pytest.raises(UserError, match=r"`epochs` = 2.5. Give a whole number"):
        finetune_squad(folder, path, path, epochs=2.5)
    with pytest.raises(UserError, match=r"`train` has no questions"):
        finetune_squad(folder, [], path, **options)
    with pytest.raises(UserError, match=r"are SQuAD v2.0, and every training question has an answer"):
        finetune_squad(folder, path, path, version_2=True, **options)
    with pytest.raises(UserError, match=r"`version_2` is False"):
        finetune_squad(folder, path, [*QUESTIONS, *UNANSWERED], version_2=False, **options)


def test_versions_are_not_mixed(folder: Path) -> None:
    with pytest.raises(UserError, match=r"are SQuAD v2.0, and every training question has an answer"):
        finetune_squad(folder, QUESTIONS, UNANSWERED, settings=SETTINGS)
    with pytest.raises(UserError, match=r"are SQuAD v1.1, and some training questions have no answer"):
        finetune_squad(folder, UNANSWERED, QUESTIONS, settings=SETTINGS)


@pytest.mark.parametrize(
    ("settings", "rates", "said"),
    [
        (SETTINGS, (1e-3,), "both `learning_rate` and `learning_rates`"),
        (RATED, (1e-3, 0.001), "Give each once"),
        (RATED, (1e-3, -1.0), "`learning_rate` = -1.0"),
    ],
)
def test_impossible_rates(folder: Path, settings: SquadSettings, rates: tuple[float, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        finetune_squad(folder, QUESTIONS, QUESTIONS, settings=settings, learning_rates=rates)
