"""The optimizer family: LAMB and the parameter groups it is used with. Needs torch, and numba for its kernel."""

from __future__ import annotations

from lambert.optim.groups import any_of, by_dimensions, by_module, by_name, parameter_groups
from lambert.optim.lamb import LAMB
from lambert.optim.telemetry import LayerFigures

__all__ = ["LAMB", "LayerFigures", "any_of", "by_dimensions", "by_module", "by_name", "parameter_groups"]
