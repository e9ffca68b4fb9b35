"""The optimizer family: LAMB, LARS and LANS, and the parameter groups they are used with.

Needs torch, and numba for LAMB's kernel on the CPU.
"""

from __future__ import annotations

from lambert.optim.groups import any_of, by_dimensions, by_module, by_name, parameter_groups
from lambert.optim.lamb import LAMB
from lambert.optim.lans import LANS
from lambert.optim.lars import LARS
from lambert.optim.layerwise import LayerwiseOptimizer
from lambert.optim.noise import GradientNoise, NoiseEstimate
from lambert.optim.telemetry import LayerStats

__all__ = [
    "LAMB",
    "LANS",
    "LARS",
    "GradientNoise",
    "LayerStats",
    "LayerwiseOptimizer",
    "NoiseEstimate",
    "any_of",
    "by_dimensions",
    "by_module",
    "by_name",
    "parameter_groups",
]
