"""Ten steps of every optimizer on two Gloo processes: FSDP2's shards against a copy of the model in each process."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import warm
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.planning.probe import random_batch
from lambert.training.config.precision import Precision
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.optimizer import OPTIMIZERS
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.train_state import TrainState
from lambert.training.step.train_step import train_step

STEPS, ROWS, LENGTH, VOCABULARY = 10, 4, 16, 50


def _weights(optimizer: str, processes: ProcessGroup, *, shards: bool) -> dict[str, torch.Tensor]:
    """The whole model after ten steps."""
    torch.manual_seed(0)
    size = BertConfig(VOCABULARY, 2, hidden_size=64, attention_heads=2, feed_forward_size=128, dropout=0.0)
    config: Any = SimpleNamespace(
        precision=Precision.FLOAT32,
        weight_decay=0.01,
        deterministic=False,
        reduce_dtype="float32",
        optimizer=optimizer,
        betas=(0.9, 0.999),
        epsilon=1e-6,
    )
    state = TrainState(BertForPreTraining(size), config, processes, shards=shards)
    for step in range(STEPS):
        batch = random_batch(ROWS, LENGTH, VOCABULARY)
        shift = 7 * step + 3 * processes.rank
        batch.token_ids.add_(shift).remainder_(VOCABULARY)
        batch.masked_labels.add_(shift).remainder_(VOCABULARY)
        train_step(
            state.model,
            state.optimizer,
            [batch],
            task=pretraining_task,
            learning_rate=1e-3,
            max_grad_norm=1.0,
            dropout_seeds=[step],
            processes=processes,
            gradients=state.gradients,
        )
    exported = state.exportable_model()
    return {name: tensor.detach().clone() for name, tensor in exported.state_dict().items()}


def _compare(rank: int, count: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    processes = ProcessGroup(rank, count)
    largest = {}
    for optimizer in OPTIMIZERS:
        copies, cut = (_weights(optimizer, processes, shards=shards) for shards in (False, True))
        assert copies.keys() == cut.keys()
        # A third of this bias has no gradient but rounding.
        names = [name for name in copies if "key_value.bias" not in name]
        largest[optimizer] = max(float((copies[n] - cut[n]).norm() / copies[n].norm()) for n in names)
    if rank == 0:
        (Path(folder) / "largest.json").write_text(json.dumps(largest))
    torch.distributed.destroy_process_group()


@pytest.mark.integration
def test_shards_make_the_steps_of_copies(tmp_path: Path) -> None:
    warm.run_all(_compare, 2, str(tmp_path))
    largest = json.loads((tmp_path / "largest.json").read_text())
    assert largest.keys() == set(OPTIMIZERS)
    # PyTorch's Muon orthogonalizes in bfloat16, which enlarges rounding where a matrix has hardly any gradient.
    most = {name: 1e-2 if name == "muon" else 1e-5 for name in OPTIMIZERS}
    assert all(largest[name] < most[name] for name in OPTIMIZERS), largest
