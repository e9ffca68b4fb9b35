"""LAMB against its equations in float64, against AdamW, and against what must hold for any gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lambert.optim import LAMB, parameter_groups

LR, B1, B2, EPS, DECAY = 0.01, 0.9, 0.999, 1e-6, 0.01


def by_hand(x: list[float], gradients: list[list[float]], *, decay: float = DECAY, adapt: bool = True) -> list[float]:
    """Algorithm 2 of the paper in plain Python floats, one layer."""
    m, v = [0.0] * len(x), [0.0] * len(x)
    for t, g in enumerate(gradients, start=1):
        m = [B1 * a + (1 - B1) * b for a, b in zip(m, g, strict=True)]
        v = [B2 * a + (1 - B2) * b * b for a, b in zip(v, g, strict=True)]
        m_hat = [a / (1 - B1**t) for a in m]
        v_hat = [a / (1 - B2**t) for a in v]
        u = [a / (math.sqrt(b) + EPS) + decay * c for a, b, c in zip(m_hat, v_hat, x, strict=True)]
        x_norm, u_norm = math.hypot(*x), math.hypot(*u)
        ratio = x_norm / u_norm if adapt and x_norm > 0 and u_norm > 0 else 1.0
        x = [a - LR * ratio * b for a, b in zip(x, u, strict=True)]
    return x


def by_lamb(x: list[float], gradients: list[list[float]], *, decay: float = DECAY, adapt: bool = True) -> list[float]:
    parameter = nn.Parameter(torch.tensor(x, dtype=torch.float64))
    optimizer = LAMB([{"params": [parameter], "adapt": adapt}], lr=LR, betas=(B1, B2), eps=EPS, weight_decay=decay)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return [float(value) for value in parameter.detach()]


CASES = {
    "ordinary": ([0.5, -1.0, 2.0], [[0.1, -0.2, 0.3], [1.0, 0.0, -5.0], [0.0, 0.0, 0.0], [1e-8, 2.0, 1e4]]),
    "weights start at zero": ([0.0, 0.0], [[1.0, -2.0], [0.5, 0.5]]),
    "gradient and weights zero": ([0.0, 0.0], [[0.0, 0.0], [1.0, 1.0]]),
    "gradient zero": ([1.0, 2.0], [[0.0, 0.0], [0.0, 0.0]]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_equals_the_equations_in_float64(case: str, adapt: bool, decay: float) -> None:
    x, gradients = CASES[case]
    expected = by_hand(x, gradients, decay=decay, adapt=adapt)
    assert by_lamb(x, gradients, decay=decay, adapt=adapt) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_with_the_ratio_forced_to_one_is_adamw() -> None:
    torch.manual_seed(0)
    start = torch.randn(7, 5, dtype=torch.float64)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    lamb = LAMB([{"params": [ours], "adapt": False}], lr=LR, betas=(B1, B2), eps=EPS, weight_decay=DECAY)
    adamw = torch.optim.AdamW([theirs], lr=LR, betas=(B1, B2), eps=EPS, weight_decay=DECAY)
    for _ in range(20):
        ours.grad = torch.randn_like(start)
        theirs.grad = ours.grad.clone()
        lamb.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_state_goes_over_to_adamw_and_back() -> None:
    parameter = nn.Parameter(torch.randn(3))
    lamb = LAMB([parameter], lr=LR)
    parameter.grad = torch.ones(3)
    lamb.step()
    adamw = torch.optim.AdamW([nn.Parameter(torch.randn(3))])
    adamw.load_state_dict({**adamw.state_dict(), "state": lamb.state_dict()["state"]})
    again = LAMB([parameter], lr=LR)
    again.load_state_dict(lamb.state_dict())
    assert again.state[parameter]["step"].item() == 1
    assert adamw.state_dict()["state"][0].keys() == lamb.state_dict()["state"][0].keys()


@given(
    size=st.integers(1, 40),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
    decay=st.sampled_from([0.0, 0.1]),
)
def test_an_adapted_layer_moves_by_its_share(size: int, scale: float, seed: int, decay: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64) + 0.1)
    optimizer = LAMB([x], lr=LR, weight_decay=decay)
    for _ in range(3):
        before = x.detach().clone()
        x.grad = scale * torch.randn(size, generator=generator, dtype=torch.float64)
        optimizer.step()
        moved = torch.linalg.vector_norm(x.detach() - before)
        assert float(moved / torch.linalg.vector_norm(before)) == pytest.approx(LR, rel=1e-9)


def test_gradient_is_left_alone_and_missing_ones_are_skipped() -> None:
    with_gradient, without = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = LAMB([with_gradient, without], lr=LR)
    with_gradient.grad = torch.tensor([1.0, 2.0, 3.0])
    optimizer.step()
    assert with_gradient.grad.tolist() == [1.0, 2.0, 3.0]
    assert without.tolist() == [1.0, 1.0, 1.0]
    assert without not in optimizer.state


def test_closure_is_evaluated_with_gradients() -> None:
    x = nn.Parameter(torch.tensor([2.0]))
    optimizer = LAMB([x], lr=LR)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (x**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert x.item() < 2.0


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", -1.0), ("betas", (1.0, 0.9)), ("betas", (0.9, -0.1)), ("eps", 0.0), ("weight_decay", -1.0)],
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        LAMB([nn.Parameter(torch.ones(1))], **{name: value})  # type: ignore[arg-type]


def test_sparse_gradients_are_refused_with_a_remedy() -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse=False"):
        LAMB(embedding.parameters()).step()


def test_trust_ratios_are_told_by_name_for_adapted_layers() -> None:
    layer = nn.Linear(3, 2)
    optimizer = LAMB(parameter_groups(layer, weight_decay=0.0), lr=LR)
    layer(torch.ones(1, 3)).sum().backward()
    weight = layer.weight.detach().clone()
    optimizer.step()
    ratios = optimizer.trust_ratios(layer.named_parameters())
    assert ratios == optimizer.trust_ratios(), "groups of parameter_groups know their names"
    # Without decay the first direction is sign(g), whose norm is √6.
    assert ratios == {"weight": pytest.approx(float(weight.norm()) / math.sqrt(6), rel=1e-4)}


def test_every_parameter_is_in_exactly_one_group() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 5))
    model[3].weight = model[0].weight  # tied
    model[1].bias.requires_grad_(False)
    decayed, excluded = parameter_groups(model, weight_decay=0.1)
    assert [name for name, _ in decayed["params"]] == ["0.weight", "1.weight"]
    assert [name for name, _ in excluded["params"]] == ["2.weight", "2.bias", "3.bias"]
    assert (decayed["weight_decay"], excluded["weight_decay"]) == (0.1, 0.0)
    assert (decayed["adapt"], excluded["adapt"]) == (True, False)
