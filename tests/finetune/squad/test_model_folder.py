"""The model of the best seed, opened by transformers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from finetune.squad.test_api import ASKED, QUESTIONS, SETTINGS, UNANSWERED
from lambert.corpus.tokenizer_files import load_vocabulary, save_tokenizer
from lambert.finetune import job
from lambert.finetune.inputs import make_batch
from lambert.finetune.squad.answers import AnswerCollector
from lambert.finetune.squad.api import finetune_squad
from lambert.finetune.squad.features import make_windows
from lambert.model import heads
from lambert.model.bert import BertConfig
from lambert.model.huggingface import load_model, save_model
from lambert.model.modernbert import ModernBertConfig

transformers = pytest.importorskip("transformers")
SIZES: dict[str, Any] = {
    "layers": 2, "hidden_size": 32, "attention_heads": 2, "feed_forward_size": 64, "maximum_positions": 64,
}  # fmt: skip


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def folder(request: pytest.FixtureRequest, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    entries = tokenizer.get_vocab_size()
    config = BertConfig(vocabulary_size=entries, dropout=0.0, **SIZES)
    if request.param == "modernbert":
        config = ModernBertConfig(vocabulary_size=entries, **SIZES)
    path = tmp_path_factory.mktemp("squad") / request.param
    save_model(heads.pretraining_model(config), path)
    save_tokenizer(tokenizer, path)
    return path


def test_transformers_gives_the_same_logits_and_answers(folder: Path, tmp_path: Path) -> None:
    result = finetune_squad(folder, QUESTIONS, QUESTIONS, settings=SETTINGS, seeds=3, epochs=4, out=tmp_path)
    assert result.new_head and result.model == str(tmp_path / "model")
    best = next(seed for seed in result.seeds if seed.seed == result.best_seed)
    assert best.f1 == max(seed.f1 for seed in result.seeds)
    oracle = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "model").eval()
    ours = load_model(tmp_path / "model", heads.question_answering_model)[0].eval()
    tokenizer = load_vocabulary(tmp_path / "model", cased=False)
    collector = AnswerCollector(QUESTIONS)
    types = {} if "modernbert" in type(oracle).__name__.lower() else {"token_type_ids": None}
    for window in make_windows(QUESTIONS, tokenizer, SETTINGS):
        batch = make_batch([window], pad_id=0)
        types = dict.fromkeys(types, batch.segment_ids)
        with torch.no_grad():
            theirs = oracle(input_ids=batch.token_ids, attention_mask=batch.attention_mask.long(), **types)
            start, end = ours(batch.token_ids, batch.segment_ids, batch.attention_mask)
        count = len(window.token_ids)
        assert torch.allclose(theirs.start_logits[:, :count], start[:, :count], atol=1e-5)
        assert torch.allclose(theirs.end_logits[:, :count], end[:, :count], atol=1e-5)
        collector.add(window, theirs.start_logits[0, :count].numpy(), theirs.end_logits[0, :count].numpy())
    assert collector.results()[0] == best.predictions
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")(*ASKED[0][:2])["input_ids"]
    assert (
        words
        == make_windows(QUESTIONS[:1], tokenizer, dataclasses.replace(SETTINGS, sequence_length=512))[
            0
        ].token_ids.tolist()
    )


def test_a_missing_model_is_made_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = finetune_squad(folder, QUESTIONS, QUESTIONS, settings=SETTINGS, seeds=2, out=tmp_path)
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    (tmp_path / "model" / "fine_tuning.json").unlink()
    trained: list[int] = []
    real = job.fine_tune

    def counted(*args: Any, seed: int, **options: Any) -> Any:
        trained.append(seed)
        return real(*args, seed=seed, **options)

    monkeypatch.setattr(job, "fine_tune", counted)
    for _ in range(2):
        finetune_squad(folder, QUESTIONS, QUESTIONS, settings=SETTINGS, seeds=2, out=tmp_path)
        assert trained == [first.best_seed]
        assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights


def test_no_threshold_changes_which_model_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [*QUESTIONS, *UNANSWERED]
    result = finetune_squad(folder, asked, asked, settings=SETTINGS, seeds=4, out=tmp_path)
    best = {seed.seed: seed.best.f1 for seed in result.seeds if seed.best is not None}
    assert best[result.best_seed] == max(best.values())
    monkeypatch.setattr(job, "fine_tune", lambda *args, **options: pytest.fail("trained again"))
    odds = [value for seed in result.seeds for value in (seed.null_odds or {}).values()]
    for threshold in (min(odds), max(odds), 1e9, -1e9):
        settings = dataclasses.replace(SETTINGS, null_threshold=threshold)
        again = finetune_squad(folder, asked, asked, settings=settings, seeds=4, out=tmp_path)
        assert again.best_seed == result.best_seed


def test_the_curve_of_the_loss_and_results_of_before_it_was_kept(folder: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, batch_size=1, epochs=8)
    result = finetune_squad(folder, QUESTIONS, QUESTIONS, settings=settings, out=tmp_path)
    (seed,) = result.seeds
    assert len(seed.curve) <= 100 and seed.curve[-1][0] == seed.steps > 0
    steps = [0.0, *(step for step, _ in seed.curve)]
    last = [loss for step, loss in seed.curve if step > seed.steps - seed.train_windows]
    assert sorted(set(steps)) == steps and sum(last) / len(last) == pytest.approx(seed.train_loss, rel=0.1)
    path = tmp_path / "cache" / "seed-0.json"
    cached = json.loads(path.read_text())
    del cached["result"]["curve"], cached["result"]["predictions"]["probabilities"]
    path.write_text(json.dumps(cached))
    again = finetune_squad(folder, QUESTIONS, QUESTIONS, settings=settings, out=tmp_path)
    assert again.seeds[0].reused and again.f1 == result.f1 and again.seeds[0].curve == []
