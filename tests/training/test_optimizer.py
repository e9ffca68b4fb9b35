"""The optimizers by name: BERT's parameter groups, and suggestions for unknown names."""

from __future__ import annotations

import pytest
import torch

from lambert.errors import UserError
from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.optim import LAMB
from lambert.optim.combined import parts_of
from lambert.training.optimizer import (
    OPTIMIZERS,
    make_optimizer,
    named_groups,
    optimizer_tensors,
    restore_optimizer,
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_and_norms_are_not_decayed(name: str) -> None:
    model = BertForPreTraining(model_config("2x32", vocabulary_size=50))
    groups, names = named_groups(model, weight_decay=0.01)
    optimizer = make_optimizer(name, groups, names, betas=(0.9, 0.98), epsilon=1e-7)
    decays: dict[float, list[str]] = {}
    for group in optimizer.param_groups:
        decays.setdefault(group["weight_decay"], []).extend(names[p] for p in group["params"])
    assert sorted(decays) == [0.0, 0.01]
    if not name.endswith("hyperball"):  # which keeps the norms of hidden matrices
        assert all("bias" in parameter or "layer_norm" in parameter for parameter in decays[0.0])
    assert not any("bias" in parameter or "layer_norm" in parameter for parameter in decays[0.01])
    assert sorted(decays[0.0] + decays[0.01]) == sorted(dict(model.named_parameters()))
    for group in optimizer.param_groups:
        if "momentum" in group:
            assert group["momentum"] == (0.9 if "lars" in name else 0.95)
        else:
            assert group["betas"] == (0.9, 0.98) and group["eps"] == 1e-7


def test_a_name_makes_its_optimizer() -> None:
    model = BertForPreTraining(model_config("2x32", vocabulary_size=50))
    groups, names = named_groups(model, weight_decay=0.01)
    assert isinstance(make_optimizer("adamw", groups, names, betas=(0.9, 0.999), epsilon=1e-6), torch.optim.AdamW)
    assert isinstance(make_optimizer("lamb", groups, names, betas=(0.9, 0.999), epsilon=1e-6), LAMB)
    with pytest.raises(UserError, match="unknown optimizer 'lam'. Did you mean 'lamb'"):
        make_optimizer("lam", groups, names, betas=(0.9, 0.999), epsilon=1e-6)


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest() -> None:
    """Three steps beside PyTorch's two optimizers on copies, apart."""
    model = BertForPreTraining(model_config("2x32", vocabulary_size=50))
    groups, names = named_groups(model, weight_decay=0.01)
    optimizer = make_optimizer("muon", groups, names, betas=(0.9, 0.999), epsilon=1e-6)
    taken = {names[p] for group in parts_of(optimizer)[0].param_groups for p in group["params"]}
    assert taken == {
        *(
            f"encoder.blocks.{block}.{name}.weight"
            for block in (0, 1)
            for name in (
                "attention.query_key_value", "attention.output", "feed_forward.expand", "feed_forward.contract"
            )
        ),
        "pooler.dense.weight",
        "mlm_head.transform.weight",
    }  # fmt: skip
    copies = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    no_decay = [copies[name] for name in copies if "bias" in name or "layer_norm" in name]
    decayed = [copies[name] for name in copies if name not in taken and not ("bias" in name or "layer_norm" in name)]
    apart = [
        torch.optim.Muon([copies[name] for name in taken], lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(no_decay, lr=0.02, weight_decay=0.0, eps=1e-6),
        torch.optim.AdamW(decayed, lr=0.02, weight_decay=0.01, eps=1e-6),
    ]
    for group in optimizer.param_groups:
        group["lr"] = 0.02
    for _ in range(3):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn(parameter.shape)
            copies[name].grad = parameter.grad.clone()
        for one in (optimizer, *apart):
            one.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), copies[name].detach(), rtol=1e-5, atol=1e-6)


def test_muons_state_goes_to_a_checkpoint_and_back() -> None:
    def made() -> tuple[BertForPreTraining, torch.optim.Optimizer, dict[torch.Tensor, str]]:
        torch.manual_seed(0)
        model = BertForPreTraining(model_config("1x32", vocabulary_size=50))
        groups, names = named_groups(model, weight_decay=0.01)
        return model, make_optimizer("muon", groups, names, betas=(0.9, 0.999), epsilon=1e-6), names

    def steps(model: BertForPreTraining, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape)
        optimizer.step()

    model, optimizer, names = made()
    steps(model, optimizer, 1)
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer, names).items()}
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps(model, optimizer, 2)
    again, other, other_names = made()
    again.load_state_dict(weights)
    restore_optimizer(other, other_names, saved, lambda parameter, tensor: tensor)
    steps(again, other, 2)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, dict(again.named_parameters())[name]), name
