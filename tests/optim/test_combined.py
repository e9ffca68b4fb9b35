"""Several optimizers as one: the same steps as apart, under schedulers, gradient scalers and closures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from lambert.optim import LAMB, CombinedOptimizer, LayerwiseOptimizer, parameter_groups, split_groups


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3))


def hidden_and_rest(net: nn.Sequential) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return split_groups(parameter_groups(net, weight_decay=0.1), lambda tensor: tensor is net[1].weight)


def train(net: nn.Sequential, optimizers: list[Any], schedulers: list[Any]) -> None:
    for step in range(4):
        torch.manual_seed(step)
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        for one in (*optimizers, *schedulers):
            one.step()


def test_moves_as_its_parts_would_apart_under_a_scheduler() -> None:
    together, apart = model(), model()
    (hidden, rest), (own_hidden, own_rest) = hidden_and_rest(together), hidden_and_rest(apart)
    combined = CombinedOptimizer(LAMB(hidden, lr=0.1), AdamW([_plain(group) for group in rest], lr=0.01))
    alone = [LAMB(own_hidden, lr=0.1), AdamW([_plain(group) for group in own_rest], lr=0.01)]

    def halved(one: Any) -> Any:
        return torch.optim.lr_scheduler.ExponentialLR(one, 0.5)

    train(together, [combined], [halved(combined)])
    train(apart, alone, [halved(one) for one in alone])
    for (name, one), other in zip(together.named_parameters(), apart.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert len(combined.state) == 7
    ratios = next(part for part in combined.parts if isinstance(part, LayerwiseOptimizer)).trust_ratios()
    assert list(ratios) == ["1.weight"]


def _plain(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in ("adapt", "slices")}


def test_split_groups_keeps_options_slices_and_every_parameter() -> None:
    first, second = nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.ones(2))
    group = {"params": [("a", first), ("b", second)], "slices": [(0, (2, 2)), None], "weight_decay": 0.5}
    chosen, rest = split_groups([group], lambda tensor: tensor.ndim == 2)
    assert chosen == [{"params": [("a", first)], "slices": [(0, (2, 2))], "weight_decay": 0.5}]
    assert rest == [{"params": [("b", second)], "slices": [None], "weight_decay": 0.5}]


def test_found_inf_skips_every_part_and_a_closure_is_called_once() -> None:
    one, other = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))
    combined: Any = CombinedOptimizer(LAMB([one]), AdamW([other], fused=True))
    assert combined._step_supports_amp_scaling
    one.grad, other.grad = torch.ones(2, 2), torch.full((3,), torch.inf)
    combined.found_inf, combined.grad_scale = torch.tensor(1.0), torch.tensor(2.0)
    calls = []

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        return 5.0

    assert combined.step(closure) == 5.0
    assert calls == [True] and torch.equal(one, torch.ones(2, 2)) and torch.equal(other, torch.ones(3))
    assert not CombinedOptimizer(LAMB([one]), SGD([other], lr=0.1))._step_supports_amp_scaling


def test_a_parameter_in_two_parts_is_refused() -> None:
    one = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match="more than one parameter group"):
        CombinedOptimizer(LAMB([one]), AdamW([one]))
