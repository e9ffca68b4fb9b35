"""The fused CPU operations, values and gradients, against eager PyTorch in float64."""

from __future__ import annotations

import math

import pytest
import torch
from tests.model.beside_float64 import against, close, random
from torch import Tensor
from torch.nn import functional

from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.ops import cpu_arrays, cpu_fused, eager

pytestmark = pytest.mark.usefixtures("kind")
CONFIG = BertConfig(
    vocabulary_size=1_234, layers=2, hidden_size=128, attention_heads=2, feed_forward_size=512, maximum_positions=64
)


@pytest.mark.parametrize("sizes", [(100, 128, 96), (70, 600, 530), (70, 530, 600)])
def test_linear(sizes: tuple[int, int, int], threads: int) -> None:
    rows, inputs, outputs = sizes
    against(cpu_fused.linear, functional.linear, random(rows, inputs), random(outputs, inputs), random(outputs))


def test_feed_forward(threads: int) -> None:
    def exactly(hidden: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        return functional.linear(functional.gelu(functional.linear(hidden, w1, b1)), w2, b2)

    def ours(*given: Tensor) -> Tensor:
        return cpu_fused.feed_forward(*given, checkpoint=False)

    tensors = [random(50, 64), random(96, 64), random(96), random(64, 96), random(64)]
    against(ours, exactly, *(tensor.detach().mul(0.3).requires_grad_() for tensor in tensors))


def test_gelu_of_every_bfloat16(threads: int) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    every = every[every.isfinite()]
    weight, bias = torch.eye(1).bfloat16(), torch.zeros(1).bfloat16()
    ours = cpu_fused.feed_forward(every[:, None], weight, bias, weight, bias, checkpoint=False).double().flatten()
    exact = functional.gelu(every.double())
    assert ((ours - exact).abs() <= 0.005 * exact.abs() + 2e-7).all()


@pytest.mark.parametrize("kind_of_mask", ["none", "padded", "packed"])
def test_attention(kind_of_mask: str, threads: int) -> None:
    mask = None
    if kind_of_mask == "padded":
        mask = torch.ones(3, 1, 1, 40, dtype=torch.bool)
        mask[0, ..., 30:] = mask[2, ..., 1:] = False
    if kind_of_mask == "packed":
        sequence = torch.arange(40) // 16
        mask = (sequence[:, None] == sequence).expand(3, 1, 40, 40)

    def ours(qkv: Tensor) -> Tensor:
        bias = None if mask is None else cpu_fused.attention_bias(mask, qkv)
        return cpu_fused.attention(qkv, 4, bias, 0.0, checkpoint=False)

    against(ours, lambda qkv: eager.attention(qkv, 4, mask, 0.0, checkpoint=False), random(3, 40, 3 * 4 * 32))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_attention_with_dropout(threads: int, checkpoint: bool, kind: torch.dtype) -> None:
    """With the identity as values the contexts are the dropped weights, which shows the dropout mask."""
    length = width = 32
    stacked = random(2, length, 3, 2, width).detach()
    stacked[:, :, 2] = torch.eye(length, dtype=kind)[None, :, None]
    torch.manual_seed(11)
    kept = (
        cpu_fused.attention(stacked.flatten(2), 2, None, 0.25, checkpoint=False)
        .view(2, length, 2, width)
        .transpose(1, 2)
        != 0
    )
    assert 0.7 < float(kept.float().mean()) < 0.8
    stacked[:, :, 2] = random(2, length, 2, width, seed=5).detach()

    def ours(stacked: Tensor) -> Tensor:
        torch.manual_seed(11)
        return cpu_fused.attention(stacked.flatten(2), 2, None, 0.25, checkpoint=checkpoint)

    def exactly(stacked: Tensor) -> Tensor:
        query, key, value = stacked.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(2, 3) / math.sqrt(width)).softmax(-1) * kept / 0.75
        return (weights @ value).transpose(1, 2).flatten(2)

    against(ours, exactly, stacked.requires_grad_())


@pytest.mark.parametrize("size", [100, 128])
def test_a_vocabulary_of_aligned_size_has_the_same_losses_and_gradients(size: int, kind: torch.dtype) -> None:
    hidden, weight, bias = random(9, 32), random(size, 32, seed=1), random(size, seed=2)
    labels = torch.randint(0, size, (9,), generator=torch.Generator().manual_seed(3))
    labels[4] = -100
    wide = eager.aligned_vocabulary(weight, bias)
    assert [len(tensor) for tensor in wide] == [128, 128] and (wide[0] is weight) == (size == 128)
    results = []
    for given in ((weight, bias), wide):
        loss, losses, correct = eager.mlm_cross_entropy(hidden, *given, labels)
        results.append((loss, losses, correct, *torch.autograd.grad(loss, (hidden, weight, bias))))
    torch.testing.assert_close(results[1], results[0])
    assert results[0][1][4] == 0 and not results[0][2][4]


def test_add_norm_with_dropout(threads: int) -> None:
    branch, residual = random(64, 128), random(64, 128, seed=1)
    weight, bias = random(128, seed=2), random(128, seed=3)
    torch.manual_seed(11)
    kept = cpu_fused.dropout(torch.ones(64, 128), 0.25) != 0

    def ours(*given: Tensor) -> Tensor:
        torch.manual_seed(11)
        return cpu_fused.add_norm(*given, 1e-12, 0.25)

    def exactly(branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.layer_norm(residual + branch * kept / 0.75, (128,), weight, bias, 1e-12)

    against(ours, exactly, branch, residual, weight, bias)


def test_add_norm(threads: int) -> None:
    def ours(branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return cpu_fused.add_norm(branch, residual, weight, bias, 1e-12, 0.0)

    def exactly(branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.layer_norm(branch + residual, weight.shape, weight, bias, 1e-12)

    against(ours, exactly, random(30, 96), random(30, 96, seed=1), random(96, seed=2), random(96, seed=3))


@pytest.mark.parametrize("rows", [7, 2_000])
def test_embedding(rows: int) -> None:
    ids = torch.randint(0, rows, (4, 300), generator=torch.Generator().manual_seed(1))
    against(
        lambda table: cpu_fused.embedding(ids, table), lambda table: functional.embedding(ids, table), random(rows, 16)
    )


@pytest.mark.parametrize("masked_tokens", [5, 64, 100])
def test_mlm_cross_entropy(masked_tokens: int, threads: int) -> None:
    labels = torch.randint(0, 1_000, (masked_tokens,), generator=torch.Generator().manual_seed(1))

    def exactly(hidden: Tensor, embedding: Tensor, bias: Tensor) -> Tensor:
        return functional.cross_entropy(functional.linear(hidden, embedding, bias), labels, reduction="sum")

    tensors = (random(masked_tokens, 64), random(1_000, 64, seed=2), random(1_000, seed=3))
    against(lambda *given: cpu_fused.mlm_cross_entropy(*given, labels)[0], exactly, *tensors)
    logits = functional.linear(*tensors[:2]).float() + tensors[2].float()
    likely = torch.cat([logits.argmax(-1)[: masked_tokens // 2], labels[masked_tokens // 2 :]])
    right = cpu_fused.mlm_cross_entropy(*tensors, likely)[2]
    assert right.tolist() == (logits.argmax(-1) == likely).tolist() and right.sum() >= masked_tokens // 2


@pytest.mark.parametrize("smallest", [0, 1 << 40])
@pytest.mark.parametrize("sizes", [(300, 64, 32), (300, 32, 64), (1_000, 70, 33)])
def test_transposed_matmul(
    sizes: tuple[int, int, int], smallest: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_arrays, "_MIN_LARGE_OPERAND", smallest)
    entries, tokens, width = sizes
    left, right = random(entries, tokens).detach(), random(entries, width, seed=1).detach()
    product = cpu_arrays.transposed_matmul(left, right)
    assert product.is_contiguous()
    close(product, left.double().t() @ right.double())


def test_large_logits_stay_finite_and_nan_propagates() -> None:
    hidden, embedding = torch.full((3, 8), 60.0).bfloat16(), torch.eye(8).repeat(5, 1).bfloat16() * 80
    bias, labels = torch.zeros(40).bfloat16(), torch.tensor([0, 1, 39])
    loss, *_ = cpu_fused.mlm_cross_entropy(hidden, embedding, bias, labels)
    assert float(loss) == pytest.approx(3 * math.log(40), rel=1e-3)
    hidden[1, 3] = math.nan
    assert math.isnan(cpu_fused.mlm_cross_entropy(hidden, embedding, bias, labels)[0])
    qkv = random(1, 8, 3 * 8).detach()
    qkv[0, 2, 0] = math.nan
    assert cpu_fused.attention(qkv, 1, None, 0.0, checkpoint=False)[0, 2].isnan().all()
    values = random(4, 8).detach()
    values[2, 2] = math.nan
    assert cpu_fused.add_norm(values, values, values[0], values[0], 1e-12, 0.0)[2].isnan().all()


def test_dropout_keeps_its_ratio_and_mean_and_is_the_same_backward() -> None:
    torch.manual_seed(3)
    values = torch.ones(1_000, 1_000).bfloat16().requires_grad_()
    out = cpu_fused.dropout(values, 0.1)
    kept = out != 0
    assert 0.8991 < float(kept.float().mean()) < 0.9009  # three standard errors
    assert out[kept].unique().tolist() == [torch.tensor(1 / 0.9).bfloat16().item()]
    out.backward(torch.ones_like(out))
    assert values.grad is not None and torch.equal(values.grad, out)
    rows, columns = kept.float().mean(1), kept.float().mean(0)
    for shares in (rows, columns):  # binomial: deviation √(.09 / 1000)
        assert 0.9 < float(shares.std()) / math.sqrt(0.09 / 1_000) < 1.1
    neighbours = (kept[:, 1:] & kept[:, :-1]).float().mean()
    assert abs(float(neighbours) - 0.81) < 0.002
    other = cpu_fused.dropout(values, 0.1) != 0
    assert abs(float((other & kept).float().mean()) - 0.81) < 0.002
    torch.manual_seed(3)
    assert torch.equal(cpu_fused.dropout(values, 0.1), out)


def batch(padded: bool) -> dict[str, Tensor | None]:
    draw = torch.Generator().manual_seed(4)
    mask = torch.ones(6, 48, dtype=torch.bool)
    if padded:
        mask[1, 20:] = mask[4, 5:] = False
    return {
        "token_ids": torch.randint(5, 1_234, (6, 48), generator=draw) * mask,
        "segment_ids": (torch.arange(48) > 20).long().expand(6, 48) * mask,
        "attention_mask": mask if padded else None,
        "masked_positions": torch.tensor([1, 3, 47, 50, 100, 192, 195, 250]),
        "masked_labels": torch.randint(5, 1_234, (8,), generator=draw),
    }


@pytest.mark.parametrize("padded", [False, True])
def test_the_whole_model_beside_float64(padded: bool, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    wide = BertForPreTraining(CONFIG).to(kind).double().eval()
    ours = BertForPreTraining(CONFIG).to(kind).eval()
    ours.load_state_dict(wide.state_dict())
    losses = []
    for model in (ours, wide):
        (loss, *_), pairs = model(**batch(padded))
        (loss + pairs.to(loss.dtype).logsumexp(1).sum()).backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=2e-3 if kind == torch.bfloat16 else 1e-6)
    for (name, own), other in zip(ours.named_parameters(), wide.parameters(), strict=True):
        assert own.grad is not None and other.grad is not None
        if "query_key_value.bias" not in name:  # the keys' part is nothing but rounding
            close(own.grad, other.grad, 0.06)


def test_a_second_backward_pass_is_refused() -> None:
    loss, *_ = cpu_fused.mlm_cross_entropy(random(4, 8), random(30, 8), random(30), torch.arange(4))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()


def test_dropout_with_probability_0_is_the_identity() -> None:
    values = random(3, 4)
    assert cpu_fused.dropout(values, 0.0) is values
