"""Hyperball against its equations in float64, and by its property: the norm of a layer stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lambert.optim import AdamHyperball, MuonHyperball, engine, newton_schulz
from lambert.optim.kernels import cpu, gpu, plain

Array = NDArray[np.float64]
LR, B1, B2, EPS, MOMENTUM = 0.05, 0.9, 0.999, 1e-6, 0.95


def norm(x: Array) -> float:
    return float(np.sqrt((x * x).sum()))


def moved(x: Array, u: Array) -> Array:
    """W ← R · Norm(W − η · R · Norm(u)), in the letters of the paper."""
    new = x - LR * (norm(x) or norm(u)) * u / norm(u)
    return new / norm(new) * (norm(x) or norm(new))


def adam_by_hand(x: Array, gradients: list[Array]) -> Array:
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gradients, start=1):
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
        x = moved(x, m / (1 - B1**t) / (np.sqrt(v / (1 - B2**t)) + EPS))
    return x


def muon_by_hand(x: Array, gradients: list[Array]) -> Array:
    """With the exact orthogonal factor, by singular values."""
    m = np.zeros_like(x)
    for g in gradients:
        m = MOMENTUM * m + (1 - MOMENTUM) * g
        left, _, right = np.linalg.svd((1 - MOMENTUM) * g + MOMENTUM * m, full_matrices=False)
        x = moved(x, left @ right)
    return x


def exact(matrices: torch.Tensor, *_: Any) -> torch.Tensor:
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    return left @ right


CASES: dict[str, tuple[Any, Any]] = {"adam": (AdamHyperball, adam_by_hand), "muon": (MuonHyperball, muon_by_hand)}


@pytest.fixture(params=["one by one", "end to end", "sharded path"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways that a step takes: layer by layer, many at once as on a GPU, and with norms reduced in between."""
    monkeypatch.setattr("lambert.optim.equations.orthogonal", exact)
    if request.param == "end to end":

        def together(layers: Any, rows: Any, rule: Any, found_inf: Any = None) -> None:
            for batch in plain._batches(list(zip(layers, rows, strict=True)), rule):
                plain._step_end_to_end(batch, rule, found_inf)

        monkeypatch.setattr(plain, "fused_step", together)
        monkeypatch.setattr(plain, "is_counted", lambda layer: True)
        monkeypatch.setattr(gpu, "waits", lambda tensor: True)
        monkeypatch.setattr(cpu, "gradient_squares", engine._squares_together)
    elif request.param == "sharded path":

        def apart(layers: Any, rows: Any, rule: Any, found_inf: Any = None) -> None:
            for layer, row in zip(layers, rows, strict=True):
                plain.update_moments(layer, row, rule)
                plain.apply_update(layer, row, rule)
            plain.restore_norms(layers, rows)

        monkeypatch.setattr(plain, "fused_step", apart)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("name", CASES)
def test_equals_the_equations_in_float64(name: str) -> None:
    make, by_hand = CASES[name]
    torch.manual_seed(0)
    shapes = [(4, 3), (3, 7), (5, 5)]
    starts = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    starts[2].zero_()
    gradients = [[torch.randn(shape, dtype=torch.float64) for shape in shapes] for _ in range(4)]
    parameters = [nn.Parameter(start.clone()) for start in starts]
    optimizer = make(parameters, lr=LR)
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    for index, (parameter, start) in enumerate(zip(parameters, starts, strict=True)):
        expected = by_hand(start.numpy(), [step[index].numpy() for step in gradients])
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [AdamHyperball, MuonHyperball])
def test_norms_stay_through_a_thousand_float32_steps(make: Any) -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(24, 16))
    optimizer = make([parameter], lr=0.1, slices=[(0, (8, 16))])
    before = [part.detach().double().norm() for part in parameter.split((8, 16))]
    start = parameter.detach().clone()
    for _ in range(1_000):
        parameter.grad = torch.randn(24, 16)
        optimizer.step()
    for part, was in zip(parameter.split((8, 16)), before, strict=True):
        assert abs(float(part.detach().double().norm() / was) - 1) < 2e-6
    assert float((parameter - start).detach().norm() / start.norm()) > 0.5
    assert set(optimizer.trust_ratios()) == {"0.0[0]", "0.0[1]"}


def test_muons_direction_is_that_of_torchs_muon() -> None:
    """A small step from the same gradients: the direction is the same, in bfloat16; the norm is kept."""
    torch.manual_seed(0)
    start = torch.randn(6, 4)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer, muon = MuonHyperball([ours], lr=1e-4), torch.optim.Muon([theirs], lr=1e-4, weight_decay=0.0)
    for _ in range(3):
        ours.grad = torch.randn(6, 4)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        muon.step()
    step, other = (ours - start).detach().double(), (theirs - start).detach().double()
    other -= (other * start).sum() / start.double().square().sum() * start  # what the projection takes off
    cosine = (step * other).sum() / step.norm() / other.norm()
    assert float(cosine) > 0.999


def test_newton_schulz_is_nearly_the_orthogonal_factor() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(3, 12, 5)
    singular = torch.linalg.svdvals(newton_schulz.orthogonal(matrix).float())
    assert float(singular.min()) > 0.6 and float(singular.max()) < 1.3


@pytest.mark.parametrize(
    ("make", "parameter", "options", "told"),
    [
        (
            AdamHyperball,
            torch.ones(2, 2),
            {"weight_decay": 0.1},
            "AdamHyperball: weight_decay = 0.1, but norms are kept",
        ),
        (MuonHyperball, torch.ones(3), {}, r"MuonHyperball takes matrices; got a parameter of shape \(3,\)"),
        (MuonHyperball, torch.ones(2, 2), {"momentum": 1.0}, "MuonHyperball: momentum = 1.0"),
    ],
)
def test_what_it_cannot_update_is_refused(make: Any, parameter: torch.Tensor, options: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make([{"params": [nn.Parameter(parameter)], **options}])
