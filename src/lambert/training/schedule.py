"""The learning rate of a step: a pure function, no optimizer inside."""

from __future__ import annotations


def warmup_then_linear(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up from 0 to `peak`, then linear decay towards 0.

    The decay starts from the end of the warm-up, where both lines meet at `peak`. (BERT's and NVIDIA's own code
    evaluate the decay from step 0, so that the rate drops at once when the warm-up ends.)

    Args:
        step: 1 for the first step, `total_steps` for the last, which still has a rate above 0.
        warmup_steps: steps until the peak, fewer than `total_steps` or equal; 0 starts at the peak.

    Example:
        >>> [warmup_then_linear(t, peak=1.0, warmup_steps=2, total_steps=5) for t in range(1, 6)]
        [0.5, 1.0, 0.75, 0.5, 0.25]
    """
    assert 1 <= step <= total_steps and 0 <= warmup_steps <= total_steps
    if step <= warmup_steps:
        return peak * step / warmup_steps
    return peak * (total_steps - step + 1) / (total_steps - max(warmup_steps, 1) + 1)
