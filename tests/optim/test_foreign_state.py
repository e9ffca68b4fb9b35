"""State of other optimizers: the next step is what Algorithm 2 makes of it by hand, or the state is refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lambert.optim import LAMB, LANS, LARS
from lambert.optim.combined import CombinedOptimizer
from lambert.optim.muon import Muon

Array = NDArray[np.float64]
LR, EPS, DECAY, BETAS = 0.01, 1e-6, 0.1, (0.8, 0.95)
STEPS = 50
SHAPES = [(6, 4), (6,)]
SLICES = [(0, (2, 2, 2))]


def next_weight(x: Array, m: Array, v: Array, t: int, g: Array, *, decay: float, adapt: bool) -> Array:
    """Algorithm 2, lines 5 to 11, for one layer."""
    m, v = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g * g
    u = m / (1 - BETAS[0] ** t) / (np.sqrt(v / (1 - BETAS[1] ** t)) + EPS) + decay * x
    return x - LR * (np.linalg.norm(x) / np.linalg.norm(u) if adapt else 1.0) * u


def drawn(seed: int) -> list[Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=chance, dtype=torch.float64) for shape in SHAPES]


def moments() -> tuple[list[Tensor], list[Tensor]]:
    """First and second moments of all parameters after STEPS steps."""
    m, v = (
        [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES],
        [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES],
    )
    for step in range(STEPS):
        for one, other, g in zip(m, v, drawn(step), strict=True):
            one.mul_(BETAS[0]).add_(g, alpha=1 - BETAS[0])
            other.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
    return m, v


def saved(place: str, step: Any = STEPS, **options: Any) -> dict[str, Any]:
    """A state dict of two groups of one parameter with its step `in the state`, `in the group` or nowhere."""
    m, v = moments()
    groups = [
        {"params": [i], "lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": DECAY * (i == 0), **options}
        for i in range(2)
    ]
    state: dict[Any, dict[str, Any]] = {i: {"exp_avg": m[i], "exp_avg_sq": v[i]} for i in range(2)}
    for holder in {"in the state": list(state.values()), "in the group": groups, "nowhere": []}[place]:
        holder["step"] = step
    return {"state": state, "param_groups": groups}


def from_adamw() -> dict[str, Any]:
    parameters = [nn.Parameter(one) for one in drawn(-1)]
    groups = [{"params": [p], "weight_decay": DECAY * (i == 0)} for i, p in enumerate(parameters)]
    adamw = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    for step in range(STEPS):
        for parameter, gradient in zip(parameters, drawn(step), strict=True):
            parameter.grad = gradient
        adamw.step()
    return adamw.state_dict()


def sums_instead_of_averages(state: dict[str, Any]) -> dict[str, Any]:
    """As apex and timm make them with grad_averaging=False: m ← β₁m + g."""
    for one in state["state"].values():
        one["exp_avg"] = one["exp_avg"] / (1 - BETAS[0])
    return state


def by_name(state: dict[str, Any]) -> dict[str, Any]:
    """As torch.distributed.checkpoint keeps it."""
    names = ["dense.weight", "dense.bias"]
    groups = [{**group, "params": [names[i]]} for i, group in enumerate(state["param_groups"])]
    return {"state": dict(zip(names, state["state"].values(), strict=True)), "param_groups": groups}


def fresh() -> tuple[list[nn.Parameter], LAMB]:
    parameters = [nn.Parameter(one) for one in drawn(-2)]
    groups = [
        {"params": parameters[:1], "slices": SLICES, "weight_decay": DECAY},
        {"params": parameters[1:], "adapt": False, "weight_decay": 0.0},
    ]
    return parameters, LAMB(groups, lr=LR, eps=EPS)


def own() -> dict[str, Any]:
    _, optimizer = fresh()
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["betas"] = BETAS
    return {**saved("in the state"), "param_groups": state["param_groups"]}


def older(*lacking: str) -> dict[str, Any]:
    """Our own, of a version that lacked some options."""
    state = own()
    for group in state["param_groups"]:
        for option in lacking:
            del group[option]
    return state


APEX = {"bias_correction": True, "grad_averaging": True}
TAKEN = {
    "AdamW": from_adamw(),
    "AdamW, fused": {**(one := from_adamw()), "param_groups": [g | {"fused": True} for g in one["param_groups"]]},
    "apex FusedLAMB": saved("in the group", **APEX),
    "apex, capturable": saved("in the group", torch.tensor([STEPS]), **APEX),
    "timm Lamb": saved("in the group", **APEX, trust_clip=False, always_adapt=False),
    "sums of gradients": sums_instead_of_averages(saved("in the group", **APEX | {"grad_averaging": False})),
    "torch-optimizer Lamb": saved("in the state"),
    "by name": by_name(saved("in the state", torch.tensor(float(STEPS)))),
    "ours": own(),
    "ours, older": older("slices", "norm_bounds", "fused", "master_weights"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_the_next_step_is_that_of_algorithm_2(name: str) -> None:
    parameters, optimizer = fresh()
    optimizer.load_state_dict(copy.deepcopy(TAKEN[name]))
    m, v = moments()
    x, g = [p.detach().numpy().copy() for p in parameters], drawn(99)
    for parameter, gradient in zip(parameters, g, strict=True):
        parameter.grad = gradient
    optimizer.step()
    for part in (slice(0, 2), slice(2, 4), slice(4, 6)):
        values = (x[0][part], m[0][part].numpy(), v[0][part].numpy(), STEPS + 1, g[0][part].numpy())
        expected = next_weight(*values, decay=DECAY, adapt=True)
        np.testing.assert_allclose(parameters[0].detach().numpy()[part], expected, rtol=1e-12)
    vector = next_weight(x[1], m[1].numpy(), v[1].numpy(), STEPS + 1, g[1].numpy(), decay=0.0, adapt=False)
    np.testing.assert_allclose(parameters[1].detach().numpy(), vector, rtol=1e-12)


def changed(key: str, value: Any) -> dict[str, Any]:
    state = saved("in the state")
    state["state"][0][key] = value
    return state


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (saved("nowhere"), "no step count"),
        (saved("in the group", 0), "moments after no step"),
        (saved("in the state", 1.5), "no count"),
        (saved("in the state", float("nan")), "no count"),
        (saved("in the state", maximize=True), "maximize=True"),
        (changed("exp_avg", torch.zeros(4, 6)), r"exp_avg of \(4, 6\)"),
        (changed("exp_avg_sq", torch.zeros(6, 4, dtype=torch.uint8)), "not floating-point"),
        ({**saved("in the state"), "param_groups": saved("nowhere")["param_groups"][:1]}, "groups of"),
        ({**saved("in the state"), "state": {7: {"exp_avg": torch.ones(6)}}}, "moments of 7"),
        (
            {**saved("nowhere"), "state": {0: {"momentum_buffer": torch.zeros(6, 4)}}},
            "momentum_buffer and no exp_avg, exp_avg_sq",
        ),
        (changed("exp_avg_diff", torch.zeros(6, 4)), "exp_avg_diff beside exp_avg, exp_avg_sq"),
    ],
)
def test_what_cannot_be_continued_is_refused(state: dict[str, Any], why: str) -> None:
    _, optimizer = fresh()
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=why):
        optimizer.load_state_dict(state)
    assert optimizer.state_dict() == before


def test_momentum_of_gradients_that_were_divided_is_no_momentum_of_lars() -> None:
    parameter = nn.Parameter(torch.ones(6, 4))
    other = torch.optim.RMSprop([parameter], lr=LR, momentum=0.9, weight_decay=0.01)
    parameter.grad = torch.ones(6, 4)
    other.step()
    with pytest.raises(ValueError, match="square_avg beside momentum_buffer: it is of another kind"):
        LARS([parameter], lr=LR).load_state_dict(other.state_dict())


def test_the_same_names_in_another_order_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    named = list(model.named_parameters())
    with pytest.raises(ValueError, match="another order"):
        LAMB(named).load_state_dict(torch.optim.AdamW(named[::-1]).state_dict())


def test_options_that_differ_stay_and_are_named() -> None:
    parameters, optimizer = fresh()
    with pytest.warns(UserWarning, match=r"keeps its own lr=0.01 \(not 0.3\)"):
        optimizer.load_state_dict(saved("in the state", lr=0.3))
    assert [group["lr"] for group in optimizer.param_groups] == [LR, LR]
    with pytest.warns(UserWarning, match="no use for max_exp_avg_sq"):
        optimizer.load_state_dict(changed("max_exp_avg_sq", torch.ones(6, 4)))
    assert "max_exp_avg_sq" not in optimizer.state[parameters[0]]


@pytest.mark.parametrize("kind", [LAMB, LANS, LARS])
def test_an_optimizer_goes_on_from_its_own_state(kind: Any) -> None:
    first, second = ([nn.Parameter(one) for one in drawn(-2)] for _ in range(2))
    optimizers = [kind(first, lr=LR), kind(second, lr=0.5)]
    for step in range(4):
        for parameters, optimizer in zip((first, second), optimizers, strict=True):
            for parameter, gradient in zip(parameters, drawn(step), strict=True):
                parameter.grad = gradient
            optimizer.step()
        if step == 1:
            optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
            for one, other in zip(first, second, strict=True):
                other.data = one.detach().clone()
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("first_part", [Muon, LAMB, LARS])
def test_both_parts_of_a_combined_optimizer_resume_from_its_state(first_part: Any) -> None:
    def make() -> tuple[list[nn.Parameter], CombinedOptimizer]:
        parameters = [nn.Parameter(one) for one in drawn(-2)]
        return parameters, CombinedOptimizer(
            first_part(parameters[:1], lr=LR), torch.optim.AdamW(parameters[1:], lr=LR)
        )

    def move(parameters: list[nn.Parameter], optimizer: CombinedOptimizer, seed: int) -> None:
        for parameter, gradient in zip(parameters, drawn(seed), strict=True):
            parameter.grad = gradient
        optimizer.step()

    (first, one), (second, other) = make(), make()
    for step in range(3):
        move(first, one, step)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for target, source in zip(second, first, strict=True):
        target.data = source.detach().clone()
    move(first, one, 3)
    move(second, other, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    if first_part is not LAMB:  # which takes AdamW's moments
        with pytest.raises(ValueError, match="not of the same optimizers"):
            other.load_state_dict(saved("in the state"))
