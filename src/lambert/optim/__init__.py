"""Optimizers: LAMB, LARS, LANS, Hyperball, Muon, StableAdamW; their parameter groups; the gradient noise scale.

Needs PyTorch only; LAMB's compiled kernels also need numba (CPU, the extra `fused`) or Triton (GPU).
"""

from __future__ import annotations

from lambert.optim.combined import CombinedOptimizer, split_groups
from lambert.optim.groups import any_of, by_dimensions, by_module, by_name, parameter_groups
from lambert.optim.hyperball import AdamHyperball, MuonHyperball
from lambert.optim.lamb import LAMB
from lambert.optim.lans import LANS
from lambert.optim.lars import LARS
from lambert.optim.layer_stats import LayerStats
from lambert.optim.layerwise import LayerwiseOptimizer
from lambert.optim.muon import Muon
from lambert.optim.noise import GradientNoise, NoiseEstimate
from lambert.optim.stable_adamw import StableAdamW

__all__ = [
    "LAMB",
    "LANS",
    "LARS",
    "AdamHyperball",
    "CombinedOptimizer",
    "GradientNoise",
    "LayerStats",
    "LayerwiseOptimizer",
    "Muon",
    "MuonHyperball",
    "NoiseEstimate",
    "StableAdamW",
    "any_of",
    "by_dimensions",
    "by_module",
    "by_name",
    "parameter_groups",
    "split_groups",
]
