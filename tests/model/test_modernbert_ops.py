"""The fused CPU operations of ModernBERT, values and gradients, against eager PyTorch in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.model.beside_float64 import against, close, random
from torch import Tensor
from torch.nn import functional

from lambert.model.architectures import encoder
from lambert.model.attention import rotate
from lambert.model.heads import ModernBertForMaskedLM
from lambert.model.modernbert import ModernBertConfig, rotations
from lambert.model.ops import cpu_fused, eager
from lambert.model.presets import model_config
from lambert.model.unpadding import unpad

pytestmark = pytest.mark.usefixtures("kind")
HEADS, WIDTH = 3, 16
CONFIG = ModernBertConfig(
    vocabulary_size=1_234, layers=3, hidden_size=128, attention_heads=2, feed_forward_size=192, local_window=12
)


def test_linear_without_a_bias(threads: int) -> None:
    against(cpu_fused.linear, functional.linear, random(70, 60), random(53, 60))


def geglu(kept: Tensor | float, hidden: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    inner, gate = functional.linear(hidden, w1).chunk(2, dim=-1)
    return functional.linear(functional.gelu(inner) * gate * kept, w2)


@pytest.mark.parametrize("p", [0.0, 0.25])
def test_geglu(threads: int, p: float) -> None:
    torch.manual_seed(11)
    kept = (cpu_fused.dropout(torch.ones(5, 10, 96), p) != 0) / (1 - p)

    def ours(hidden: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        torch.manual_seed(11)
        return cpu_fused.geglu(hidden, w1, w2, p, checkpoint=False)

    tensors = [random(5, 10, 64), random(192, 64, seed=1), random(64, 96, seed=2)]
    scaled = [tensor.detach().mul(0.3).requires_grad_() for tensor in tensors]
    against(ours, lambda *given: geglu(kept, *given), *scaled)


def test_geglu_in_plain_pytorch() -> None:
    def ours(*given: Tensor) -> Tensor:
        return eager.geglu(*given, 0.0, checkpoint=True)

    tensors = [random(50, 64), random(192, 64, seed=1), random(64, 96, seed=2)]
    against(ours, lambda *given: geglu(1.0, *given), *(each.detach().mul(0.3).requires_grad_() for each in tensors))


def test_norm_adds_the_gradients_of_the_residual_and_of_the_branch(threads: int) -> None:
    hidden, weight = random(4, 10, 96), random(96, seed=1)
    hidden = (hidden.detach() + 3).requires_grad_()

    def exactly(hidden: Tensor, weight: Tensor) -> Tensor:
        return torch.cat((hidden, functional.layer_norm(hidden, weight.shape, weight, None, 1e-5)))

    for ops in (cpu_fused, eager):
        hidden.grad = weight.grad = None
        against(lambda *given, ops=ops: torch.cat(ops.norm(*given, 1e-5)), exactly, hidden, weight)
    assert torch.equal(cpu_fused.norm(hidden, weight, 1e-5)[0], hidden)


def test_norm_with_one_of_its_results_alone() -> None:
    for used in (0, 1):
        hidden, weight = random(7, 16), random(16, seed=1)
        wide = hidden.detach().double().requires_grad_()
        (cpu_fused.norm(hidden, weight, 1e-5)[used] ** 2).sum().backward()
        normalized = functional.layer_norm(wide, (16,), weight.detach().double(), None, 1e-5)
        ((wide, normalized)[used] ** 2).sum().backward()
        assert hidden.grad is not None and wide.grad is not None
        close(hidden.grad, wide.grad, 0.02)


def turned(qkv: Tensor, positions: Tensor) -> Tensor:
    """Rotary positions as rotations of complex numbers."""
    query, key, value = qkv.unflatten(-1, (3, HEADS, WIDTH)).unbind(-3)
    frequencies = 100.0 ** (-torch.arange(0, WIDTH, 2, dtype=torch.float64) / WIDTH)
    angles = positions.double()[..., None, None] * frequencies
    results = []
    for part in (query, key):
        numbers = torch.complex(*part.double().chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
        results.append(torch.cat((numbers.real, numbers.imag), dim=-1))
    return torch.stack((*results, value.double()), dim=-3).flatten(-3)


@pytest.mark.parametrize("positions", [torch.arange(20), torch.arange(60).view(3, 20) % 13])
def test_attention_with_rotary_positions(positions: Tensor, threads: int) -> None:
    rotation = rotations(positions, WIDTH, 100.0)

    def ours(qkv: Tensor) -> Tensor:
        return cpu_fused.attention(qkv, HEADS, None, 0.0, checkpoint=False, rotation=rotation)

    def exactly(qkv: Tensor) -> Tensor:
        return eager.attention(turned(qkv, positions), HEADS, None, 0.0, checkpoint=False)

    qkv = random(3, 20, 3 * HEADS * WIDTH)
    against(ours, exactly, qkv)
    close(rotate(qkv, HEADS, rotation), turned(qkv, positions))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_attention_of_real_tokens_with_rotary_positions(checkpoint: bool, threads: int) -> None:
    mask = torch.arange(20) < torch.tensor([[20], [11], [6]])
    rows = unpad(mask, 37, 16)
    positions = rows.take(torch.arange(20).expand(3, 20))
    rotation = rotations(positions, WIDTH, 100.0)

    def ours(qkv: Tensor) -> Tensor:
        context = cpu_fused.attention(qkv, HEADS, rows, 0.0, checkpoint=checkpoint, rotation=rotation)
        return rows.pad(context, 3)[mask]

    def exactly(qkv: Tensor) -> Tensor:
        padded = rows.pad(turned(qkv, positions), 3)
        return eager.attention(padded, HEADS, mask[:, None, None], 0.0, checkpoint=False)[mask]

    against(ours, exactly, random(48, 3 * HEADS * WIDTH))


def batch() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(4)
    mask = torch.ones(6, 48, dtype=torch.bool)
    mask[1, 20:] = mask[4, 5:] = False
    return {
        "token_ids": torch.randint(5, 1_234, (6, 48), generator=draw) * mask,
        "segment_ids": torch.zeros(6, 48, dtype=torch.long),
        "attention_mask": mask,
        "masked_positions": torch.tensor([1, 3, 47, 50, 100, 192, 195, 250]),
        "masked_labels": torch.randint(5, 1_234, (8,), generator=draw),
    }


@pytest.mark.parametrize("padded", [False, True])
def test_the_whole_model_beside_float64(padded: bool, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    wide = ModernBertForMaskedLM(CONFIG).to(kind).double()
    ours = ModernBertForMaskedLM(CONFIG).to(kind)
    ours.load_state_dict(wide.state_dict())
    given = batch() if padded else batch() | {"attention_mask": None}
    losses = []
    for model in (ours, wide):
        loss = model(**given)[0][0]
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=2e-3 if kind == torch.bfloat16 else 1e-6)
    for own, other in zip(ours.parameters(), wide.parameters(), strict=True):
        assert own.grad is not None and other.grad is not None
        close(own.grad, other.grad, 0.06)


@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_activation_checkpointing_changes_no_bit_with_dropout(checkpointing: str, kind: torch.dtype) -> None:
    gradients = []
    for activations in ("none", checkpointing):
        torch.manual_seed(0)
        model = ModernBertForMaskedLM(replace(CONFIG, dropout=0.1)).to(kind).train()
        model.encoder.checkpoint_activations(activations)
        torch.manual_seed(1)
        model(**batch())[0][0].backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_nan_propagates_and_a_second_backward_pass_is_refused() -> None:
    values = random(4, 8).detach()
    values[2, 2] = math.nan
    assert cpu_fused.norm(values, values[0], 1e-5)[1].isnan().all(-1).tolist() == [False, False, True, False]
    weights = random(6, 8).detach(), random(8, 3).detach()
    assert cpu_fused.geglu(values, *weights, 0.0, checkpoint=False)[2].isnan().all()
    out = cpu_fused.geglu(random(4, 8), *weights, 0.0, checkpoint=False).sum()
    out.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        out.backward()


@pytest.mark.parametrize("with_gradients", [True, False])
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
@pytest.mark.parametrize("padded", [False, True])
def test_hidden_states_of_kept_tokens_are_those_of_all(padded: bool, architecture: str, with_gradients: bool) -> None:
    """With dropout of 0, and 8 of 288 tokens kept."""
    torch.manual_seed(0)
    config = model_config("3x128", vocabulary_size=1_234, dropout=0.0, architecture=architecture)
    given, model = batch(), encoder(config)
    inputs = given["token_ids"], given["segment_ids"], given["attention_mask"] if padded else None
    with torch.set_grad_enabled(with_gradients):
        every = model(*inputs).flatten(0, 1)[given["masked_positions"]]
        kept = model(*inputs, kept=given["masked_positions"])
    torch.testing.assert_close(kept, every, rtol=1e-5, atol=1e-5)


def test_the_last_block_computes_the_masked_tokens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    geglu = cpu_fused.geglu

    def counted(hidden: Tensor, *rest: object, **options: object) -> Tensor:
        counts.append(len(hidden))
        return geglu(hidden, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(cpu_fused, "geglu", counted)
    ModernBertForMaskedLM(CONFIG)(**batch())[0][0].backward()
    assert counts == [256, 256, 64]  # 217 real and 8 masked tokens, rounded up
