"""Well-known variants of LAMB by name. Each is tested equal to what it names (docs/lamb.md has the sources)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lambert.optim.groups import parameter_groups


@dataclass(frozen=True)
class Preset:
    """Options of `LAMB`, and whether BERT's layer norms and biases are left out of decay and adaptation."""

    options: dict[str, Any] = field(default_factory=dict)
    leaves_out: bool = False


PRESETS: dict[str, Preset] = {
    # Algorithm 2 of the ICLR paper: every tensor alike.
    "paper": Preset(),
    # This project's recipe for BERT; the training step clips, as BERT did.
    "bert": Preset(leaves_out=True),
    # The authors' TensorFlow code (as published with ALBERT): no bias correction; clipping is the caller's.
    "google": Preset({"bias_correction": False}, leaves_out=True),
    # NVIDIA apex FusedLAMB: groups without decay are not adapted, and the gradient is clipped inside.
    "apex": Preset({"adapt": "decayed", "max_grad_norm": 1.0}),
    # The same with use_nvlamb=True: every group is adapted.
    "nvlamb": Preset({"max_grad_norm": 1.0}),
    # optax.lamb: no decay unless asked for.
    "optax": Preset({"weight_decay": 0.0}),
}


def preset_arguments(
    name: str, params: nn.Module | Iterable[Any], options: dict[str, Any]
) -> tuple[Iterable[Any], dict[str, Any]]:
    """What `LAMB` is to be called with: parameters or groups, and options, of which those given win.

    Raises:
        ValueError: there is no such preset, or it needs a model.
    """
    if name not in PRESETS:
        raise ValueError(f"LAMB: no preset is called {name!r}; there are {', '.join(PRESETS)}")
    preset = PRESETS[name]
    options = preset.options | options
    if not isinstance(params, nn.Module):
        if preset.leaves_out:
            raise ValueError(
                f"LAMB: preset {name!r} leaves layer norms and biases out, so it needs the model itself; "
                "give it in place of its parameters"
            )
        return params, options
    if not preset.leaves_out:
        return params.named_parameters(), options
    return parameter_groups(params, weight_decay=options.pop("weight_decay", 0.01)), options
