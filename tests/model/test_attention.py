"""Attention outside the fused CPU operations: the bias that all blocks share, and which kernels may run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from lambert.model import attention as own
from lambert.model.bert import BertConfig, BertModel
from lambert.model.ops import eager

CONFIG = BertConfig(
    vocabulary_size=100, layers=3, hidden_size=64, attention_heads=2, feed_forward_size=128, maximum_positions=16
)


def padded() -> torch.Tensor:
    mask = torch.ones(3, 16, dtype=torch.bool)
    mask[0, 10:] = mask[2, 3:] = False
    return mask


@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_the_bias_is_the_bool_mask(kind: str) -> None:
    mask = padded()[:, None, None, :]
    if kind == "packed":
        numbers = torch.arange(16) // 5
        mask = (numbers[:, None] == numbers).expand(3, 1, 16, 16)
    qkv = torch.randn(3, 16, 3 * 64, dtype=torch.float64, requires_grad=True)
    query, key, value = (part.view(3, 16, 2, 32).transpose(1, 2) for part in qkv.chunk(3, -1))
    expected = functional.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2)
    found = own.attention(qkv, 2, own.attention_bias(mask, qkv), 0.0, checkpoint=False)
    direction = torch.randn_like(found)
    (gradient,) = torch.autograd.grad(found, qkv, direction)
    (other,) = torch.autograd.grad(expected, qkv, direction)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize("autocast", [False, True])
def test_one_small_bias_in_the_dtype_of_the_queries_serves_all_blocks(
    monkeypatch: pytest.MonkeyPatch, autocast: bool
) -> None:
    made, used = [], []
    bias_of, attend = own.attention_bias, functional.scaled_dot_product_attention

    def make(*args: Any) -> torch.Tensor:
        made.append(bias_of(*args))
        return made[-1]

    def follow(query: Any, key: Any, value: Any, bias: Any, *rest: Any) -> Any:
        used.append((query.dtype, bias))
        return attend(query, key, value, bias, *rest)

    monkeypatch.setattr(eager, "attention_bias", make)
    monkeypatch.setattr(functional, "scaled_dot_product_attention", follow)
    model = BertModel(CONFIG)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model(torch.ones(3, 16, dtype=torch.int64), torch.zeros(3, 16, dtype=torch.int64), padded())
    (bias,) = made
    assert bias.shape == (3, 1, 1, 16)
    assert [(dtype, given is bias) for dtype, given in used] == [(bias.dtype, True)] * CONFIG.layers


@pytest.mark.parametrize(("p", "exact"), [(0.0, True), (0.125, True), (0.5, True), (0.1, False), (0.15, False)])
def test_a_dropout_that_cudnn_may_round_keeps_it_away(monkeypatch: pytest.MonkeyPatch, p: float, exact: bool) -> None:
    seen = []
    monkeypatch.setattr(
        functional,
        "scaled_dot_product_attention",
        lambda query, *rest: seen.append(torch.backends.cuda.cudnn_sdp_enabled()) or query,
    )
    rounds = own.may_round_dropout
    assert rounds("cuda", p) is not exact and not rounds("cpu", p)
    monkeypatch.setattr(own, "may_round_dropout", lambda device, p: rounds("cuda", p))
    for checkpoint in (False, True):
        own.attention(torch.ones(1, 2, 12), 1, None, p, checkpoint=checkpoint)
    assert seen == [exact, exact]
