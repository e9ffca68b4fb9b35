"""Fine-tuning: it learns and repeats itself; padding, order and micro-batches change nothing that matters."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from finetune.squad.articles import CAFE, HARBOUR
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.errors import UserError
from lambert.finetune import job
from lambert.finetune.inputs import make_batch
from lambert.finetune.loop import epoch_batches, fine_tune, predict
from lambert.finetune.model import load_with_head
from lambert.finetune.settings import FineTuneProgress, default_learning_rate
from lambert.finetune.squad.api import finetune_squad
from lambert.finetune.squad.data import Answer, Question
from lambert.finetune.squad.features import make_windows
from lambert.finetune.squad.metric import score
from lambert.finetune.squad.settings import SquadSettings
from lambert.finetune.squad.task import squad_preset
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining, BertForQuestionAnswering
from lambert.model.huggingface import model_folder, save_model
from lambert.training.config.precision import Precision

ASKED = [
    ("Who was the engineer of the harbour?", HARBOUR, "Edna Marlowe"),
    ("When was the harbour built?", HARBOUR, "1843"),
    ("What did it cost?", HARBOUR, "12,500 pounds"),
    ("What broke the northern pier?", HARBOUR, "a storm"),
    ("Where is the café?", CAFE, "São Paulo"),
    ("Who lent money?", CAFE, "日本銀行"),
]
QUESTIONS = [
    Question(f"q{index}", asked, context, (Answer(text, context.index(text)),))
    for index, (asked, context, text) in enumerate(ASKED)
]
SQUAD = squad_preset()
SETTINGS = SquadSettings(
    learning_rate=3e-3,
    epochs=120,
    batch_size=8,
    sequence_length=64,
    document_stride=24,
    question_length=16,
)
BRIEF = dataclasses.replace(SETTINGS, epochs=2)


def _config(tokenizer: Tokenizer) -> BertConfig:
    return BertConfig(
        vocabulary_size=tokenizer.get_vocab_size(),
        layers=2,
        hidden_size=64,
        attention_heads=2,
        feed_forward_size=128,
        maximum_positions=64,
    )


def _model(tokenizer: Tokenizer, *, dropout: float = 0.1) -> BertForQuestionAnswering:
    torch.manual_seed(7)
    return BertForQuestionAnswering(dataclasses.replace(_config(tokenizer), dropout=dropout))


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A pre-trained model as a Hugging Face folder (with random weights)."""
    torch.manual_seed(3)
    path = tmp_path / "model"
    save_model(BertForPreTraining(_config(tokenizer)), path)
    save_tokenizer(tokenizer, path)
    return path


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("adamw", 3e-3), ("lamb", 2e-2)])
def test_learns_a_handful_of_questions_by_heart(tokenizer: Tokenizer, optimizer: str, learning_rate: float) -> None:
    """Every training window is learned. A question may still be answered from another window of its context, whose
    logits nobody trained: on which processors that happens is rounding, so four right answers of six are enough."""
    settings = dataclasses.replace(SETTINGS, optimizer=optimizer, learning_rate=learning_rate)
    model = _model(tokenizer, dropout=0.0)
    before = predict(model, tokenizer, SQUAD, QUESTIONS, settings)
    summary = fine_tune(model, tokenizer, SQUAD, QUESTIONS, settings, seed=1)
    after = predict(model, tokenizer, SQUAD, QUESTIONS, settings)
    assert score(QUESTIONS, before.values["spans"]).exact_match == 0
    assert score(QUESTIONS, after.values["spans"]).exact_match > 66
    assert summary.train_loss < 0.05 and summary.learning_rate == learning_rate
    assert summary.sequences == after.sequences > len(QUESTIONS)
    assert summary.steps == settings.epochs * math.ceil(summary.sequences / settings.batch_size)


def test_the_same_seed_gives_the_same_model_and_another_does_not(tokenizer: Tokenizer) -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.rand(seed)  # what went before must not matter
        model = _model(tokenizer)
        fine_tune(model, tokenizer, SQUAD, QUESTIONS, BRIEF, seed=seed)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_dropout_is_drawn_afresh_in_each_step_from_the_seed(tokenizer: Tokenizer) -> None:
    # One window and no learning: only dropout can make two losses differ.
    still = dataclasses.replace(BRIEF, epochs=3, learning_rate=1e-30)
    losses = []
    for dropout, seed in ((0.0, 1), (0.1, 1), (0.1, 2)):
        seen: list[FineTuneProgress] = []
        model = _model(tokenizer, dropout=dropout)
        fine_tune(model, tokenizer, SQUAD, QUESTIONS[-1:], still, seed=seed, progress=seen.append)
        losses.append([progress.loss for progress in seen])
    assert len(losses[0]) == 3 and len(set(losses[0])) == 1
    assert len({*losses[0], *losses[1], *losses[2]}) == 1 + 3 + 3


def test_micro_batches_do_not_change_the_step(tokenizer: Tokenizer) -> None:
    weights = []
    for size in (1, 3, 8):
        model = _model(tokenizer, dropout=0.0)
        settings = dataclasses.replace(BRIEF, micro_batch_size=size)
        fine_tune(model, tokenizer, SQUAD, QUESTIONS, settings, seed=1)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    for other in weights[1:]:
        assert torch.linalg.vector_norm(other - weights[0]) < 1e-4 * torch.linalg.vector_norm(weights[0])


def test_the_loss_is_the_mean_of_both_ends_whatever_the_padding(tokenizer: Tokenizer) -> None:
    model = _model(tokenizer).eval()
    windows = make_windows(QUESTIONS, tokenizer, SETTINGS)
    by_hand = []
    for window in windows:
        batch = make_batch([window], pad_id=0)
        count = len(window.token_ids)
        starts, ends = model(batch.token_ids[:, :count], batch.segment_ids[:, :count], None)
        start_loss = -starts[0].log_softmax(0)[window.target[0]]
        end_loss = -ends[0].log_softmax(0)[window.target[1]]
        by_hand.append((start_loss + end_loss).item() / 2)
    together = SQUAD.task(model, make_batch(windows, pad_id=0)).loss_sums["sequence"]
    assert together.item() == pytest.approx(sum(by_hand), rel=1e-5)


def test_the_answers_do_not_depend_on_how_windows_are_scored_together(tokenizer: Tokenizer) -> None:
    model = _model(tokenizer)
    fine_tune(model, tokenizer, SQUAD, QUESTIONS, BRIEF, seed=1)
    answers = [
        predict(model, tokenizer, SQUAD, questions, dataclasses.replace(BRIEF, evaluation_batch_size=size)).values[
            "spans"
        ]
        for questions, size in ((QUESTIONS, 1), (QUESTIONS, 3), (QUESTIONS[::-1], 100))
    ]
    assert answers[0] == answers[1] == answers[2]
    assert list(answers[0]) == [question.id for question in QUESTIONS]


def test_an_epoch_meets_every_window_once_in_an_order_of_its_own() -> None:
    epochs = [list(epoch_batches(50, 8, seed=4, epoch=epoch)) for epoch in (0, 1, 0)]
    assert [len(batch) for batch in epochs[0]] == [8] * 6 + [2]
    flat = [[index for batch in epoch for index in batch] for epoch in epochs]
    assert sorted(flat[0]) == sorted(flat[1]) == list(range(50))
    assert flat[0] == flat[2] and flat[0] != flat[1]
    assert flat[0] != [index for batch in epoch_batches(50, 8, seed=5, epoch=0) for index in batch]


def test_progress_shows_the_schedule(tokenizer: Tokenizer) -> None:
    seen: list[FineTuneProgress] = []
    settings = dataclasses.replace(BRIEF, warmup_ratio=0.5, batch_size=4, learning_rate=1e-3)
    model = _model(tokenizer)
    summary = fine_tune(model, tokenizer, SQUAD, QUESTIONS, settings, seed=6, progress=seen.append)
    assert [progress.done for progress in seen] == list(range(1, summary.steps + 1))
    assert {(progress.seed, progress.stage, progress.total) for progress in seen} == {(6, "training", summary.steps)}
    assert summary.sequences == 10  # the last epoch's batches have 4, 4 and 2
    last = [progress.loss for progress in seen[-3:]]
    assert summary.train_loss == pytest.approx(np.average(last, weights=[4, 4, 2]))
    rates = [progress.learning_rate for progress in seen]
    warmup_steps = round(summary.steps / 2)
    assert rates[:warmup_steps] == pytest.approx([1e-3 * (i + 1) / warmup_steps for i in range(warmup_steps)])
    assert all(later < earlier for earlier, later in zip(rates[warmup_steps:], rates[warmup_steps + 1 :], strict=False))
    seen.clear()
    result = predict(model, tokenizer, SQUAD, QUESTIONS, settings, seed=6, progress=seen.append)
    assert seen[-1].stage == "evaluating" and seen[-1].done == seen[-1].total == result.sequences


def test_an_optimizer_of_ones_own(tokenizer: Tokenizer) -> None:
    model = _model(tokenizer)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.span_head.parameters(), lr=0.0)
    fine_tune(model, tokenizer, SQUAD, QUESTIONS, BRIEF, seed=1, optimizer=optimizer)
    changed = [
        name
        for (name, parameter), old in zip(model.named_parameters(), before, strict=True)
        if not torch.equal(parameter, old)
    ]
    assert changed == ["span_head.weight", "span_head.bias"]


def test_default_learning_rates_fall_with_width() -> None:
    assert default_learning_rate("adamw", 768) == default_learning_rate("adamw", 1024) == 3e-5
    assert default_learning_rate("adamw", 512) == 1e-4
    assert default_learning_rate("adamw", 128) == 3e-4
    assert default_learning_rate("lamb", 768) == pytest.approx(1e-3)


def test_seeds_and_the_files_they_leave(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "deep"
    options: dict[str, Any] = {"settings": BRIEF, "precision": "bfloat16-autocast"}
    result = finetune_squad(folder, QUESTIONS, QUESTIONS[:4], seeds=(5, 6, 7), out=out, **options)
    f1s = [seed.f1 for seed in result.seeds]
    assert [seed.seed for seed in result.seeds] == [5, 6, 7] and result.new_head
    assert result.f1 == pytest.approx(np.mean(f1s))
    assert result.f1_deviation == pytest.approx(np.std(f1s, ddof=1))
    assert len({seed.train_loss for seed in result.seeds}) == 3
    again = finetune_squad(folder, QUESTIONS, QUESTIONS[:4], seeds=(6,), **options)
    assert again.seeds[0].predictions == result.seeds[1].predictions
    assert again.seeds[0].train_loss == result.seeds[1].train_loss
    assert again.f1_deviation is None

    written = json.loads((out / "squad.json").read_text())
    assert written == json.loads(json.dumps(result.to_dict()))
    assert written["f1"] == result.f1 and written["dev_questions"] == 4 and written["train_questions"] == 6
    assert [seed["seed"] for seed in written["seeds"]] == [5, 6, 7] and "predictions" not in written["seeds"][0]
    assert json.loads((out / "predictions.json").read_text()) == result.seeds[0].predictions
    assert json.loads((out / "predictions-seed-7.json").read_text()) == result.seeds[2].predictions
    assert not list(out.glob("*.partial"))


def test_the_seed_decides_a_new_head_and_leaves_torchs_generator_alone(folder: Path) -> None:
    before = torch.random.get_rng_state()
    heads = [load_with_head(folder, BertForQuestionAnswering, seed=seed)[0].span_head.weight for seed in (1, 1, 2)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_random_weights_take_only_the_size(folder: Path) -> None:
    trained, _, _ = load_with_head(folder, BertForQuestionAnswering, seed=1)
    fresh, _, new = load_with_head(folder, BertForQuestionAnswering, seed=1, random_weights=True)
    other, _, _ = load_with_head(folder, BertForQuestionAnswering, seed=2, random_weights=True)
    words = [model.encoder.embeddings.word.weight for model in (trained, fresh, other)]
    assert words[0].shape == words[1].shape and len(new) == len(list(fresh.parameters()))
    assert not torch.equal(words[0], words[1]) and not torch.equal(words[1], words[2])
    result = finetune_squad(folder, QUESTIONS, QUESTIONS, settings=BRIEF, epochs=1, random_weights=True)
    assert result.random_weights and result.new_head and result.settings.epochs == 1


def test_results_are_written_after_every_seed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(model: Any, tokenizer: Any, *others: Any, seed: int, **more: Any) -> Any:
        if seed == 1:
            raise KeyboardInterrupt
        return fine_tune(model, tokenizer, *others, seed=seed, **more)

    monkeypatch.setattr(job, "fine_tune", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune_squad(folder, QUESTIONS, QUESTIONS, settings=BRIEF, seeds=(3, 1), out=tmp_path)
    written = json.loads((tmp_path / "squad.json").read_text())
    assert [seed["seed"] for seed in written["seeds"]] == [3] and (tmp_path / "predictions.json").exists()


def test_a_trained_head_is_loaded(folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, _, new = load_with_head(folder, BertForQuestionAnswering, seed=1)
    assert new == ["span_head.weight", "span_head.bias"]
    save_model(model, tmp_path / "answers")
    save_tokenizer(tokenizer, tmp_path / "answers")
    again, _, not_new = load_with_head(tmp_path / "answers", BertForQuestionAnswering, seed=2)
    assert not not_new
    assert torch.equal(again.span_head.weight, model.span_head.weight)


def test_a_run_folder_stands_for_its_export(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "journal.jsonl").touch()
    with pytest.raises(UserError, match="has no finished model yet"):
        model_folder(run)
    folder.rename(run / "huggingface")
    assert model_folder(run) == run / "huggingface"
    with pytest.raises(UserError, match="there is no model folder"):
        model_folder(tmp_path / "nowhere")


def test_a_nan_loss_stops_the_run(tokenizer: Tokenizer) -> None:
    model = _model(tokenizer)
    torch.nn.init.constant_(model.span_head.weight, math.nan)
    with pytest.raises(UserError, match=r"the loss became nan at step 1 .*Lower the learning rate"):
        fine_tune(model, tokenizer, SQUAD, QUESTIONS, BRIEF, seed=1)


def test_windows_and_vocabulary_must_fit_the_model(tokenizer: Tokenizer) -> None:
    model = _model(tokenizer)
    with pytest.raises(UserError, match=r"sequences of 384 tokens do not fit a model of 64 positions.*to 64 or less"):
        predict(model, tokenizer, SQUAD, QUESTIONS, SquadSettings())
    small = BertForQuestionAnswering(dataclasses.replace(_config(tokenizer), vocabulary_size=50))
    with pytest.raises(UserError, match=r"the tokenizer has \d+ entries, the model 50"):
        fine_tune(small, tokenizer, SQUAD, QUESTIONS, BRIEF, seed=1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "adam"}, "unknown optimizer 'adam'.*'adamw'"),
        ({"epochs": 0}, "`epochs` = 0"),
        ({"batch_size": -1}, "`batch_size` = -1"),
        ({"learning_rate": 0.0}, "`learning_rate` = 0.0"),
        ({"max_grad_norm": math.nan}, "`max_grad_norm` = nan"),
        ({"warmup_ratio": 1.5}, "`warmup_ratio` = 1.5"),
        ({"precision": Precision.BFLOAT16_MASTER}, "does not run in bfloat16-master"),
    ],
)
def test_impossible_settings(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        dataclasses.replace(SETTINGS, **changes)


@pytest.mark.parametrize("seeds", [(), (1, 1), (-1,)])
def test_impossible_seeds(folder: Path, seeds: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="`seeds` = "):
        finetune_squad(folder, QUESTIONS, QUESTIONS, settings=BRIEF, seeds=seeds)


def test_an_unwritable_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        finetune_squad(folder, QUESTIONS, QUESTIONS, settings=BRIEF, out=tmp_path / "file" / "out")
