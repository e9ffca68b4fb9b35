"""Learning rates of other programs, restated."""

from __future__ import annotations

import math


def cosine_with_warmup_and_cooldown(steps: int, warmup: int, cooldown: int, floor: float) -> list[float]:
    """The factors of `steps` steps, counted from 0: of ltgoslo/gpt-bert 9fc15074 and hplt-project/HPLT-WP4 4749f45b."""
    factors = []
    for step in range(steps):
        if step < warmup:
            factors.append(step / warmup)
        elif step >= steps - cooldown:
            factors.append(floor * (steps - step) / cooldown)
        else:
            angle = math.pi * (step - warmup) / (steps - warmup)
            factors.append(floor + (1 - floor) * (1 + math.cos(angle)) / 2)
    return factors
