"""`grad_scale` and `found_inf`, as PyTorch's fused optimizers take them: by the equations, and beside AdamW."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lamb_by_hand import Options, lamb_by_hand
from lambert.optim import LAMB, LANS, LARS, AdamHyperball, Muon, MuonHyperball, StableAdamW, muon

STEPS = ((8.0, False), (8.0, True), (2.0, False))
"""The loss scale, and whether the step is skipped; with one scale throughout, these optimizers would not care."""


def train(parameter: nn.Parameter, optimizer: torch.optim.Optimizer) -> tuple[list[Tensor], list[bool]]:
    """Steps with a scaled gradient, NaN where it is skipped; returns gradients applied, and whether steps changed any
    tensor."""
    random = torch.Generator().manual_seed(0)
    applied, changed = [], []
    for scale, skipped in STEPS:
        gradient = torch.randn(parameter.shape, generator=random)
        parameter.grad = scale * gradient
        if skipped:
            parameter.grad[0] = float("nan")
        else:
            applied.append(gradient)
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(float(skipped))  # type: ignore[attr-defined]
        before = [tensor.clone() for tensor in (parameter, *optimizer.state[parameter].values())]
        optimizer.step()
        after = [parameter, *optimizer.state[parameter].values()]
        changed.append(len(before) != len(after) or not all(map(torch.equal, before, after)))
    return applied, changed


@pytest.mark.parametrize("options", [{"fused": True}, {"fused": False}, {"fused": None, "max_grad_norm": 0.5}])
def test_lamb_divides_by_the_scale_and_skips_like_the_equations(options: dict[str, Any]) -> None:
    parameter = nn.Parameter(torch.randn(9, 7))
    start = parameter.detach().double().numpy().copy()
    optimizer = LAMB([parameter], lr=0.01, **options)
    applied, _ = train(parameter, optimizer)
    limit = options.get("max_grad_norm")
    (expected,) = lamb_by_hand([start], [[g.double().numpy()] for g in applied], Options(max_grad_norm=limit))
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("make", [LAMB, LANS, LARS, Muon, AdamHyperball, MuonHyperball, StableAdamW])
def test_a_skipped_step_changes_nothing_as_with_fused_adamw(
    make: Any, stacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "_are_stacked", lambda parameters: stacked)
    ours, theirs = (nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    optimizer, adamw = make([ours]), torch.optim.AdamW([theirs], fused=True)
    assert train(ours, optimizer)[1] == train(theirs, adamw)[1] == [True, False, True]
    if "step" in optimizer.state[ours]:
        assert optimizer.state[ours]["step"] == adamw.state[theirs]["step"] == 2


@pytest.mark.parametrize("stacked", [True, False])
def test_muon_divides_by_the_scale(stacked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "_are_stacked", lambda parameters: stacked)
    ours, theirs = (nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    applied, _ = train(ours, Muon([ours], 1e-3, 0.01, adjust_lr_fn="match_rms_adamw"))
    torchs = torch.optim.Muon([theirs], 1e-3, 0.01, adjust_lr_fn="match_rms_adamw")
    for gradient in applied:
        theirs.grad = gradient
        torchs.step()
    torch.testing.assert_close(ours - 1, theirs - 1, rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
def test_matrices_orthogonalized_together_move_as_by_torchs_muon(adjust: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "_are_stacked", lambda parameters: True)
    monkeypatch.setattr(muon, "TOGETHER", 60)  # two of the tall ones at once
    torch.manual_seed(0)
    shapes = [(6, 4), (6, 4), (4, 8), (5, 5), (6, 4), (4, 8)]
    starts = [torch.randn(shape) for shape in shapes]
    ours, theirs = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    optimizer, torchs = (
        kind(own, 0.1, 0.1, adjust_lr_fn=adjust) for kind, own in ((Muon, ours), (torch.optim.Muon, theirs))
    )
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        optimizer.step()
        torchs.step()
    for one, other, start in zip(ours, theirs, starts, strict=True):
        assert float((one - other).detach().norm() / (other - start).detach().norm()) < 0.01
