"""StableAdamW against its algorithm in float64, and against AdamW where it clips nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lambert.optim import LAMB, StableAdamW

Array = NDArray[np.float64]
LR, B1, B2, EPS, DECAY = 0.03, 0.9, 0.98, 1e-6, 0.1


def by_hand(x: Array, gradients: list[Array]) -> Array:
    """Algorithm 2 of arXiv 2304.13013, with its own form of the bias correction: β̂ = β (1 − β^(t−1)) / (1 − β^t)."""
    v, u = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gradients, start=1):
        b1, b2 = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (B1, B2))
        v, u = b1 * v + (1 - b1) * g, b2 * u + (1 - b2) * g * g
        rate = LR / max(1.0, float(np.sqrt(np.mean(g * g / np.maximum(u, EPS**2)))))
        x = x - rate * DECAY * x - rate * v / (np.sqrt(u) + EPS)
    return x


def train(optimizer: torch.optim.Optimizer, x: nn.Parameter, gradients: list[Array]) -> Array:
    for g in gradients:
        x.grad = torch.from_numpy(g).to(x.dtype)
        optimizer.step()
    return np.asarray(x.detach().double())


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("lr", [LR, torch.tensor(LR, dtype=torch.float64)])
def test_it_follows_the_algorithm(scale: float, lr: float | torch.Tensor) -> None:
    """The gradients grow: with `scale` 30 the last ones exceed the second moment by far."""
    random = np.random.default_rng(0)
    start = random.normal(size=(5, 7))
    gradients = [scale**step * random.normal(size=(5, 7)) for step in range(4)]
    x = nn.Parameter(torch.from_numpy(start.copy()))
    options = {"lr": lr, "betas": (B1, B2), "eps": EPS, "weight_decay": DECAY}
    found = train(StableAdamW([x], **options), x, gradients)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, by_hand(start, gradients), rtol=1e-12)
    plain = nn.Parameter(torch.from_numpy(start.copy()))
    theirs = train(torch.optim.AdamW([plain], lr=LR, betas=(B1, B2), eps=EPS, weight_decay=DECAY), plain, gradients)
    assert (np.abs(found - theirs).max() > 0.01) == (scale > 1)


def test_it_is_adamw_where_gradients_do_not_grow() -> None:
    """One step, RMS 1; then smaller gradients."""
    random = np.random.default_rng(1)
    start = random.normal(size=(4, 3))
    gradients = [0.5**step * np.sign(random.normal(size=(4, 3))) for step in range(5)]
    ours, theirs = (nn.Parameter(torch.from_numpy(start.copy())) for _ in range(2))
    options = {"lr": LR, "betas": (B1, B2), "eps": EPS, "weight_decay": DECAY}
    adamw = torch.optim.AdamW([theirs], **options)  # type: ignore[arg-type]
    stable = StableAdamW([ours], **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(train(stable, ours, gradients), train(adamw, theirs, gradients), rtol=1e-12)
    assert adamw.state_dict()["state"][0].keys() == stable.state_dict()["state"][0].keys()


def test_either_reads_the_others_state() -> None:
    random = np.random.default_rng(2)
    x, y = (nn.Parameter(torch.ones(3, 3, dtype=torch.float64)) for _ in range(2))
    gradients = [random.normal(size=(3, 3)) for _ in range(3)]
    first, second = StableAdamW([x], lr=LR), torch.optim.AdamW([y], lr=LR, betas=(B1, B2))
    train(first, x, gradients)
    second.load_state_dict(first.state_dict())
    for name, value in first.state[x].items():
        assert torch.equal(second.state[y][name], value)
    first.load_state_dict(second.state_dict())
    LAMB([x], lr=LR).load_state_dict(first.state_dict())
