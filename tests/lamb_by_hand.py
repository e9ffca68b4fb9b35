"""Algorithm 2 of the paper once more, by hand in NumPy float64, with every option; imports nothing of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class Options:
    lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.01
    adapt: bool = True
    bias_correction: bool = True
    max_grad_norm: float | None = None
    norm_bounds: tuple[float, float] | None = None
    maximize: bool = False

    def arguments(self) -> dict[str, Any]:
        """As `LAMB` takes them."""
        named = dict(vars(self))
        return {"betas": (named.pop("beta1"), named.pop("beta2")), **named}


def lamb_by_hand(layers: Sequence[Array], steps: Sequence[Sequence[Array]], options: Options) -> list[Array]:
    """`steps` holds a gradient for each layer, step by step; returns the layers after the last."""
    o = options
    xs = [np.array(x, np.float64) for x in layers]
    ms, vs = [np.zeros_like(x) for x in xs], [np.zeros_like(x) for x in xs]
    for t, gradients in enumerate(steps, start=1):
        gs = [(-1.0 if o.maximize else 1.0) * np.asarray(g, np.float64) for g in gradients]
        if o.max_grad_norm is not None and 0 < o.max_grad_norm < math.inf:
            norm = math.sqrt(sum(float((g * g).sum()) for g in gs))
            gs = [g * min(1.0, o.max_grad_norm / norm) if norm > 0 else g for g in gs]
        for i, g in enumerate(gs):
            ms[i] = o.beta1 * ms[i] + (1 - o.beta1) * g
            vs[i] = o.beta2 * vs[i] + (1 - o.beta2) * g * g
            m_hat = ms[i] / (1 - o.beta1**t) if o.bias_correction else ms[i]
            v_hat = vs[i] / (1 - o.beta2**t) if o.bias_correction else vs[i]
            u = m_hat / (np.sqrt(v_hat) + o.eps) + o.weight_decay * xs[i]
            x_norm, u_norm = math.sqrt(float((xs[i] ** 2).sum())), math.sqrt(float((u**2).sum()))
            phi = x_norm if o.norm_bounds is None else min(max(x_norm, o.norm_bounds[0]), o.norm_bounds[1])
            ratio = phi / u_norm if o.adapt and x_norm > 0 and u_norm > 0 else 1.0
            xs[i] = xs[i] - o.lr * ratio * u
    return xs
