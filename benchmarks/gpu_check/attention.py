"""Stage 3: which attention kernel runs, and the dropout that it really does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gpu_check.report import Report
from gpu_check.stages import Settings
from lambert.model.ops import eager

HEAD = 64
ASKED = 0.1
_NEAR = 0.01
"""The largest share of what was asked that the real dropout may differ by."""
_ROUNDING = 0.02
"""The largest relative difference of two bfloat16 kernels."""
Attend = Callable[[Tensor, int, Tensor | None, float], Tensor]
"""Queries, keys and values [B, S, 3 · H], heads, mask, dropout → contexts [B, S, H]."""


def attention(settings: Settings, report: Report) -> None:
    """The kernel and the dropout of lambert's attention, and of PyTorch's with an additive mask."""
    for length in (32, 64) if settings.small else (128, 512):
        for mask in ("none", "bool"):
            for p in (0.0, ASKED):
                _case(settings, report, "lambert", _ours, length, mask, p)
        _case(settings, report, "torch", _theirs, length, "additive", ASKED)
        _case(settings, report, "torch", _theirs, length, "none", ASKED)
        _unpadded(settings, report, length)


def _ours(qkv: Tensor, heads: int, mask: Tensor | None, p: float) -> Tensor:
    bias = None if mask is None else eager.attention_bias(mask, qkv)
    return eager.attention(qkv, heads, bias, p, checkpoint=False)


def _theirs(qkv: Tensor, heads: int, mask: Tensor | None, p: float) -> Tensor:
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    return functional.scaled_dot_product_attention(query, key, value, mask, p).transpose(1, 2).flatten(2)


def _case(settings: Settings, report: Report, whose: str, attend: Attend, length: int, kind: str, p: float) -> None:
    name = f"{whose}, length {length}, mask {kind}, p {p:g}"
    with report.case(name, whose=whose, length=length, mask=kind, asked=p) as row:
        rows, heads = (4, 2) if settings.small else (16_384 // length, 16)
        mask = _mask(kind, rows, length, settings.device)
        qkv = _one_hot_values(rows, length, heads, settings)
        context = attend(qkv.requires_grad_(), heads, mask, p)
        row["kernel"] = _kernel(context)
        context.sum().backward()
        one_hot = min(length, HEAD)
        seen = context.detach().unflatten(-1, (heads, HEAD))[..., :one_hot].float()
        row["dropped"] = float((seen == 0).float().mean())
        row["mean_weight"] = float(seen.mean()) * length  # 1 where what is kept is scaled for what is dropped
        row["gradient_is_finite"] = bool(qkv.grad is not None and qkv.grad.isfinite().all())
        near = abs(row["dropped"] - p) <= max(_NEAR * p, _sampling_error(p, seen.numel()))
        if whose == "lambert":
            report.expect(near, f"{name}: dropped {row['dropped']:.5f} of the attention weights")
            report.expect(row["gradient_is_finite"], f"{name}: the gradient is not finite")


def _unpadded(settings: Settings, report: Report, length: int) -> None:
    """Attention of the real tokens alone against padded rows with a bias: contexts and gradients."""
    name = f"lambert, length {length}, real tokens alone"
    with report.case(name, whose="unpadded", length=length) as row:
        rows, heads = (4, 2) if settings.small else (16_384 // length, 16)
        width = heads * HEAD
        random = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, length + 1, (rows, 1), generator=random)
        mask = (torch.arange(length) < lengths).to(settings.device)
        padded = torch.randn(rows, length, 3 * width, generator=random).to(settings.device, torch.bfloat16)
        unpadded = eager.unpad(mask, padded, heads, 0.0, int(lengths.sum()))
        if unpadded is None:
            row["kernel"] = "none: rows are padded"
            report.expect(not settings.on_gpu, f"{name}: there is no FlashAttention here")
            return
        row["kernel"], contexts, gradients = "varlen_attn", [], []
        for rows_are in (eager.attention_bias(mask[:, None, None, :], padded), unpadded):
            qkv = padded.clone().requires_grad_()
            if rows_are is unpadded:
                context = unpadded.pad(
                    eager.attention(unpadded.take(qkv), heads, unpadded, 0.0, checkpoint=False), rows
                )
            else:
                context = eager.attention(qkv, heads, rows_are, 0.0, checkpoint=False)
            context = context.float() * mask[..., None]
            context.sin().sum().backward()
            assert qkv.grad is not None
            contexts.append(context.detach())
            gradients.append(qkv.grad.float())
        row["context_error"], row["gradient_error"] = (
            float((ours - theirs).norm() / theirs.norm()) for theirs, ours in (contexts, gradients)
        )
        for error in ("context_error", "gradient_error"):
            report.expect(row[error] <= _ROUNDING, f"{name}: {error} {row[error]:.2g}")


def _one_hot_values(rows: int, length: int, heads: int, settings: Settings) -> Tensor:
    """Equal queries and keys, so that all weights are 1 / length; value j is one-hot, so that context j is weight j."""
    qkv = torch.zeros(rows, length, 3, heads, HEAD, dtype=torch.bfloat16, device=settings.device)
    one_hot = torch.eye(length, HEAD, dtype=torch.bfloat16, device=settings.device)
    qkv[:, :, 2] = one_hot[:, None, :]
    return qkv.flatten(2)


def _mask(kind: str, rows: int, length: int, device: torch.device) -> Tensor | None:
    """A mask that hides nothing, as a bool or as what is added to the logits."""
    if kind == "none":
        return None
    if kind == "bool":
        return torch.ones(rows, 1, 1, length, dtype=torch.bool, device=device)
    return torch.zeros(rows, 1, 1, length, dtype=torch.bfloat16, device=device)


def _sampling_error(p: float, count: int) -> float:
    """Five standard deviations of the share that is dropped of `count` weights."""
    return 5 * (p * (1 - p) / max(count, 1)) ** 0.5


def _kernel(context: Tensor) -> str:
    """The backward function of attention, which names its kernel."""
    nodes: list[Any] = [context.grad_fn]
    for node in nodes:
        name = type(node).__name__
        if "ScaledDotProduct" in name:
            return name.removeprefix("ScaledDotProduct").removesuffix("Backward0")
        nodes += [parent for parent, _ in node.next_functions if parent is not None and parent not in nodes]
    return "composed of separate products"
