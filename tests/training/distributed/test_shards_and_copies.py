"""Ten steps of every optimizer on two Gloo processes: FSDP2's shards against a copy of the model in each process.

In float32 both round differently where they sum over processes: gradients, their norm, norms of layers. That moves each
new weight by about one unit in its last place, at each step. So ten steps may move them ten times as far apart as one
such unit in the initial weights does, which is measured. PyTorch's Muon orthogonalizes in bfloat16, and products of
shards are summed in another order: its error against float32 may be that of the copies, in another direction.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim import _muon

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


SHARDED = [name for name in OPTIMIZERS if name != "muon-hyperball"]  # which refuses shards
Weights = dict[str, torch.Tensor]


def _weights(optimizer: str, processes: ProcessGroup, *, shards: bool = False, nudged: bool = False) -> Weights:
    """The whole model after ten steps; `nudged` moves each initial weight to the next float, up or down."""
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
        adamw_lr_ratio=1.0,
        ema_decay=0.5 if optimizer == "lans" else 0.0,  # one of them is averaged, too
    )
    model = BertForPreTraining(size)
    with torch.no_grad():
        for parameter in model.parameters() if nudged else ():
            parameter.copy_(torch.nextafter(parameter, torch.where(torch.rand_like(parameter) < 0.5, 1e9, -1e9)))
    state = TrainState(model, config, processes, shards=shards)
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
        state.step += 1
        state.update_average()
    exported = state.exportable_model()
    return {name: tensor.detach().clone() for name, tensor in exported.state_dict().items()}


def _in_float32(gradient: torch.Tensor, coefficients: Any, steps: int, eps: float) -> torch.Tensor:
    """Muon's Newton–Schulz iterations, without bfloat16."""
    a, b, c = coefficients
    x = gradient / gradient.norm().clamp(min=eps)
    for _ in range(steps):
        x = a * x + (b * (gram := x @ x.T) + c * gram @ gram) @ x
    return x


def _distances(one: Weights, other: Weights) -> dict[str, float]:
    assert one.keys() == other.keys()
    return {name: float((one[name] - other[name]).norm() / one[name].norm()) for name in one}


def _compare(rank: int, count: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    processes, told = ProcessGroup(rank, count), {}
    in_bfloat16 = [_weights("muon", processes, shards=shards) for shards in (False, True)]
    _muon._zeropower_via_newtonschulz = _in_float32
    for optimizer in SHARDED:
        copies = _weights(optimizer, processes)
        others = {"cut": {"shards": True}, "nudged": {"nudged": True}}
        told[optimizer] = {
            name: _distances(copies, _weights(optimizer, processes, **ways)) for name, ways in others.items()
        }
    exact = _weights("muon", processes)
    told["bfloat16"] = dict(zip(("copies", "cut"), (_distances(exact, found) for found in in_bfloat16), strict=True))
    if rank == 0:
        (Path(folder) / "told.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


@pytest.mark.integration
def test_shards_make_the_steps_of_copies(tmp_path: Path) -> None:
    warm.run_all(_compare, 2, str(tmp_path))
    told = json.loads((tmp_path / "told.json").read_text())
    in_bfloat16 = told.pop("bfloat16")
    assert told.keys() == set(SHARDED)
    unit = torch.finfo(torch.float32).eps / 2
    for optimizer, found in told.items():
        for name, distance in found["cut"].items():
            assert distance <= STEPS * (found["nudged"][name] + unit), (optimizer, name, distance)
    matrices = [name for name, distance in in_bfloat16["copies"].items() if distance > 1e-4]
    assert len(matrices) >= 8
    for name in matrices:
        assert in_bfloat16["cut"][name] <= 2 * in_bfloat16["copies"][name], name
