"""The optimizers by name: BERT's groups, and a refusal that offers the nearest."""

from __future__ import annotations

import pytest
import torch

from lambert.errors import UserError
from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.optim import LAMB
from lambert.training.optimizers import OPTIMIZERS, make_optimizer, named_groups


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_and_norms_are_not_decayed(name: str) -> None:
    model = BertForPreTraining(model_config("2x32", vocabulary_size=50))
    groups, names = named_groups(model, weight_decay=0.01)
    optimizer = make_optimizer(name, groups, betas=(0.9, 0.98), epsilon=1e-7)
    decays = {group["weight_decay"]: [names[p] for p in group["params"]] for group in optimizer.param_groups}
    assert sorted(decays) == [0.0, 0.01]
    assert all("bias" in parameter or "layer_norm" in parameter for parameter in decays[0.0])
    assert not any("bias" in parameter or "layer_norm" in parameter for parameter in decays[0.01])
    assert sorted(decays[0.0] + decays[0.01]) == sorted(dict(model.named_parameters()))
    for group in optimizer.param_groups:
        if name == "lars":
            assert group["momentum"] == 0.9
        else:
            assert group["betas"] == (0.9, 0.98) and group["eps"] == 1e-7


def test_a_name_makes_its_optimizer() -> None:
    model = BertForPreTraining(model_config("2x32", vocabulary_size=50))
    groups, _ = named_groups(model, weight_decay=0.01)
    assert isinstance(make_optimizer("adamw", groups, betas=(0.9, 0.999), epsilon=1e-6), torch.optim.AdamW)
    assert isinstance(make_optimizer("lamb", groups, betas=(0.9, 0.999), epsilon=1e-6), LAMB)
    with pytest.raises(UserError, match="unknown optimizer 'lam'. Did you mean 'lamb'"):
        make_optimizer("lam", groups, betas=(0.9, 0.999), epsilon=1e-6)
