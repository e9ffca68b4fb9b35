"""LARS and LANS against their equations by hand, and the same promises as LAMB's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lambert.optim import LANS, LARS, engine
from lambert.optim.kernels import cpu, gpu, plain

Array = NDArray[np.float64]
LR, B1, B2, EPS, DECAY = 0.01, 0.9, 0.999, 1e-6, 0.1
STEPS = 4


def norm(x: Array) -> float:
    return float(np.sqrt((x * x).sum()))


def scaled(x: Array, u: Array, adapt: bool) -> Array:
    return norm(x) / norm(u) * u if adapt and norm(x) > 0 and norm(u) > 0 else u


def lars_by_hand(x: Array, gradients: list[Array], adapt: bool) -> Array:
    m = np.zeros_like(x)
    for g in gradients:
        m = B1 * m + (1 - B1) * (g + DECAY * x)
        x = x - LR * scaled(x, m, adapt)
    return x


def lans_by_hand(x: Array, gradients: list[Array], adapt: bool) -> Array:
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, gradient in enumerate(gradients, start=1):
        g = gradient / norm(gradient) if norm(gradient) > 0 else gradient
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * g * g
        denominator = np.sqrt(v / (1 - B2**t)) + EPS
        r = m / (1 - B1**t) / denominator + DECAY * x
        c = g / denominator + DECAY * x
        x = x - LR * (B1 * scaled(x, r, adapt) + (1 - B1) * scaled(x, c, adapt))
    return x


TAU = 0.02


def lars_2017_by_hand(x: Array, gradients: list[Array], adapt: bool) -> Array:
    v = np.zeros_like(x)
    for g in gradients:
        local = TAU * norm(x) / (norm(g) + DECAY * norm(x)) if adapt and norm(x) > 0 and norm(g) > 0 else 1.0
        v = B1 * v + local * (g + DECAY * x)
        x = x - LR * v
    return x


CASES: dict[str, tuple[Callable[..., Any], Callable[..., Array], dict[str, Any]]] = {
    "lars": (LARS, lars_by_hand, {"momentum": B1}),
    "lars of 2017": (LARS, lars_2017_by_hand, {"momentum": B1, "trust_coefficient": TAU}),
    "lans": (LANS, lans_by_hand, {"betas": (B1, B2), "eps": EPS}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("start", ["ordinary", "zero", "gradient zero"])
def test_equals_the_equations_in_float64(name: str, adapt: bool, start: str) -> None:
    make, by_hand, options = CASES[name]
    torch.manual_seed(0)
    x = torch.zeros(4, 3, dtype=torch.float64) if start == "zero" else torch.randn(4, 3, dtype=torch.float64)
    gradients = [torch.randn(4, 3, dtype=torch.float64) for _ in range(STEPS)]
    if start == "gradient zero":
        gradients[0].zero_()
    parameter = nn.Parameter(x.clone())
    optimizer = make([parameter], lr=LR, weight_decay=DECAY, adapt=adapt, **options)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        assert torch.equal(parameter.grad, gradient)
    expected = by_hand(x.numpy(), [gradient.numpy() for gradient in gradients], adapt)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_slices_are_layers_of_their_own(name: str) -> None:
    make, by_hand, options = CASES[name]
    torch.manual_seed(0)
    whole, gradient = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    parameter = nn.Parameter(whole.clone())
    optimizer = make([parameter], lr=LR, weight_decay=DECAY, slices=[(0, (5, 2))], **options)
    for _ in range(STEPS):
        parameter.grad = gradient
        optimizer.step()
    for part, x, g in zip(parameter.detach().split((5, 2)), whole.split((5, 2)), gradient.split((5, 2)), strict=True):
        np.testing.assert_allclose(part.numpy(), by_hand(x.numpy(), [g.numpy()] * STEPS, True), rtol=1e-12)
    assert set(optimizer.trust_ratios()) == (set() if name == "lars of 2017" else {"0.0[0]", "0.0[1]"})


@pytest.mark.parametrize("name", CASES)
def test_goes_on_from_its_state(name: str) -> None:
    make, _, options = CASES[name]
    one, other = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    first, second = make([one], lr=LR, **options), make([other])
    one.grad = other.grad = torch.linspace(-1, 2, 5)
    first.step()
    with torch.no_grad():
        other.copy_(one)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for optimizer in (first, second):
        optimizer.step()
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("make", "options", "told"),
    [
        (LARS, {"momentum": 1.0}, "LARS: momentum = 1.0"),
        (LARS, {"trust_coefficient": 0.0}, "LARS: trust_coefficient = 0.0 is not None, or a number above 0"),
        (LANS, {"betas": (0.9, 1.0)}, "LANS: betas = "),
    ],
)
def test_options_out_of_range_are_named(make: Callable[..., Any], options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make([nn.Parameter(torch.ones(1))], **options)


def test_lans_does_not_see_the_scale_of_the_gradient() -> None:
    results = []
    for scale in (1.0, 1e-6, 1e6):
        parameter = nn.Parameter(torch.linspace(-1, 2, 6, dtype=torch.float64))
        optimizer = LANS([parameter], lr=LR)
        parameter.grad = scale * torch.linspace(1, 2, 6, dtype=torch.float64)
        optimizer.step()
        results.append(parameter.detach())
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


@pytest.fixture(params=[40, 10**6])
def as_on_a_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many layers at once, of so many elements; norms of gradients, steps and what skips them the host never reads."""

    def step(layers: Any, rows: Any, rule: Any, found_inf: Any) -> None:
        for together in plain._batches(list(zip(layers, rows, strict=True)), rule):
            plain._step_end_to_end(together, rule, found_inf)

    monkeypatch.setattr(plain, "fused_step", step)
    monkeypatch.setattr(plain, "is_counted", lambda layer: True)
    monkeypatch.setattr(plain, "BATCH", request.param)
    monkeypatch.setattr(gpu, "waits", lambda tensor: True)
    monkeypatch.setattr(cpu, "gradient_squares", engine._squares_together)


SHAPES = [(4, 3), (30,), (5, 2), (3, 3, 2), (1,)]


def _of_all_shapes(name: str) -> tuple[Any, list[nn.Parameter]]:
    """An optimizer of five layers: the third starts at zero, the fourth has no flat view, the last is not adapted."""
    make, _, options = CASES[name]
    torch.manual_seed(0)
    starts = [torch.randn(shape, dtype=torch.float64) for shape in SHAPES]
    starts[2].zero_()
    parameters = [nn.Parameter(start.clone()) for start in starts]
    parameters[3].data = parameters[3].data.transpose(0, 2).contiguous().transpose(0, 2)
    groups: list[dict[str, Any]] = [{"params": parameters[:4]}, {"params": parameters[4:], "adapt": False}]
    return make(groups, lr=LR, weight_decay=DECAY, **options), parameters


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("name", CASES)
def test_layers_computed_end_to_end_equal_the_equations(name: str) -> None:
    """Steps that the device skips are as if they had not been; a layer may have had fewer than others of its batch."""
    optimizer, parameters = _of_all_shapes(name)
    starts = [parameter.detach().clone() for parameter in parameters]
    steps = [[torch.randn(shape, dtype=torch.float64) for shape in SHAPES] for _ in range(STEPS)]
    for number, gradients in enumerate(steps):
        for is_skipped in (True, False):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
                if is_skipped:
                    parameter.grad.view(-1)[-1] = float("nan")
            if number == 1:
                parameters[0].grad = None
            before = [tensor.clone() for p in parameters for tensor in (p.detach(), *optimizer.state[p].values())]
            optimizer.found_inf = torch.tensor(float(is_skipped))
            optimizer.step()
            after = [tensor for p in parameters for tensor in (p.detach(), *optimizer.state[p].values())]
            if is_skipped and number:
                assert all(map(torch.equal, before, after))
                assert {stats.weight_norm for stats in optimizer.layer_stats().values()} <= {0.0}
    for index, (parameter, start) in enumerate(zip(parameters, starts, strict=True)):
        own = [gradients[index].numpy() for number, gradients in enumerate(steps) if (index, number) != (0, 1)]
        expected = CASES[name][1](start.numpy(), own, index != 4)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12, atol=1e-14)
        assert optimizer.state[parameter]["step"] == len(own)
    named = {f"{i}": parameter for i, parameter in enumerate(parameters)}
    assert set(optimizer.trust_ratios(named.items())) == (set() if name == "lars of 2017" else {"0", "1", "2", "3"})


def test_lars_keeps_its_form_through_a_state_dict_and_refuses_both_at_once() -> None:
    parameter = nn.Parameter(torch.ones(3))
    later = LARS([parameter], trust_coefficient=0.5)
    other = LARS([nn.Parameter(torch.ones(3))])
    assert later.rule is not other.rule
    parameter.grad = torch.ones(3)
    later.step()
    other.load_state_dict(later.state_dict())
    assert other.rule is later.rule
    with pytest.raises(ValueError, match="trust_coefficient is None in some groups only"):
        later.add_param_group({"params": [nn.Parameter(torch.ones(2))], "trust_coefficient": None})
