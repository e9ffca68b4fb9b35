"""Which parameters are decayed and adapted: explicit groups, each parameter in exactly one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """BERT's two groups: layer norms and biases get neither weight decay nor a trust ratio, all else gets both.

    The split of Google's published LAMB (in the ALBERT code), decided by module type and by the name `bias`. Works
    for LAMB and, since AdamW ignores `adapt`, for `torch.optim.AdamW`.

    Args:
        model: frozen parameters are left out; a tied parameter is counted once.
        weight_decay: λ of the first group.

    Returns:
        Two groups with `params`, `names`, `weight_decay` and `adapt`; an empty one is left out.
    """
    norm_parameters: set[Tensor] = {
        parameter
        for module in model.modules()
        if isinstance(module, nn.LayerNorm)
        for parameter in module.parameters(recurse=False)
    }
    adapted: list[tuple[str, Tensor]] = []
    excluded: list[tuple[str, Tensor]] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_excluded = parameter in norm_parameters or name.rpartition(".")[2] == "bias"
            (excluded if is_excluded else adapted).append((name, parameter))
    return [
        {
            "params": [parameter for _, parameter in named],
            "names": [name for name, _ in named],
            "weight_decay": decay,
            "adapt": adapt,
        }
        for named, decay, adapt in ((adapted, weight_decay, True), (excluded, 0.0, False))
        if named
    ]
