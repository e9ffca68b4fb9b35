"""Presets against what they name, written by hand in float64 from the sources given in docs/lamb.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lambert.optim import LAMB

Array = NDArray[np.float64]
LR, DECAY = 0.02, 0.1


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3)).double()


def gradients(step: int, net: nn.Module) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(step)
    return [3 * torch.randn(p.shape, generator=random, dtype=p.dtype) for p in net.parameters()]


def by_hand(
    net: nn.Module, steps: int, *, correct: bool, decay: list[float], adapt: list[bool], inner_clip: float | None
) -> list[Array]:
    xs = [p.detach().numpy().copy() for p in net.parameters()]
    ms, vs = [0 * x for x in xs], [0 * x for x in xs]
    for t in range(1, steps + 1):
        gs = [g.numpy() for g in gradients(t, net)]
        if inner_clip is not None:  # apex: g / max(1, norm / max_grad_norm)
            norm = math.sqrt(sum((g**2).sum() for g in gs))
            gs = [g / max(1.0, norm / inner_clip) for g in gs]
        for i, g in enumerate(gs):
            ms[i] = 0.9 * ms[i] + 0.1 * g
            vs[i] = 0.999 * vs[i] + 0.001 * g**2
            m, v = (ms[i] / (1 - 0.9**t), vs[i] / (1 - 0.999**t)) if correct else (ms[i], vs[i])
            u = m / (np.sqrt(v) + 1e-6) + decay[i] * xs[i]
            w_norm, u_norm = np.sqrt((xs[i] ** 2).sum()), np.sqrt((u**2).sum())
            xs[i] = xs[i] - LR * (w_norm / u_norm if adapt[i] and w_norm > 0 and u_norm > 0 else 1.0) * u
    return xs


MATRICES = [True, False, False, False, True, False]  # weight, bias, norm's two, weight, bias
CASES: dict[str, dict[str, Any]] = {
    "paper": {"correct": True, "decay": [DECAY] * 6, "adapt": [True] * 6, "inner_clip": None},
    "bert": {"correct": True, "decay": [DECAY * m for m in MATRICES], "adapt": MATRICES, "inner_clip": None},
    "google": {"correct": False, "decay": [DECAY * m for m in MATRICES], "adapt": MATRICES, "inner_clip": None},
    "apex": {"correct": True, "decay": [DECAY * m for m in MATRICES], "adapt": MATRICES, "inner_clip": 1.0},
    "nvlamb": {"correct": True, "decay": [DECAY * m for m in MATRICES], "adapt": [True] * 6, "inner_clip": 1.0},
    "optax": {"correct": True, "decay": [0.0] * 6, "adapt": [True] * 6, "inner_clip": None},
}


@pytest.mark.parametrize("name", CASES)
def test_a_preset_is_what_it_names(name: str) -> None:
    net = model()
    params: Any = net
    options = {} if name == "optax" else {"weight_decay": DECAY}
    if name in ("apex", "nvlamb"):  # their users make the groups
        matrices = [p for p in net.parameters() if p.ndim > 1]
        rest = [p for p in net.parameters() if p.ndim == 1]
        params = [{"params": matrices, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
    expected = by_hand(net, 4, **CASES[name])
    optimizer = LAMB.from_preset(name, params, LR, **options)
    for step in range(1, 5):
        for parameter, gradient in zip(net.parameters(), gradients(step, net), strict=True):
            parameter.grad = gradient
        optimizer.step()
    for parameter, by_hand_ in zip(net.parameters(), expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), by_hand_, rtol=1e-12)


def test_the_default_is_the_papers() -> None:
    assert LAMB.from_preset("paper", model()).defaults == LAMB(model().parameters()).defaults


def test_options_of_a_preset_can_be_changed() -> None:
    optimizer = LAMB.from_preset("apex", model(), max_grad_norm=None, weight_decay=0.5)
    assert optimizer.defaults["max_grad_norm"] is None and optimizer.param_groups[0]["weight_decay"] == 0.5


def test_unknown_presets_and_missing_models_are_refused() -> None:
    with pytest.raises(ValueError, match="no preset 'apx'; choose one of paper, bert, google"):
        LAMB.from_preset("apx", model())
    with pytest.raises(ValueError, match="'bert' excludes norms and vectors, so it needs the model itself"):
        LAMB.from_preset("bert", model().parameters())


class DebertaLayerNorm(nn.Module):
    """As other libraries define their own; two dimensions, so that only the class can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))


def test_norms_of_every_library_and_vectors_are_left_out() -> None:
    parts = {
        "dense": nn.Linear(4, 4),
        "layer": nn.LayerNorm((2, 2)),
        "rms": nn.RMSNorm((2, 2)),
        "group": nn.GroupNorm(2, 4),
        "batch": nn.BatchNorm1d(4),
        "theirs": DebertaLayerNorm(),
        "attention": nn.MultiheadAttention(4, 2),
        "lstm": nn.LSTM(4, 4),
    }
    groups = LAMB.from_preset("bert", nn.ModuleDict(parts)).param_groups
    adapted = {name for group in groups if group["adapt"] for name in group["param_names"]}
    decayed = {name for group in groups if group["weight_decay"] for name in group["param_names"]}
    matrices = {"attention.in_proj_weight", "attention.out_proj.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"}
    assert adapted == decayed == {"dense.weight", *matrices}
