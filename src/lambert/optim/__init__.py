"""Optimizers for large batches: LAMB, LARS, LANS and Muon with AdamW; their parameter groups; the gradient noise scale.

Needs PyTorch only; LAMB's compiled kernels also need numba (CPU, the extra `fused`) or Triton (GPU).
"""

from __future__ import annotations

from lambert.optim.groups import any_of, by_dimensions, by_module, by_name, parameter_groups
from lambert.optim.lamb import LAMB
from lambert.optim.lans import LANS
from lambert.optim.lars import LARS
from lambert.optim.layer_stats import LayerStats
from lambert.optim.layerwise import LayerwiseOptimizer
from lambert.optim.muon import MuonAdamW
from lambert.optim.noise import GradientNoise, NoiseEstimate

__all__ = [
    "LAMB",
    "LANS",
    "LARS",
    "GradientNoise",
    "LayerStats",
    "LayerwiseOptimizer",
    "MuonAdamW",
    "NoiseEstimate",
    "any_of",
    "by_dimensions",
    "by_module",
    "by_name",
    "parameter_groups",
]
