"""`lambert.plan`, `lambert.evaluate` and `lambert.fill_mask` on a small corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import lambert
from lambert.api.models import filled_texts
from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import save_tokenizer

OPTIONS: dict[str, Any] = {"model": "2x32", "batch_size": 8, "samples": 80, "sequence_lengths": (32, 64)}


@pytest.fixture(scope="module")
def run(small_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> lambert.TrainOutput:
    out = tmp_path_factory.mktemp("models") / "run"
    more: dict[str, Any] = {"precision": "float32", "probe_seconds": 0, "micro_batch_size": 8, "threads": 1}
    return lambert.pretrain(small_corpus, out=out, progress=False, **OPTIONS, **more)


def test_the_evaluation_of_a_run_is_the_one_that_training_ended_with(
    run: lambert.TrainOutput, small_corpus: Corpus
) -> None:
    found = lambert.evaluate(run.out, small_corpus.path, sequence_length=64)
    assert found["mlm_loss"] == pytest.approx(run.metrics["eval_mlm_loss"], abs=1e-5)
    assert found["unigram_loss"] == run.metrics["eval_unigram_loss"]
    assert found["masked_tokens"] == run.metrics["eval_masked_tokens"]
    few = lambert.evaluate(run.out, small_corpus, sequence_length=64, samples=2)
    assert few["masked_tokens"] < found["masked_tokens"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sequence_length": 8_192}, "`sequence_length` 8192 is longer than the model's"),
        ({"samples": 0}, "nothing to evaluate on"),
        ({"model": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_evaluations_are_refused(
    run: lambert.TrainOutput, small_corpus: Corpus, changed: dict[str, Any], message: str
) -> None:
    arguments = {"model": run.out, "corpus": small_corpus, **changed}
    with pytest.raises(lambert.UserError, match=message):
        lambert.evaluate(arguments.pop("model"), arguments.pop("corpus"), **arguments)


def test_blanks_are_filled_as_transformers_fills_them(run: lambert.TrainOutput) -> None:
    text = "Bada [MASK] fefi."
    (ours,) = lambert.fill_mask(run.out, text, top_k=3)
    folder = run.out / "huggingface"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    inputs = tokenizer(text, return_tensors="pt")
    at = int((inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero())
    with torch.no_grad():
        best = model(**inputs).logits[0, at].softmax(-1).topk(3)
    assert [one.word for one in ours] == tokenizer.convert_ids_to_tokens(best.indices.tolist())
    assert [one.probability for one in ours] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert lambert.fill_mask(run.out, [text, f"{text} {text}"], top_k=3)[0] == [ours]


def test_words_that_become_unknown_are_named(run: lambert.TrainOutput, caplog: pytest.LogCaptureFixture) -> None:
    lambert.fill_mask(run.out, "Bada [MASK] fefi [UNK].")
    assert not caplog.messages
    lambert.fill_mask(run.out, "Bada [MASK] fefi×ω 世.")
    (said,) = caplog.messages
    assert "7 of 12 characters" in said
    assert "'fefi×ω', '世'" in said


def test_characters_that_the_tokenizer_drops_are_named(
    run: lambert.TrainOutput, caplog: pytest.LogCaptureFixture
) -> None:
    text = "Ba\u00adda\ufeff [MASK] fe\u200cfi\ufffd\ue000 ba\u0301da."
    (filled,) = filled_texts(run.out, [text])
    assert (filled.unknown, filled.dropped) == ([], ["U+00AD", "U+FEFF", "U+200C", "U+FFFD", "U+E000"])
    (said,) = caplog.messages
    assert "drops: U+00AD, U+FEFF, U+200C, U+FFFD, U+E000" in said


def test_a_plan_holds_what_the_run_will_do(small_corpus: Corpus) -> None:
    found = lambert.plan(small_corpus, probe_seconds=None, **OPTIONS)
    assert [phase.config.step_count for phase in found.phases] == [9, 1]
    assert found.seconds is None and found.memory_bytes["none"] > 0
    assert "phase 1: sequences of 32, batch 8" in str(found) and "steps · batch" in str(found)
    timed = lambert.plan(small_corpus, probe_seconds=0.01, micro_batch_size=8, **OPTIONS)
    assert timed.seconds is not None and timed.seconds > 0 and "on this machine" in str(timed)
    with pytest.raises(lambert.UserError, match="Did you mean 'samples'"):
        lambert.plan(sample=80)


def test_a_model_whose_vocabulary_differs_is_not_evaluated(
    run: lambert.TrainOutput, small_corpus: Corpus, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(small_corpus.tokenizer().to_str().replace('"ba"', '"ab"', 1))
    folder = tmp_path / "other"
    folder.mkdir()
    for file in (run.out / "huggingface").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    save_tokenizer(tokenizer, folder)
    if tokenizer.get_vocab() == small_corpus.tokenizer().get_vocab():
        pytest.fail("the vocabulary was not changed")
    with pytest.raises(lambert.UserError, match="the tokenizer of .* is not that of"):
        lambert.evaluate(folder, small_corpus)
