"""`lambert.pretrain`, `lambert.Trainer` and callbacks, as a person uses them from Python."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lambert
from lambert.corpus.store import Corpus
from lambert.training.checkpoint.format import finished_steps

OPTIONS: dict[str, Any] = {
    "model": "2x32",
    "batch_size": 8,
    "samples": 80,
    "sequence_lengths": (32, 64),
    "micro_batch_size": 4,
    "evaluation_samples": 16,
    "evaluations_per_phase": 1,
    "probe_seconds": 0,
    "precision": "float32",
    "threads": 1,
}


def weights(run: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(run / "huggingface" / "model.safetensors")
    return tensors


class Recorder(lambert.Callback):
    """Remembers what it is called with."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.events: list[str] = []

    def on_train_begin(self, trainer: Any, record: Any) -> None:
        self.calls.append(f"begin {record['total_steps']}")

    def on_step_end(self, trainer: Any, record: Any) -> None:
        self.calls.append(f"step {record['step']}")
        assert trainer.step == record["step"]

    def on_evaluate(self, trainer: Any, record: Any) -> None:
        self.calls.append(f"evaluate {record['step']}")

    def on_save(self, trainer: Any, record: Any) -> None:
        self.calls.append(f"save {record['step']}")

    def on_train_end(self, trainer: Any, record: Any) -> None:
        self.calls.append(f"end {record['reason']}")

    def on_log(self, trainer: Any, event: str, record: Any) -> None:
        self.events.append(event)


@pytest.fixture(scope="module")
def finished(small_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[lambert.TrainOutput, Recorder]:
    recorder = Recorder()
    out = tmp_path_factory.mktemp("api") / "run"
    return lambert.pretrain(small_corpus, out=out, callbacks=[recorder], progress=False, **OPTIONS), recorder


def test_a_run_returns_its_metrics_and_its_files(finished: tuple[lambert.TrainOutput, Recorder]) -> None:
    output, _ = finished
    assert output.finished and output.step == 10 and output.resumed_from_step == 0
    assert {"eval_mlm_loss", "eval_unigram_loss", "eval_mlm_accuracy", "step", "train_seconds"} <= output.metrics.keys()
    assert (output.out / "report.html").exists() and weights(output.out)
    recipe = (output.out / "recipe.toml").read_text()
    assert (
        "lambert pretrain " in recipe
        and "--batch-size 8 --model 2x32" in recipe
        and "--corpus" in recipe
        and "--out" in recipe
    )


def test_callbacks_see_every_event_in_order(finished: tuple[lambert.TrainOutput, Recorder]) -> None:
    _, recorder = finished
    calls = [call for call in recorder.calls if not call.startswith("save")]
    steps = [f"step {step}" for step in range(1, 11)]
    assert calls == ["begin 10", *steps[:9], "evaluate 9", steps[9], "evaluate 10", "end finished"]
    assert [call for call in recorder.calls if call.startswith("save")] == ["save 9", "save 10"]
    assert recorder.events.count("phase") == 2 and recorder.events[-1] == "end"


def test_steps_are_yielded_and_leaving_the_loop_saves(
    small_corpus: Corpus, tmp_path: Path, finished: tuple[lambert.TrainOutput, Recorder]
) -> None:
    """The run that is left at step 4 and resumed ends in the bits of the one that was not."""
    seen = []
    for step in lambert.Trainer(small_corpus, out=tmp_path / "run", **OPTIONS):
        seen.append(step.step)
        assert step.loss == pytest.approx(step.mlm_loss + (step.nsp_loss or 0), rel=1e-5)
        if step.step == 4:
            break
    assert seen == [1, 2, 3, 4] and finished_steps(tmp_path / "run") == [4]
    trainer = lambert.Trainer(str(small_corpus.path), out=tmp_path / "run", **OPTIONS)
    assert [step.step for step in trainer] == [5, 6, 7, 8, 9, 10]
    assert trainer.output is not None and trainer.output.resumed_from_step == 4
    expected, resumed = weights(finished[0].out), weights(tmp_path / "run")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_a_callback_can_stop_the_run(small_corpus: Corpus, tmp_path: Path) -> None:
    class Stop(lambert.Callback):
        def on_step_end(self, trainer: Any, record: Any) -> None:
            if record["step"] == 3:
                trainer.request_stop()

    output = lambert.pretrain(small_corpus, out=tmp_path / "run", callbacks=[Stop()], progress=False, **OPTIONS)
    assert (output.step, output.finished) == (3, False)
    assert finished_steps(tmp_path / "run") == [3]


def test_an_exception_in_a_callback_reaches_the_caller_and_the_run_can_be_resumed(
    small_corpus: Corpus, tmp_path: Path
) -> None:
    class Fail(lambert.Callback):
        def on_step_end(self, trainer: Any, record: Any) -> None:
            if record["step"] == 4:
                raise ZeroDivisionError

    options = {**OPTIONS, "checkpoint_steps": 2}
    with pytest.raises(ZeroDivisionError):
        lambert.pretrain(small_corpus, out=tmp_path / "run", callbacks=[Fail()], progress=False, **options)
    output = lambert.pretrain(small_corpus, out=tmp_path / "run", progress=False, **options)
    assert output.finished and output.resumed_from_step == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bach_size": 3}, "unknown argument 'bach_size'. Did you mean 'batch_size'"),
        ({"batch_size": 0}, "batch size 0"),
        ({"keep_last": 0}, "keep last 0"),
        ({"activation_checkpointing": "some"}, "unknown activation checkpointing 'some'"),
        ({"timeout_minutes": 0}, "a timeout of 0 minutes"),
        ({"probe_seconds": -1}, "a probe of -1 seconds"),
        ({"epochs": 1.0}, "Give one of them"),
    ],
)
def test_wrong_arguments_are_named(small_corpus: Corpus, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(lambert.UserError, match=message):
        lambert.pretrain(small_corpus, out=tmp_path / "run", progress=False, **{**OPTIONS, **changed})
    assert not (tmp_path / "run").exists()


def test_messages_go_through_logging(
    small_corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="lambert"):
        lambert.pretrain(small_corpus, out=tmp_path / "run", progress=False, **OPTIONS)
    assert any(record.name == "lambert" and "unigram baseline" in record.getMessage() for record in caplog.records)
    assert capsys.readouterr().out == ""


def test_progress_is_printed_when_asked_for(
    small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lambert.pretrain(small_corpus, out=tmp_path / "run", **OPTIONS)
    printed = capsys.readouterr().out
    assert "phase 1: sequences of 32, batch 8" in printed and "finished at step 10" in printed
    assert not logging.getLogger("lambert").handlers


def test_importing_lambert_is_cheap_and_every_public_name_is_there() -> None:
    program = "import sys, lambert; print('torch' in sys.modules); [getattr(lambert, name) for name in lambert.__all__]"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"
    assert set(lambert.__all__) <= set(dir(lambert))
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        lambert.pretrian  # type: ignore[attr-defined]  # noqa: B018
