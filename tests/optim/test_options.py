"""Options in groups and state: what is kept, restored, skipped and refused."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lamb_by_hand import Options, lamb_by_hand
from lambert.optim import LAMB, any_of, by_dimensions, by_module, by_name, parameter_groups


def make(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[nn.Parameter, LAMB]:
    parameter = nn.Parameter(torch.linspace(-1, 2, 12, dtype=dtype).reshape(3, 4))
    return parameter, LAMB([parameter], **{"lr": 0.01, **options})


def move(parameter: nn.Parameter, optimizer: LAMB, times: int = 1, scale: float = 1.0) -> None:
    for t in range(times):
        parameter.grad = scale * torch.linspace(1, -1, 12).cos().reshape(3, 4).to(parameter.dtype) * (t + 1)
        optimizer.step()


EVERY_OPTION = {
    "lr": 0.02,
    "betas": (0.8, 0.99),
    "eps": 1e-5,
    "weight_decay": 0.1,
    "adapt": "decayed",
    "bias_correction": False,
    "max_grad_norm": 0.7,
    "norm_bounds": (0.1, 1.5),
    "maximize": True,
    "master_weights": True,
    "slices": [(0, (1, 2))],
    "fused": False,
}


def test_every_option_goes_through_state_dict_and_back() -> None:
    parameter, optimizer = make(**EVERY_OPTION)
    assert set(optimizer.defaults) == set(EVERY_OPTION), "this test must know every option"
    move(parameter, optimizer, 2)
    other = nn.Parameter(parameter.detach().clone())
    again = LAMB([other])
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for option, value in EVERY_OPTION.items():
        assert again.param_groups[0][option] == value
    move(parameter, optimizer)
    move(other, again)
    assert torch.equal(parameter, other)


def test_options_differ_between_groups() -> None:
    first, second = (nn.Parameter(torch.tensor([3.0, 4.0])) for _ in range(2))
    optimizer = LAMB([{"params": [first]}, {"params": [second], "lr": 0.2, "weight_decay": 0.0}], lr=0.1)
    optimizer.add_param_group({"params": [third := nn.Parameter(torch.tensor([3.0, 4.0]))], "adapt": False})
    for parameter in (first, second, third):
        parameter.grad = torch.ones(2)
    optimizer.step()
    moved = [float((parameter.detach() - torch.tensor([3.0, 4.0])).norm()) for parameter in (first, second, third)]
    assert moved[:2] == pytest.approx([0.5, 1.0], rel=1e-5)
    assert moved[2] == pytest.approx(0.1 * ((1.03**2 + 1.04**2) ** 0.5), rel=1e-5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lr", float("nan")), ("lr", "fast"), ("betas", (0.9,)), ("betas", (0.9, 1.0)), ("eps", 0.0),
        ("weight_decay", -0.1), ("adapt", "always"), ("adapt", 1), ("max_grad_norm", -1.0), ("norm_bounds", (2.0, 1.0)),
        ("norm_bounds", 3.0), ("maximize", None), ("master_weights", 1), ("bias_correction", "no"), ("fused", "yes"),
        ("slices", [(0, (1, 1))]), ("slices", [(2, (3,))]), ("slices", []),
    ],
)  # fmt: skip
def test_options_out_of_range_are_named_and_leave_the_optimizer_as_it_was(option: str, value: object) -> None:
    _, optimizer = make()
    with pytest.raises(ValueError, match=f"LAMB: {option}"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3, 4))], option: value})
    assert len(optimizer.param_groups) == 1


def test_a_misspelt_option_is_named_and_an_unknown_one_is_kept() -> None:
    parameter = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="LAMB: a group has no option weight_deacy; did you mean weight_decay?"):
        LAMB([{"params": [parameter], "weight_deacy": 0.1}])
    optimizer = LAMB([{"params": [parameter], "tower": "left"}])
    assert optimizer.param_groups[0]["tower"] == "left"


def test_a_model_in_place_of_its_parameters_is_refused() -> None:
    with pytest.raises(TypeError, match=r"LAMB takes parameters: give model.parameters\(\) or parameter_groups"):
        LAMB(nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="parameter_groups needs the model itself"):
        parameter_groups(nn.Linear(2, 2).parameters(), weight_decay=0.1)  # type: ignore[arg-type]


def test_a_rate_in_a_tensor_is_followed() -> None:
    rate = torch.tensor(0.01)
    parameter, optimizer = make(lr=rate)
    other, plain = make(lr=0.01)
    move(parameter, optimizer)
    move(other, plain)
    rate.fill_(0.5)
    plain.param_groups[0]["lr"] = 0.5
    move(parameter, optimizer)
    move(other, plain)
    torch.testing.assert_close(parameter, other)


def test_schedulers_and_hooks_of_torch_work() -> None:
    parameter, optimizer = make()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    seen: list[float] = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
    for _ in range(3):
        move(parameter, optimizer)
        schedule.step()
    assert seen == pytest.approx([0.01, 0.005, 0.01 / 3])


def test_an_overflow_leaves_everything_untouched() -> None:
    parameter, optimizer = make(max_grad_norm=1.0)
    move(parameter, optimizer)
    before, state = parameter.detach().clone(), copy.deepcopy(optimizer.state_dict()["state"])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))
    parameter.grad = torch.full((3, 4), float("nan"))
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(parameter, before)
    for key, value in optimizer.state_dict()["state"][0].items():
        assert torch.equal(value, state[0][key])
    assert scaler.get_scale() == 2.0


def test_a_loss_scale_is_taken_out_before_the_clip() -> None:
    parameter, optimizer = make(max_grad_norm=0.5)
    other, plain = make(max_grad_norm=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for scale in (1e-2, 1.0):
        scaler.scale(torch.zeros(()))
        parameter.grad = 1024 * scale * torch.ones(3, 4)
        scaler.step(optimizer)
        scaler.update()
        other.grad = scale * torch.ones(3, 4)
        plain.step()
    torch.testing.assert_close(parameter, other, rtol=1e-6, atol=0)


def test_the_clip_is_over_all_groups_that_share_its_number() -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    groups = [
        {"params": [parameters[0]], "max_grad_norm": 1.0},
        {"params": [parameters[1]], "max_grad_norm": 1.0},
        {"params": [parameters[2]], "max_grad_norm": 2.0},
    ]
    optimizer = LAMB(groups, betas=(0.0, 0.999))
    for parameter in parameters:
        parameter.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    firsts = [float(optimizer.state[parameter]["exp_avg"].norm()) for parameter in parameters]
    assert firsts == pytest.approx([0.5**0.5, 0.5**0.5, 2.0], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_moments_and_master_weights_keep_float32_through_a_checkpoint(dtype: torch.dtype, tmp_path: Path) -> None:
    parameter, optimizer = make(dtype, master_weights=True)
    move(parameter, optimizer, 3, scale=0.01)
    state = optimizer.state[parameter]
    assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == state["master"].dtype == torch.float32
    assert torch.equal(state["master"].to(dtype), parameter)
    assert not torch.equal(state["master"], parameter.float()), "the copy must hold more than the parameter"
    save_file({**state, "weights": parameter.detach()}, tmp_path / "state.safetensors")
    tensors = load_file(tmp_path / "state.safetensors")
    other, again = make(dtype, master_weights=True)
    with torch.no_grad():
        other.copy_(tensors.pop("weights"))
    again.load_state_dict({**optimizer.state_dict(), "state": {0: tensors}})
    with torch.no_grad():  # weights loaded after the optimizer: they are what the copy rounds to
        other.copy_(parameter)
    move(parameter, optimizer, scale=0.01)
    move(other, again, scale=0.01)
    assert torch.equal(optimizer.state[parameter]["master"], again.state[other]["master"])
    assert torch.equal(parameter, other)


def by_no_grad(parameter: nn.Parameter) -> None:
    with torch.no_grad():
        parameter.fill_(5.0)


def by_assignment(parameter: nn.Parameter) -> None:
    parameter.data = torch.full_like(parameter.data, 5.0)


def by_vector(parameter: nn.Parameter) -> None:
    nn.utils.vector_to_parameters(torch.full((parameter.numel(),), 5.0, dtype=parameter.dtype), [parameter])


@pytest.mark.parametrize("change", [by_no_grad, by_assignment, by_vector, lambda p: p.data.fill_(5.0)])
def test_master_weights_follow_weights_changed_from_elsewhere(change: Callable[[nn.Parameter], Any]) -> None:
    """Changes of `.data` leave no trace in the parameter's version."""
    parameter, optimizer = make(torch.bfloat16, master_weights=True)
    move(parameter, optimizer)
    change(parameter)
    move(parameter, optimizer)
    assert float((parameter.detach().float() - 5).abs().max()) < 0.1


def test_master_weights_keep_their_precision_where_one_value_was_changed() -> None:
    parameter, optimizer = make(torch.bfloat16, master_weights=True)
    move(parameter, optimizer, 3, scale=0.01)
    before = optimizer.state[parameter]["master"].clone()
    parameter.data[0, 0] = 5.0
    parameter.grad = torch.zeros_like(parameter)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    after = optimizer.state[parameter]["master"]
    assert after[0, 0] == 5.0
    after[0, 0] = before[0, 0]
    assert torch.equal(after, before)


@pytest.mark.parametrize("shape", [(4, 8), (3, 5), (8,)])
@pytest.mark.parametrize("place", [0, 1, -1])
@pytest.mark.parametrize("offset", [0, 1])
def test_a_single_changed_weight_is_noticed(shape: tuple[int, ...], place: int, offset: int) -> None:
    """Wherever it is, and however the memory is aligned."""
    memory = torch.zeros(offset + math.prod(shape), dtype=torch.bfloat16)
    parameter = nn.Parameter(memory[offset:].view(shape))
    parameter.grad = torch.zeros_like(parameter)
    optimizer = LAMB([parameter], lr=0.0, master_weights=True)
    optimizer.step()
    parameter.data.view(-1)[place] = 2.0
    optimizer.step()
    assert parameter.flatten()[place] == 2 and optimizer.state[parameter]["master"].flatten()[place] == 2
    assert parameter.sum() == 2


def test_master_weights_train_like_float32() -> None:
    """Steps too small for bfloat16 add up in the copy and are lost without it."""
    fine, full = make(torch.bfloat16, master_weights=True, lr=1e-4)
    plain, lost = make(torch.bfloat16, lr=1e-4)
    reference, exact = make(lr=1e-4)
    start = plain.detach().clone()
    with torch.no_grad():
        reference.copy_(fine)
    for one, optimizer in ((fine, full), (plain, lost), (reference, exact)):
        move(one, optimizer, 40)
    torch.testing.assert_close(full.state[fine]["master"], reference.detach(), rtol=2e-3, atol=1e-4)
    assert torch.equal(plain, start)


def test_norms_of_half_precision_do_not_overflow() -> None:
    parameter = nn.Parameter(torch.full((300, 300), 300.0, dtype=torch.float16))  # its norm is 90,000
    optimizer = LAMB([parameter], lr=0.01, weight_decay=0.0)
    parameter.grad = torch.full((300, 300), 300.0, dtype=torch.float16)
    optimizer.step()
    torch.testing.assert_close(parameter.detach().float(), torch.full((300, 300), 297.0), rtol=1e-3, atol=0)


def test_complex_parameters_are_pairs_of_real_ones() -> None:
    values, gradient = torch.randn(5, dtype=torch.complex128), torch.randn(5, dtype=torch.complex128)
    one, other = nn.Parameter(values.clone()), nn.Parameter(torch.view_as_real(values).clone())
    optimizer = LAMB([one, other], lr=0.1)
    for _ in range(3):
        one.grad, other.grad = gradient, torch.view_as_real(gradient)
        optimizer.step()
    torch.testing.assert_close(torch.view_as_real(one.detach()), other.detach())


@pytest.mark.parametrize(("dimension", "fused"), [(0, True), (0, False), (1, None)])
def test_slices_are_layers_of_their_own(dimension: int, fused: bool | None) -> None:
    torch.manual_seed(0)
    sizes = (3, 5, 2)
    whole = torch.randn(10, 10) * torch.linspace(0.1, 3, 10)[:, None]
    gradient = torch.randn(10, 10)
    fused_one = nn.Parameter(whole.clone())
    optimizer = LAMB([("qkv", fused_one)], lr=0.01, slices=[(dimension, sizes)], fused=fused)
    for _ in range(3):
        fused_one.grad = gradient
        optimizer.step()
    parts = [part.numpy() for part in whole.double().split(sizes, dimension)]
    gradients = [part.numpy() for part in gradient.double().split(sizes, dimension)]
    expected = lamb_by_hand(parts, [gradients] * 3, Options())
    for part, by_hand in zip(fused_one.detach().split(sizes, dimension), expected, strict=True):
        torch.testing.assert_close(part.double(), torch.from_numpy(by_hand), rtol=1e-5, atol=1e-6)
    assert list(optimizer.trust_ratios()) == ["qkv[0]", "qkv[1]", "qkv[2]"]


def test_figures_are_told_by_the_names_the_optimizer_was_made_with() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
    optimizer = LAMB(layer.named_parameters(), lr=0.1, weight_decay=0.0)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    figures = optimizer.layer_stats()
    assert set(figures) == {"weight", "bias"}
    assert figures["weight"].weight_norm == pytest.approx(5.0)
    assert figures["weight"].update_norm == pytest.approx(2**0.5, rel=1e-4)
    assert figures["weight"].trust_ratio == pytest.approx(5 / 2**0.5, rel=1e-4)
    assert set(optimizer.state[layer.weight]) == {"step", "exp_avg", "exp_avg_sq"}, "figures stay out of the state"


@pytest.mark.parametrize("mark", ["_is_flat_param", "_fsdp_flattened", "ds_id"])
def test_flat_shards_are_refused(mark: str) -> None:
    parameter, optimizer = make()
    setattr(parameter, mark, 7)
    with pytest.raises(RuntimeError, match=r"LAMB: a parameter of shape \(3, 4\) is a flat shard of .*FSDP2"):
        move(parameter, optimizer)
    assert not optimizer.state


def test_decay_and_adaptation_are_left_out_separately() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    groups = parameter_groups(
        model,
        weight_decay=0.1,
        no_decay=any_of(by_module(nn.LayerNorm, nn.Embedding), by_name("*.bias")),
        no_adaptation=by_dimensions(1),
    )
    assert [([name for name, _ in g["params"]], g["weight_decay"], g["adapt"]) for g in groups] == [
        (["1.weight"], 0.1, True),
        (["0.weight"], 0.0, True),
        (["1.bias", "2.weight", "2.bias"], 0.0, False),
    ]
