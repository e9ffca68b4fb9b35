"""Real tokens only: the same numbers as padded rows, and no layer sees the padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lambert.model import attention as own
from lambert.model.bert import BertConfig, BertModel
from lambert.model.heads import BertForPreTraining
from lambert.model.ops import cpu_fused, eager
from lambert.model.unpadding import unpad
from varlen_by_hand import attend_by_sequence

ROWS, LENGTH = 5, 96
CONFIG = BertConfig(
    *(100, 2, 128, 2, 256), maximum_positions=LENGTH, dropout=0.0, initializer_range=0.2, layer_norm_epsilon=1e-6
)


def padded_rows() -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, segment ids and a mask: a full row, some of other lengths, and one whose tokens are not the first."""
    torch.manual_seed(4)
    ids = torch.randint(1, 100, (ROWS, LENGTH))
    mask = torch.arange(LENGTH) < torch.tensor([LENGTH, 70, 1, 33, 50])[:, None]
    mask[4] = mask[4].roll(7)
    return ids, ids % 2, mask


def gradients(model: BertModel, hidden: Tensor, mask: Tensor, direction: Tensor) -> dict[str, Tensor]:
    """Of the real tokens' hidden states in one direction."""
    model.zero_grad()
    (hidden * direction)[mask].sum().backward()
    return {name: part.grad.to_dense() for name, part in model.named_parameters() if part.grad is not None}


def test_the_real_tokens_come_first_and_in_order() -> None:
    _, _, mask = padded_rows()
    found = unpad(mask, int(mask.sum()), 64)
    real = mask.flatten().nonzero().flatten()
    assert len(found.indices) == 256 and len(found.indices.unique()) == 256
    assert torch.equal(found.indices[: len(real)], real)
    assert found.cu_seqlens.tolist() == [0, 96, 166, 167, 200, 250] and found.max_length == LENGTH
    values = torch.randn(ROWS, LENGTH, 3)
    again = found.pad(found.take(values), ROWS)
    assert torch.equal(again[mask], values[mask])
    full = unpad(torch.ones(2, 3, dtype=torch.bool), 6, 64)
    assert full.indices.tolist() == list(range(6))


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_training_on_a_cpu_computes_the_same_without_the_padding(
    monkeypatch: pytest.MonkeyPatch, checkpointing: str
) -> None:
    ids, segments, mask = padded_rows()
    direction = torch.randn(ROWS, LENGTH, 128)
    model = BertModel(CONFIG).train()
    model.checkpoint_activations(checkpointing)
    counts = []
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            part.register_forward_hook(lambda _, given, __: counts.append(given[0].shape[0]))
    multiply = cpu_fused.linear
    monkeypatch.setattr(cpu_fused, "linear", lambda *given: counts.append(len(given[0])) or multiply(*given))
    hidden = model(ids, segments, mask)
    found = gradients(model, hidden, mask, direction)
    assert set(counts) == {256}  # 250 real tokens of 480
    double = BertModel(CONFIG).double()
    double.load_state_dict(model.state_dict())
    with torch.autocast("cpu", enabled=False):
        expected = double(ids, segments, mask)
    exact = gradients(double, expected, mask, direction.double())
    torch.testing.assert_close(hidden[mask].double(), expected[mask], atol=1e-5, rtol=1e-5)
    assert found.keys() == exact.keys()
    for name, gradient in exact.items():
        if gradient.norm() > 1e-9:  # a bias of the keys has none
            assert (found[name] - gradient).norm() <= 2e-5 * gradient.norm(), name


def test_variable_length_attention_computes_the_same_as_padded_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The route of GPUs, in float64, with attention as `varlen_attn` is documented to compute it."""
    ids, segments, mask = padded_rows()
    model = BertModel(CONFIG).double().train()
    direction = torch.randn(ROWS, LENGTH, 128, dtype=torch.float64)
    expected = model(ids, segments, mask)
    exact = gradients(model, expected, mask, direction)
    calls = []

    def follow(query: Tensor, *rest: Any) -> Tensor:
        calls.append(len(query))
        return attend_by_sequence(query, *rest)

    monkeypatch.setattr(own.varlen, "varlen_attn", follow)
    monkeypatch.setattr(own, "_has_flash_attention", lambda *_: True)
    hidden = model(ids, segments, mask, real_tokens=int(mask.sum()))
    found = gradients(model, hidden, mask, direction)
    assert calls == [288, 288]  # 250 tokens, rounded up to three rows
    torch.testing.assert_close(hidden[mask], expected[mask])
    for name, gradient in exact.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-9, rtol=1e-7)


def test_a_gpu_pads_where_attention_weights_are_dropped_or_tokens_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, mask = padded_rows()
    weight = torch.ones(4, 128)
    monkeypatch.setattr(own, "_has_flash_attention", lambda *_: True)
    assert eager.unpad(mask, weight, 2, 0.1, 250) is None
    assert eager.unpad(mask, weight, 2, 0.0, None) is None
    assert eager.unpad(mask, weight, 2, 0.0, 250) is not None
    monkeypatch.undo()
    assert eager.unpad(mask, weight, 2, 0.0, 250) is None  # a CPU


def test_few_sizes_on_a_gpu() -> None:
    """The blocks are compiled for each number of tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "_has_flash_attention", lambda *_: True)
        sizes, lengths = set(), torch.arange(128)
        for seed in range(200):
            torch.manual_seed(seed)
            mask = lengths < torch.randint(1, 129, (64, 1))
            found = eager.unpad(mask, torch.ones(4, 128), 2, 0.0, int(mask.sum()))
            assert found is not None
            steps = found.cu_seqlens.diff()
            assert (steps >= 0).all() and (steps <= 128).all()
            assert found.cu_seqlens[-1] == len(found.indices)
            sizes.add((len(found.indices), len(found.cu_seqlens)))
    assert len(sizes) <= 32


def test_the_heads_find_their_tokens_again() -> None:
    ids, segments, mask = (each[:4] for each in padded_rows())
    positions = torch.tensor([3, 96, 97, 300])
    model = BertForPreTraining(CONFIG).train()
    (mlm, _, _), nsp = model(ids, segments, mask, positions, masked_labels=ids.flatten()[positions])
    model.eval()
    with torch.no_grad():
        (other, _, _), other_nsp = model(ids, segments, mask, positions, masked_labels=ids.flatten()[positions])
    torch.testing.assert_close(mlm.detach(), other)
    torch.testing.assert_close(nsp.detach(), other_nsp)
