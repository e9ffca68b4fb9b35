"""What the process that `warm` forks from has imported and compiled."""

from __future__ import annotations

import pytest  # noqa: F401
import torch
import torch.distributed.device_mesh
import torch.distributed.fsdp
import torch.distributed.tensor
import transformers.models.bert  # noqa: F401

import lambert.cli.main
import lambert.data
import lambert.training.checkpoint
import lambert.training.loop  # noqa: F401
from lambert.optim import LAMB

torch.set_num_threads(1)
# Compiles all forms: with room for the directions and without, for layers with a trust ratio and without one, and the
# sums of squares of gradients.
_layers = [torch.nn.Parameter(torch.ones(size)) for size in (8, 64, 4)]
for _layer in _layers:
    _layer.grad = torch.ones_like(_layer)
LAMB([{"params": _layers[:2]}, {"params": _layers[2:], "adapt": False}], max_grad_norm=1.0).step()
