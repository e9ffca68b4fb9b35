"""Newton–Schulz iterations: nearly the nearest orthogonal matrix, in a few products."""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Muon's polynomial (Jordan et al. 2024): singular values end near 1, between some .7 and 1.2."""


def orthogonal(
    matrices: Tensor,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    steps: int = 5,
    epsilon: float = 1e-7,
) -> Tensor:
    """Newton–Schulz iterations on matrices [n, rows, columns] in bfloat16, as `torch.optim.Muon` does on one."""
    a, b, c = coefficients
    x = matrices.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=epsilon)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
