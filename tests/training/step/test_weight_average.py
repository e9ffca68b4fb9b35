"""`ema_decay`: the average by hand from the checkpoints of each step, and where it is used."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lambert.corpus.store import Corpus
from lambert.export.api import export_model
from lambert.model.heads import BertForPreTraining
from lambert.training.config.precision import Precision
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig
from lambert.training.step.evaluation import Validator
from run_makers import RunMaker

DECAY = 0.3
OPTIONS = TrainerOptions(evaluation_samples=64, checkpoint_steps=1, keep_last=10)


def part(run: Path, step: int, name: str) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / f"step-{step}" / f"{name}.safetensors")


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.BFLOAT16_MASTER])
def test_it_is_the_average_by_hand_and_is_evaluated_and_exported(
    make_run: RunMaker, settings: TrainingConfig, small_corpus: Corpus, tmp_path: Path, precision: Precision
) -> None:
    run = make_run(tmp_path / "run", trainer_options=OPTIONS, ema_decay=DECAY, precision=precision)
    average = {name: weight.detach().double() for name, weight in run.state.weights().items()}
    outcome = run.train()
    for step in range(1, settings.total_steps + 1):
        decay = min(DECAY, (1 + step) / (10 + step))
        weights = part(tmp_path / "run", step, "model")
        average = {name: decay * old + (1 - decay) * weights[name].double() for name, old in average.items()}
        for name, found in part(tmp_path / "run", step, "ema").items():
            torch.testing.assert_close(found.double(), average[name], rtol=1e-5, atol=1e-7)
    exported = BertForPreTraining.from_pretrained(tmp_path / "run" / "huggingface")
    kept = part(tmp_path / "run", settings.total_steps, "ema")
    assert all(torch.equal(weight, kept[name]) for name, weight in exported.named_parameters())
    export_model(tmp_path / "run", tmp_path / "third", step=3)
    third = BertForPreTraining.from_pretrained(tmp_path / "third")
    earlier = part(tmp_path / "run", 3, "ema")
    assert all(torch.equal(weight, earlier[name]) for name, weight in third.named_parameters())
    if precision is Precision.FLOAT32:
        length = settings.phases[-1].sequence_length
        measured = Validator(small_corpus, settings.examples, samples=64).measure(exported, length, precision)
        assert outcome.evaluation is not None and measured is not None
        assert math.isclose(outcome.evaluation.mlm_loss, measured.mlm_loss, rel_tol=1e-6)


def test_training_does_not_see_it_and_a_stopped_run_keeps_it(make_run: RunMaker, tmp_path: Path) -> None:
    plain, averaged = (
        make_run(tmp_path / name, trainer_options=OPTIONS, ema_decay=decay)
        for name, decay in (("plain", 0.0), ("averaged", DECAY))
    )
    plain.train(), averaged.train()
    for name, weight in part(tmp_path / "plain", 10, "model").items():
        assert torch.equal(weight, part(tmp_path / "averaged", 10, "model")[name])
    stopped = make_run(tmp_path / "stopped", trainer_options=OPTIONS, ema_decay=DECAY)
    for step, _ in enumerate(stopped, start=1):
        if step == 4:
            break
    make_run(tmp_path / "stopped", trainer_options=OPTIONS, ema_decay=DECAY).train()
    for name, average in part(tmp_path / "averaged", 10, "ema").items():
        assert torch.equal(average, part(tmp_path / "stopped", 10, "ema")[name])
